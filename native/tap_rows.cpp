#include "tap_rows.hpp"

#include <algorithm>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::size_t kWindow = 16;

bool interleaved(PixelFormat format) { return format == PixelFormat::bgr24 || format == PixelFormat::rgb24; }

}  // namespace

void TapRows::bind(const ImageView& view, Color color, const ImagePlan& plan) {
  pixels_.bind(view, color);  // refuses what cannot be
  const bool colour = color != Color::gray;
  if (plan.blocked())
    work_ = Work::means;
  else if (interleaved(view.format))
    work_ = colour ? Work::pixels : Work::mix_gray;
  else if (colour && view.format != PixelFormat::gray8)
    work_ = Work::yuv;
  else
    work_ = view.full_range ? Work::luma : Work::expand_luma;
  view_ = view, plan_ = &plan;
  if (!interleaved(view.format)) yuv_ = yuv_layout(view);
  factors_ = factors_of(view);
  if (work_ == Work::means) {
    blocks_.bind(plan, pixels_);
    const bool same =
        pixels_.layout().stride == 1 && pixels_.layout().offset[1] == 0;  // gray, maybe as colour
    plane_ = same ? std::array<std::size_t, 3>{} : std::array<std::size_t, 3>{0, 1, 2};
    share_ = static_cast<float>(128.0 / static_cast<double>(plan.rows.block * plan.columns.block));
  } else if (work_ == Work::pixels || work_ == Work::yuv) {
    const bool backwards = work_ == Work::yuv ? color == Color::bgr
                                              : (view.format == PixelFormat::bgr24) != (color == Color::bgr);
    plane_ = backwards ? std::array<std::size_t, 3>{2, 1, 0} : std::array<std::size_t, 3>{0, 1, 2};
  } else {
    plane_ = {};
  }
  held_ = terms_held_ = {kNone, kNone};
  if (planned_ == plan.id && planned_format_ == view.format) return;
  planned_ = 0;  // also where an allocation fails on the way
  plan_tables(plan);
  planned_ = plan.id, planned_format_ = view.format;
}

// The best instructions that can work on so narrow a picture.
void TapRows::choose(std::size_t row_bytes) {
  const auto fits = [&](Instructions one) {
    const std::size_t block = image_lanes(one).block;
    return block == 1 || (row_bytes >= kWindow && plan_->columns.length() >= block);
  };
  const std::vector<Instructions>& usable = usable_instructions();
  lanes_ =
      &image_lanes(*std::find_if(std::find(usable.begin(), usable.end(), instructions_), usable.end(), fits));
}

void TapRows::plan_tables(const ImagePlan& plan) {
  const StoredAxis& columns = plan.columns;
  const bool colour = work_ == Work::yuv;
  std::size_t row_bytes = interleaved(view_.format) ? 3 * view_.width : yuv_.luma_bytes;
  if (colour) row_bytes = std::min(row_bytes, yuv_.reach);
  if (work_ == Work::means)  // numbers of one channel
    row_bytes = 2 * (blocks_.small() ? (columns.blocks - 1) * blocks_.step() + 1 : columns.blocks);
  choose(row_bytes);
  columns_.plan(columns, lanes_->block);
  const std::size_t n = columns_.count();
  if (work_ == Work::means) {
    table_.pairs(columns_, 1, blocks_.small() ? 2 * blocks_.step() : 2, row_bytes);
    mean_row_.resize(std::max(columns.blocks, n + kWindow / 2));
    for (auto& row : means_) row.resize(3 * n + kWindow / 2);
    return;
  }
  if (interleaved(view_.format))
    table_.pixels(columns_, row_bytes);
  else if (yuv_.deep)
    table_.pairs(columns_, 1, yuv_.luma_step, yuv_.luma_bytes);
  else
    table_.bytes(columns_, 1, yuv_.luma_step, yuv_.luma_bytes);
  deep_.resize(yuv_.deep ? n + kWindow : 0);
  if (colour) {
    if (yuv_.pairs || yuv_.deep)
      chroma_.pairs(columns_, yuv_.across, yuv_.chroma_step, yuv_.reach);
    else
      chroma_.bytes(columns_, yuv_.across, yuv_.chroma_step, yuv_.reach);
    for (auto& row : terms_) row.resize((n + 15) / 16 * 48);
  }
  loose_.resize(3 * n + kWindow);
  for (auto& row : bytes_) row.resize(3 * n + kWindow);  // taking writes whole windows
}

// From a row of the picture to the one that the fourth next row of the output needs.
std::size_t TapRows::rows_ahead() const {
  return static_cast<std::size_t>(std::min(4.0 * plan_->rows.step + 0.5, 1e6));
}

void TapRows::blend(std::size_t above, std::size_t below, const Blend& blend) {
  if (work_ == Work::means) {
    const std::int16_t* const first = means(above);
    return lanes_->blend_means(first, means(below), blend);
  }
  // Rows that several rows of the output need are taken once.
  const bool once = plan_->rows.step >= 1.5;
  const bool pixels = once && work_ == Work::pixels && lanes_->blend_pixels != nullptr;
  const bool colour = once && work_ == Work::yuv && !yuv_.deep && lanes_->blend_colour != nullptr;
  if (!pixels && !colour) {
    const std::uint8_t* const first = bytes(above);
    return lanes_->blend(first, bytes(below), blend);
  }
  const std::size_t row_bytes = pixels ? 3 * view_.width : yuv_.luma_bytes;
  const std::size_t ahead = below + rows_ahead() < view_.height ? rows_ahead() * row_bytes : 0;
  if (pixels)
    return lanes_->blend_pixels(view_.data + above * row_bytes, view_.data + below * row_bytes, ahead,
                                table_.windows(), columns_.count(), blend);
  const std::int16_t* const terms = chroma(above / yuv_.down);
  lanes_->blend_colour(yuv_.luma + above * yuv_.luma_bytes, yuv_.luma + below * yuv_.luma_bytes, ahead,
                       table_.windows(), terms, chroma(below / yuv_.down), columns_.count(), factors_, blend);
}

