// The log-mel of some frames, by the widest vectors that this processor has.
#pragma once

#include <cstddef>

#include "log_mel_plan.hpp"

namespace mmedge {

// Scratch, in pieces of the widest vector.
struct alignas(64) LogMelLine {
  double values[8];
};
std::size_t log_mel_lines(const LogMelPlan& plan);

// Writes [count, n_mels] of frames a hop apart, at most `LogMelKernel::lanes` of them.
struct LogMelKernel {
  std::size_t lanes;
  void (*compute)(const LogMelPlan& plan, LogMelLine* scratch, const float* pcm, std::size_t count,
                  float* out);
};

// Of all that this processor can run, the best last; they give the same bits.
struct LogMelKernels {
  LogMelKernel found[3];
  std::size_t count;
};
LogMelKernels log_mel_kernels();

}  // namespace mmedge
