#include "log_mel_plan.hpp"

#include <stdexcept>

namespace mmedge {

LogMelPlan::LogMelPlan(const LogMelSpec& given, const float* matrix) : spec(given), scale(0.0) {
  if (spec.n_fft < 1 || spec.window_samples < 1 || spec.hop_samples < 1 || spec.n_mels < 1)
    throw std::invalid_argument("n_fft, window_samples, hop_samples and n_mels must be at least 1");
  if (spec.window_samples > spec.n_fft) throw std::invalid_argument("window_samples is larger than n_fft");
  if (!(spec.floor > 0.0f) || !(spec.std > 0.0f))
    throw std::invalid_argument("floor and std must be positive");
  scale = 1.0 / static_cast<double>(spec.std);
  const std::size_t bins = spec.n_fft / 2 + 1;
  for (std::size_t m = 0; m < spec.n_mels; ++m) {
    std::size_t first = 0, last = bins;
    while (first < bins && matrix[first * spec.n_mels + m] == 0.0f) ++first;
    while (last > first && matrix[(last - 1) * spec.n_mels + m] == 0.0f) --last;
    filters.push_back({first, last - first, weights.size()});
    for (std::size_t bin = first; bin < last; ++bin)
      weights.push_back(static_cast<double>(matrix[bin * spec.n_mels + m]));
  }
  plan_stages();
  const double height = pairs > 0 ? 0.25 : 0.5;
  for (std::size_t n = 0; n < spec.window_samples; ++n)
    window.push_back(height - height * turn(n, spec.window_samples).cosine);
  for (std::size_t n = 0; n < (pairs > 0 ? bins : spec.n_fft); ++n) turns.push_back(turn(n, spec.n_fft));
}

void LogMelPlan::plan_stages() {
  const std::size_t half = spec.n_fft / 2;
  if (spec.n_fft % 2 != 0) return;
  std::size_t size = 1;
  for (const std::size_t radix : {4u, 2u, 3u, 5u}) {
    while (half / size % radix == 0) {
      Stage stage{radix, size, {}};
      for (std::size_t k = 0; size > 1 && k < size; ++k)
        for (std::size_t q = 1; q < radix; ++q) stage.factors.push_back(turn(k * q, size * radix));
      stages.push_back(stage);
      size *= radix;
    }
  }
  if (size != half) return stages.clear();
  pairs = half;
  // The last stage joins every radix-th value, and so on inwards.
  for (std::size_t n = 0; n < half; ++n) {
    std::size_t place = 0, rest = n, block = half;
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      block /= stage->radix;
      place += rest % stage->radix * block;
      rest /= stage->radix;
    }
    places.push_back(place);
  }
}

}  // namespace mmedge
