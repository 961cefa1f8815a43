// Log-mel features of one window of sound: Hann, power spectrum, mel filters, logarithm.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "log_mel_kernels.hpp"
#include "log_mel_plan.hpp"

namespace mmedge {

// Spectra are float64: beside a microphone's DC offset, which no mel filter sees, the quiet bands would drown
// in float32 rounding (2.5e-4 of ln p, where 1e-4 is allowed).
class LogMel {
 public:
  // `filters`: row-major [n_fft / 2 + 1, n_mels]. Every kernel gives the same bits.
  LogMel(const LogMelSpec& spec, const float* filters);
  LogMel(const LogMelSpec& spec, const float* filters, const LogMelKernel& kernel);

  // How many frames `samples` samples give; frame k starts at sample k * hop.
  std::size_t frames(std::size_t samples) const;
  std::size_t n_mels() const { return plan_.spec.n_mels; }
  // Writes row-major [frames(samples), n_mels]. Never allocates; calls from several threads take turns.
  void compute(const float* pcm, std::size_t samples, float* out);

 private:
  const LogMelPlan plan_;
  const LogMelKernel kernel_;
  std::vector<LogMelLine> scratch_;
  std::mutex mutex_;
};

}  // namespace mmedge
