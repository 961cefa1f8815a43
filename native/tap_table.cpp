#include "tap_table.hpp"

#include <algorithm>
#include <cmath>

namespace mmedge {
namespace {

constexpr std::size_t kWindow = 16;
constexpr std::uint8_t kNothing = 0x80;

}  // namespace

void ColumnTaps::plan(const StoredAxis& columns, std::size_t block) {
  const std::size_t width = columns.length();
  taps.clear(), weights.clear(), start.clear();
  for (std::size_t at = 0; at < width; at += block) {
    start.push_back(static_cast<std::uint32_t>(std::min(at, width - block)));
    for (std::size_t i = 0; i < block; ++i) {
      const std::size_t x = start.back() + i;
      const auto right = std::lround(columns.taps.weight[x] * 32768.0f);
      const auto first = static_cast<std::uint32_t>(columns.first);
      taps.insert(taps.end(), {first + columns.taps.left[x], first + columns.taps.right[x]});
      weights.push_back(static_cast<std::int16_t>(right - 32768));
      weights.push_back(static_cast<std::int16_t>(-right));
    }
  }
}

void TapTable::bytes(const ColumnTaps& columns, std::size_t shared, std::size_t step, std::size_t row_bytes) {
  place_.clear();
  for (const std::uint32_t x : columns.taps) place_.push_back(static_cast<std::uint32_t>(x / shared * step));
  choose_windows(row_bytes);
}

void TapTable::pairs(const ColumnTaps& columns, std::size_t shared, std::size_t step, std::size_t row_bytes) {
  place_.clear();
  for (const std::uint32_t x : columns.taps) {
    const auto first = static_cast<std::uint32_t>(x / shared * step);
    place_.insert(place_.end(), {first, first + 1});
  }
  choose_windows(row_bytes);
}

// As few windows as hold the bytes: 1, 2, 4 or 8 for 16 of them.
void TapTable::choose_windows(std::size_t row_bytes) {
  offset_.clear(), control_.clear();
  if (row_bytes < kWindow || place_.size() % kWindow != 0) return;  // for the scalar code alone
  if (place_.size() % (2 * kWindow) != 0) place_.resize(place_.size() + kWindow, place_.back());
  const auto last = static_cast<std::uint32_t>(row_bytes - kWindow);
  const auto within = [&](std::size_t share) {
    for (std::size_t i = 0; i < place_.size(); i += share) {
      const auto [low, high] = std::minmax_element(&place_[i], &place_[i] + share);
      if (*high - *low >= kWindow) return false;
    }
    return true;
  };
  for (count_ = 1; count_ < 8 && !within(kWindow / count_);) count_ *= 2;
  const std::size_t share = kWindow / count_;
  for (std::size_t i = 0; i < place_.size(); i += 2 * kWindow) {
    for (std::size_t k = 0; k < 2 * count_; ++k) {  // of both halves in turn
      const std::size_t first = k / 2 * share;
      const std::uint32_t* const from = &place_[i + k % 2 * kWindow + first];
      const std::uint32_t low = std::min(*std::min_element(from, from + share), last);
      offset_.push_back(low);
      const std::size_t begin = control_.size();
      control_.resize(begin + kWindow, kNothing);
      for (std::size_t j = 0; j < share; ++j)
        control_[begin + first + j] = static_cast<std::uint8_t>(from[j] - low);
    }
  }
}

void TapTable::pixels(const ColumnTaps& columns, std::size_t row_bytes) {
  place_.clear();
  for (const std::uint32_t x : columns.taps) place_.push_back(3 * x);
  if (row_bytes < kWindow || place_.size() % kWindow != 0) return;
  if (!pair_windows(row_bytes, 1)) pair_windows(row_bytes, 2);
  word_controls();
}

// What is taken as numbers of 16 bits: of two windows of 32 bytes the taps of the first two channels each,
// then those of the third channel, the second window's in the upper half of each lane.
void TapTable::word_controls() {
  words_.clear();
  const std::size_t channel = 4, lanes = 2;
  for (std::size_t at = 0; at < control_.size(); at += 2 * kWindow) {
    const bool second = at / (2 * kWindow) % 2 == 1;
    for (std::size_t lane = 0; lane < lanes; ++lane)
      for (std::size_t i = 0; i < 2 * channel; ++i)
        words_.insert(words_.end(), {control_[at + lane * kWindow + i], kNothing});
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      for (std::size_t i = 0; i < 2 * channel; ++i) {
        const bool here = second == (i >= channel);
        const std::uint8_t from = control_[at + lane * kWindow + 2 * channel + i % channel];
        words_.insert(words_.end(), {here ? from : kNothing, kNothing});
      }
    }
  }
}

// Two pixels each, of every 8 the pairs 0, 2, 1, 3: a register of 32 bytes has its halves shuffled apart.
bool TapTable::pair_windows(std::size_t row_bytes, std::size_t halves) {
  offset_.clear(), control_.clear();
  const std::size_t reach = kWindow / halves, taps = 4 / halves;
  const auto last = static_cast<std::uint32_t>(row_bytes - reach);
  for (std::size_t i = 0; i < place_.size(); i += kWindow) {
    for (const std::size_t pair : {0u, 2u, 1u, 3u}) {
      std::uint8_t lane[kWindow];
      std::fill(lane, lane + kWindow, kNothing);
      for (std::size_t half = 0; half < halves; ++half) {
        const std::uint32_t* const from = &place_[i + 4 * pair + half * taps];
        const std::uint32_t low = std::min(*std::min_element(from, from + taps), last);
        if (*std::max_element(from, from + taps) + 2 - low >= reach) return false;
        offset_.push_back(low);
        for (std::size_t t = 0; t < taps; ++t)
          for (std::size_t c = 0; c < 3; ++c)
            lane[4 * c + half * taps + t] = static_cast<std::uint8_t>(from[t] + c - low + half * reach);
      }
      control_.insert(control_.end(), lane, lane + kWindow);
    }
  }
  count_ = 4 * halves;
  return true;
}

}  // namespace mmedge
