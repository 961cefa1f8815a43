#include "capture/mixer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mmedge {
namespace {

constexpr std::int64_t kWatchedS = 2;  // of sound, over which a mix is compared with its channels
// 15 dB: two channels of opposite phase, unless one is 4 dB louder; one channel of six that sounds.
constexpr double kWeak = 0.0316227766016837933;
constexpr double kAudible =
    1e-6;  // mean square, -60 dB of full scale: what is quieter is the microphone's noise
constexpr double kTiny = 1e-30, kMostDecibels = 99.0;

}  // namespace

std::optional<Mixer::Weak> Mixer::mix(const Channels& channels, std::int64_t rate_hz, float* out) {
  if (channels.count == 1 && channels_.size() <= 1 && (channels_.empty() || channels_[0] == 0)) {
    std::copy_n(channels.rows, channels.samples, out);
    return std::nullopt;
  }
  if (channels_.empty() && all_.size() != channels.count) {
    all_.resize(channels.count);
    std::iota(all_.begin(), all_.end(), std::size_t{0});
  }
  const std::vector<std::size_t>& chosen = channels_.empty() ? all_ : channels_;
  const std::vector<double> powers = mono(channels, chosen, out);
  if (!std::all_of(powers.begin(), powers.end(), [](double power) { return std::isfinite(power); }))
    return std::nullopt;
  if (powers_.size() != powers.size()) {
    samples_ = 0;
    powers_.assign(powers.size(), 0.0);
  }
  samples_ += static_cast<std::int64_t>(channels.samples);
  for (std::size_t k = 0; k < powers.size(); ++k) powers_[k] += powers[k];
  if (samples_ < kWatchedS * rate_hz) return std::nullopt;
  const std::optional<Weak> weak = judge(chosen);
  powers_.clear();
  return weak;
}

std::optional<Mixer::Weak> Mixer::judge(const std::vector<std::size_t>& chosen) const {
  const auto n = static_cast<double>(std::max<std::int64_t>(1, samples_));
  const double mean = powers_.back() / n;
  const auto loudest = std::max_element(powers_.begin(), powers_.end() - 1);
  const auto at = static_cast<std::size_t>(loudest - powers_.begin());
  double most = 0.0;
  for (const std::size_t channel : chosen) most = std::max(most, powers_[channel] / n);
  if (chosen.size() > 1 && most > kAudible && mean < kWeak * most)
    return Weak{false, chosen.size(), std::min(kMostDecibels, 10 * std::log10(most / std::max(mean, kTiny))),
                at};
  if (mean == 0.0 && *loudest / n > kAudible) return Weak{true, chosen.size(), 0.0, at};
  return std::nullopt;
}

}  // namespace mmedge
