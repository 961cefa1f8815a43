#include "capture/mixer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace mmedge {
namespace {

constexpr std::int64_t kWatchedS = 2;  // of sound, over which a mix is compared with its channels
// 15 dB: two channels of opposite phase, unless one is 4 dB louder; one channel of six that sounds.
constexpr double kWeak = 0.0316227766016837933;
constexpr double kAudible =
    1e-6;  // mean square, -60 dB of full scale: what is quieter is the microphone's noise
constexpr double kTiny = 1e-30, kMostDecibels = 99.0;

// In four sums, so that the CPU may add them at once, in an order that does not depend on it.
double squares(const float* values, std::int64_t n) {
  double sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) sums[k] += static_cast<double>(values[i + k]) * values[i + k];
  for (; i < n; ++i) sums[0] += static_cast<double>(values[i]) * values[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

Mixer::Mixer(std::vector<std::int64_t> channels) : channels_(std::move(channels)) {
  for (const std::int64_t channel : channels_) {
    if (channel < 0) throw std::invalid_argument("channels are counted from 0");
    beyond_ = std::max(beyond_, channel + 1);
  }
}

std::optional<Mixer::Weak> Mixer::mix(const float* rows, std::int64_t count, std::int64_t samples,
                                      std::int64_t rate_hz, float* out) {
  if (count < std::max<std::int64_t>(1, beyond_))
    throw std::invalid_argument("a chosen channel is not there");
  const auto own = channels_.empty() ? count : static_cast<std::int64_t>(channels_.size());
  const auto row = [&](std::int64_t k) {
    return rows + (channels_.empty() ? k : channels_[static_cast<std::size_t>(k)]) * samples;
  };
  if (own == 1) {
    std::copy_n(row(0), samples, out);
  } else {
    sums_.assign(row(0), row(0) + samples);
    for (std::int64_t k = 1; k < own; ++k)
      for (std::int64_t i = 0; i < samples; ++i) sums_[static_cast<std::size_t>(i)] += row(k)[i];
    for (std::int64_t i = 0; i < samples; ++i)
      out[i] = static_cast<float>(sums_[static_cast<std::size_t>(i)] / static_cast<double>(own));
  }
  if (count == 1) return std::nullopt;
  block_.resize(static_cast<std::size_t>(count));
  return watch(rows, samples, rate_hz, out);
}

std::optional<Mixer::Weak> Mixer::watch(const float* rows, std::int64_t samples, std::int64_t rate_hz,
                                        const float* out) {
  const double power = squares(out, samples);
  bool finite = std::isfinite(power);
  for (std::size_t k = 0; k < block_.size(); ++k) {
    block_[k] = squares(rows + static_cast<std::int64_t>(k) * samples, samples);
    finite = finite && std::isfinite(block_[k]);
  }
  if (!finite) return std::nullopt;
  if (each_.size() != block_.size()) {
    samples_ = 0;
    mixed_ = 0.0;
    each_.assign(block_.size(), 0.0);
  }
  samples_ += samples;
  mixed_ += power;
  for (std::size_t k = 0; k < each_.size(); ++k) each_[k] += block_[k];
  if (samples_ < kWatchedS * rate_hz) return std::nullopt;
  const std::optional<Weak> weak = judge();
  each_.clear();
  return weak;
}

std::optional<Mixer::Weak> Mixer::judge() const {
  const double n = static_cast<double>(std::max<std::int64_t>(1, samples_)), mean = mixed_ / n;
  const auto loudest = std::max_element(each_.begin(), each_.end());
  const auto own = static_cast<std::int64_t>(channels_.empty() ? each_.size() : channels_.size());
  double most = *loudest / n;
  if (!channels_.empty()) {
    most = 0.0;
    for (const std::int64_t channel : channels_)
      most = std::max(most, each_[static_cast<std::size_t>(channel)] / n);
  }
  const std::int64_t at = loudest - each_.begin();
  if (own > 1 && most > kAudible && mean < kWeak * most)
    return Weak{false, own, std::min(kMostDecibels, 10 * std::log10(most / std::max(mean, kTiny))), at};
  if (mean == 0.0 && *loudest / n > kAudible) return Weak{true, own, 0.0, at};
  return std::nullopt;
}

}  // namespace mmedge
