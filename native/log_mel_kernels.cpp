#include "log_mel_kernels.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "cpu.hpp"
#include "log_mel_lanes.hpp"

namespace mmedge {
namespace {

// Every processor has vectors of two doubles, or does with single ones what they would.
void compute2(const LogMelPlan& plan, LogMelLine* scratch, const float* pcm, std::size_t count, float* out) {
  LogMelLanes<2>::compute(plan, scratch, pcm, count, out);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) void compute4(const LogMelPlan& plan, LogMelLine* scratch, const float* pcm,
                                              std::size_t count, float* out) {
  if (count <= 2)
    LogMelLanes<2>::compute(plan, scratch, pcm, count, out);
  else
    LogMelLanes<4>::compute(plan, scratch, pcm, count, out);
}

__attribute__((target("avx512f"))) void compute8(const LogMelPlan& plan, LogMelLine* scratch,
                                                 const float* pcm, std::size_t count, float* out) {
  if (count <= 2)
    LogMelLanes<2>::compute(plan, scratch, pcm, count, out);
  else if (count <= 4)
    LogMelLanes<4>::compute(plan, scratch, pcm, count, out);
  else
    LogMelLanes<8>::compute(plan, scratch, pcm, count, out);
}

#endif

}  // namespace

std::size_t log_mel_lines(const LogMelPlan& plan) { return LogMelLanes<8>::lines(plan); }

LogMelKernels log_mel_kernels() {
  LogMelKernels kernels{{{2, compute2}}, 1};
#if defined(__x86_64__)
  const std::vector<std::string> features = cpu_features();
  const auto has = [&features](const char* name) {
    return std::find(features.begin(), features.end(), name) != features.end();
  };
  if (has("avx2")) kernels.found[kernels.count++] = {4, compute4};
  if (has("avx2") && has("avx512f")) kernels.found[kernels.count++] = {8, compute8};
#endif
  return kernels;
}

}  // namespace mmedge
