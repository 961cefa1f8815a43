#include "mono.hpp"

#include <algorithm>
#include <stdexcept>

namespace mmedge {
namespace {

// Eight sums side by side, so that it is a vector loop.
double power(const float* samples, std::size_t count) {
  double sums[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (std::size_t k = 0; k < 8; ++k) {
      const auto value = static_cast<double>(samples[i + k]);
      sums[k] += value * value;
    }
  for (; i < count; ++i) sums[i % 8] += static_cast<double>(samples[i]) * static_cast<double>(samples[i]);
  double sum = 0.0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

std::vector<double> mono(const Channels& channels, const std::vector<std::size_t>& chosen, float* out) {
  if (chosen.empty()) throw std::invalid_argument("no channel is chosen");
  for (const std::size_t channel : chosen)
    if (channel >= channels.count) throw std::invalid_argument("a channel that is chosen is not there");
  constexpr std::size_t kBlock = 256;
  double sums[kBlock];
  const auto share = static_cast<double>(chosen.size());
  for (std::size_t first = 0; first < channels.samples; first += kBlock) {
    const std::size_t n = std::min(kBlock, channels.samples - first);
    std::fill_n(sums, n, 0.0);
    for (const std::size_t channel : chosen) {
      const float* const row = channels.rows + channel * channels.stride + first;
      for (std::size_t i = 0; i < n; ++i) sums[i] += static_cast<double>(row[i]);
    }
    for (std::size_t i = 0; i < n; ++i) out[first + i] = static_cast<float>(sums[i] / share);
  }
  std::vector<double> powers;
  for (std::size_t channel = 0; channel < channels.count; ++channel)
    powers.push_back(power(channels.rows + channel * channels.stride, channels.samples));
  powers.push_back(power(out, channels.samples));
  return powers;
}

}  // namespace mmedge
