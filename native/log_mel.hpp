// Log-mel features of one window of sound: Hann, power spectrum, mel filters, logarithm.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

namespace mmedge {

struct LogMelSpec {
  std::size_t n_fft, window_samples, hop_samples, n_mels;
  float floor, mean, std;
};

// Frames are transformed eight at a time, the frame being the innermost dimension, so that every
// loop of a plain radix-2 transform is a vector loop. Spectra are float64: beside a microphone's DC
// offset, which no mel filter sees, the quiet bands would drown in float32 rounding.
class LogMel {
 public:
  // `filters`: row-major [n_fft / 2 + 1, n_mels].
  LogMel(const LogMelSpec& spec, const float* filters);

  // How many frames `samples` samples give; frame k starts at sample k * hop.
  std::size_t frames(std::size_t samples) const;
  std::size_t n_mels() const { return spec_.n_mels; }
  // Writes row-major [frames(samples), n_mels]. Never allocates; calls from several threads take turns.
  void compute(const float* pcm, std::size_t samples, float* out);

 private:
  struct Filter {
    std::size_t first_bin, bins, weights;
  };
  void power_by_fft(const float* pcm, std::size_t lanes);
  void power_by_dft(const float* pcm, std::size_t lanes);
  void mel(std::size_t lanes, float* out) const;

  LogMelSpec spec_;
  bool fft_;
  std::vector<double> window_, cosine_, sine_;
  std::vector<float> weights_;
  std::vector<std::size_t> reversed_;
  std::vector<Filter> filters_;
  std::vector<double> real_, imaginary_;  // scratch, [.., lanes]
  std::vector<float> power_;              // likewise
  std::mutex mutex_;
};

}  // namespace mmedge