const std::uint8_t* TapRows::bytes(std::size_t y) {
  std::uint8_t* const out = bytes_[y % 2].data();
  if (held_[y % 2] == y) return out;
  held_[y % 2] = y;
  const std::size_t n = columns_.count();
  if (interleaved(view_.format)) {
    const std::uint8_t* const row = view_.data + y * view_.width * 3;
    const std::size_t next = y + rows_ahead();
    const std::uint8_t* const ahead = next < view_.height ? view_.data + next * view_.width * 3 : row;
    if (work_ == Work::pixels) {
      lanes_->take3(row, ahead, table_.windows(), n, out);
      return out;
    }
    lanes_->take3(row, ahead, table_.windows(), n, loose_.data());
    const bool bgr = view_.format == PixelFormat::bgr24;
    const std::uint8_t *const first = loose_.data(), *const third = first + 2 * n;
    mix_gray(bgr ? third : first, first + n, bgr ? first : third, n, out);
    return out;
  }
  const std::uint8_t* const luma = yuv_.luma + y * yuv_.luma_bytes;
  std::uint8_t* const taken = work_ == Work::luma ? out : loose_.data();
  if (yuv_.deep)
    take_deep(luma, table_.windows(), false, taken);
  else
    lanes_->take(luma, table_.windows(), n, taken);
  if (work_ == Work::luma) return out;
  if (work_ == Work::yuv)
    lanes_->colour(loose_.data(), chroma(y / yuv_.down), n, factors_, out);
  else
    lanes_->expand(loose_.data(), n, out);
  return out;
}

const std::int16_t* TapRows::chroma(std::size_t y) {
  std::int16_t* const terms = terms_[y % 2].data();
  if (terms_held_[y % 2] == y) return terms;
  terms_held_[y % 2] = y;
  const std::size_t n = columns_.count();
  const std::size_t row = y * yuv_.chroma_bytes, next = rows_ahead() / yuv_.down * yuv_.chroma_bytes;
  if (row + next < view_.height / yuv_.down * yuv_.chroma_bytes) {  // to the second cache
    for (std::size_t at = row + next; at < row + next + yuv_.chroma_bytes; at += 64) {
      __builtin_prefetch(yuv_.u + at, 0, 2);
      if (!yuv_.pairs) __builtin_prefetch(yuv_.v + at, 0, 2);
    }
  }
  if (yuv_.deep) {
    std::uint8_t *const u = loose_.data() + n, *const v = u + n;
    take_deep(yuv_.u + row, chroma_.windows(), true, u);
    take_deep(yuv_.v + row, chroma_.windows(), true, v);
    lanes_->chroma(u, v, n, factors_, terms);
  } else if (yuv_.pairs)
    lanes_->take_pairs(yuv_.u + row, chroma_.windows(), n, factors_, terms);
  else
    lanes_->take_chroma(yuv_.u + row, yuv_.v + row, chroma_.windows(), n, factors_, terms);
  return terms;
}

void TapRows::take_deep(const std::uint8_t* row, const Windows& windows, bool chroma, std::uint8_t* out) {
  const std::size_t n = columns_.count();
  lanes_->take(row, windows, 2 * n, reinterpret_cast<std::uint8_t*>(deep_.data()));
  lanes_->raw.narrow(deep_.data(), n, narrowing_of(yuv_.shift, view_.full_range, chroma), out);
}

const std::int16_t* TapRows::means(std::size_t y) {
  std::int16_t* const out = means_[y % 2].data();
  if (held_[y % 2] == y) return out;
  held_[y % 2] = y;
  const std::size_t n = columns_.count(), width = plan_->columns.blocks;
  const std::size_t planes = 1 + *std::max_element(plane_.begin(), plane_.end());
  const bool small = blocks_.small();
  const std::uint16_t* const sums = small ? blocks_.sums(y) : nullptr;
  const float* const large = small ? nullptr : blocks_.row(y);
  auto* const taken = reinterpret_cast<std::uint16_t*>(mean_row_.data());
  for (std::size_t c = 0; c < planes; ++c) {
    if (small) {
      lanes_->take(reinterpret_cast<const std::uint8_t*>(sums + blocks_.at(c)), table_.windows(), 2 * n,
                   reinterpret_cast<std::uint8_t*>(taken));
      lanes_->average(taken, n, share_, out + c * n);
      continue;
    }
    const RowLayout& layout = pixels_.layout();
    const float* const first = large + (layout.stride == 1 ? c * width : layout.offset[c]);
    for (std::size_t x = 0; x < width; ++x)
      mean_row_[x] =
          static_cast<std::int16_t>(static_cast<std::int32_t>(first[x * layout.stride] * share_ + 0.5f));
    lanes_->take(reinterpret_cast<const std::uint8_t*>(mean_row_.data()), table_.windows(), 2 * n,
                 reinterpret_cast<std::uint8_t*>(out + c * n));
  }
  return out;
}

}  // namespace mmedge
