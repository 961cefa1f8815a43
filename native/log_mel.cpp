#include "log_mel.hpp"

#include <algorithm>

namespace mmedge {
namespace {

LogMelKernel best() {
  static const LogMelKernels kernels = log_mel_kernels();
  return kernels.found[kernels.count - 1];
}

}  // namespace

LogMel::LogMel(const LogMelSpec& spec, const float* filters) : LogMel(spec, filters, best()) {}

LogMel::LogMel(const LogMelSpec& spec, const float* filters, const LogMelKernel& kernel)
    : plan_(spec, filters), kernel_(kernel), scratch_(log_mel_lines(plan_)) {}

std::size_t LogMel::frames(std::size_t samples) const {
  const LogMelSpec& spec = plan_.spec;
  return samples < spec.window_samples ? 0 : (samples - spec.window_samples) / spec.hop_samples + 1;
}

void LogMel::compute(const float* pcm, std::size_t samples, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::size_t count = frames(samples);
  for (std::size_t frame = 0; frame < count; frame += kernel_.lanes)
    kernel_.compute(plan_, scratch_.data(), pcm + frame * plan_.spec.hop_samples,
                    std::min(kernel_.lanes, count - frame), out + frame * plan_.spec.n_mels);
}

}  // namespace mmedge
