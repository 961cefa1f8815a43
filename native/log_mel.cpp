#include "log_mel.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr std::size_t kLanes = 8;
constexpr double kTau = 6.283185307179586476925286766559;

}  // namespace

LogMel::LogMel(const LogMelSpec& spec, const float* filters)
    : spec_(spec), fft_(spec.n_fft >= 2 && (spec.n_fft & (spec.n_fft - 1)) == 0) {
  if (spec.n_fft < 1 || spec.window_samples < 1 || spec.hop_samples < 1 || spec.n_mels < 1)
    throw std::invalid_argument("n_fft, window_samples, hop_samples and n_mels must be at least 1");
  if (spec.window_samples > spec.n_fft) throw std::invalid_argument("window_samples is larger than n_fft");
  if (!(spec.floor > 0.0f) || !(spec.std > 0.0f))
    throw std::invalid_argument("floor and std must be positive");
  const std::size_t bins = spec.n_fft / 2 + 1;
  for (std::size_t m = 0; m < spec.n_mels; ++m) {
    std::size_t first = 0, last = bins;
    while (first < bins && filters[first * spec.n_mels + m] == 0.0f) ++first;
    while (last > first && filters[(last - 1) * spec.n_mels + m] == 0.0f) --last;
    filters_.push_back({first, last - first, weights_.size()});
    for (std::size_t bin = first; bin < last; ++bin) weights_.push_back(filters[bin * spec.n_mels + m]);
  }
  for (std::size_t n = 0; n < spec.window_samples; ++n) {
    const double phase = kTau * static_cast<double>(n) / static_cast<double>(spec.window_samples);
    window_.push_back(0.5 - 0.5 * std::cos(phase));
  }
  for (std::size_t n = 0; n < spec.n_fft; ++n) {
    const double phase = kTau * static_cast<double>(n) / static_cast<double>(spec.n_fft);
    cosine_.push_back(std::cos(phase));
    sine_.push_back(std::sin(phase));
  }
  if (fft_) {
    // Sample pairs are one complex number; they are loaded in bit-reversed order.
    for (std::size_t n = 0; n < spec.n_fft / 2; ++n) {
      std::size_t reversed = 0;
      for (std::size_t bit = 1; bit < spec.n_fft / 2; bit *= 2) reversed = 2 * reversed + ((n & bit) != 0);
      reversed_.push_back(reversed);
    }
  }
  real_.resize(kLanes * (fft_ ? spec.n_fft / 2 : spec.window_samples));
  imaginary_.resize(fft_ ? kLanes * (spec.n_fft / 2) : 0);
  power_.resize(kLanes * bins);
}

std::size_t LogMel::frames(std::size_t samples) const {
  return samples < spec_.window_samples ? 0 : (samples - spec_.window_samples) / spec_.hop_samples + 1;
}

void LogMel::compute(const float* pcm, std::size_t samples, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::size_t count = frames(samples);
  for (std::size_t frame = 0; frame < count; frame += kLanes) {
    const std::size_t lanes = std::min(kLanes, count - frame);
    const float* start = pcm + frame * spec_.hop_samples;
    fft_ ? power_by_fft(start, lanes) : power_by_dft(start, lanes);
    mel(lanes, out + frame * spec_.n_mels);
  }
}

void LogMel::power_by_fft(const float* pcm, std::size_t lanes) {
  const std::size_t half = spec_.n_fft / 2;
  double* const real = real_.data();
  double* const imaginary = imaginary_.data();
  std::fill(real_.begin(), real_.end(), 0.0);
  std::fill(imaginary_.begin(), imaginary_.end(), 0.0);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const float* frame = pcm + lane * spec_.hop_samples;
    for (std::size_t n = 0; n < spec_.window_samples; ++n) {
      double* const part = n % 2 == 0 ? real : imaginary;
      part[reversed_[n / 2] * kLanes + lane] = frame[n] * window_[n];
    }
  }
  for (std::size_t size = 1; size < half; size *= 2) {
    const std::size_t step = half / size;  // exp(-i pi k / size) is table entry k * n_fft / (2 size)
    for (std::size_t k = 0; k < size; ++k) {
      const double c = cosine_[k * step], s = sine_[k * step];
      for (std::size_t block = k; block < half; block += 2 * size) {
        double* __restrict ar = real + block * kLanes;
        double* __restrict ai = imaginary + block * kLanes;
        double* __restrict br = real + (block + size) * kLanes;
        double* __restrict bi = imaginary + (block + size) * kLanes;
        for (std::size_t l = 0; l < kLanes; ++l) {
          const double tr = br[l] * c + bi[l] * s, ti = bi[l] * c - br[l] * s;
          br[l] = ar[l] - tr;
          bi[l] = ai[l] - ti;
          ar[l] += tr;
          ai[l] += ti;
        }
      }
    }
  }
  // The spectrum of the even and of the odd samples, taken apart by symmetry, then joined.
  for (std::size_t k = 0; k <= half; ++k) {
    const std::size_t a = (k % half) * kLanes, b = ((half - k) % half) * kLanes;
    const double c = cosine_[k], s = sine_[k];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double even_r = real[a + l] + real[b + l], even_i = imaginary[a + l] - imaginary[b + l];
      const double odd_r = imaginary[a + l] + imaginary[b + l], odd_i = real[b + l] - real[a + l];
      const double x = even_r + odd_r * c + odd_i * s, y = even_i + odd_i * c - odd_r * s;
      power_[k * kLanes + l] = static_cast<float>(0.25 * (x * x + y * y));
    }
  }
}

void LogMel::power_by_dft(const float* pcm, std::size_t lanes) {
  std::fill(real_.begin(), real_.end(), 0.0);
  for (std::size_t lane = 0; lane < lanes; ++lane)
    for (std::size_t n = 0; n < spec_.window_samples; ++n)
      real_[n * kLanes + lane] = pcm[lane * spec_.hop_samples + n] * window_[n];
  for (std::size_t k = 0; k <= spec_.n_fft / 2; ++k) {
    double x[kLanes] = {}, y[kLanes] = {};
    std::size_t phase = 0;
    for (std::size_t n = 0; n < spec_.window_samples; ++n) {
      const double c = cosine_[phase], s = sine_[phase];
      const double* sample = real_.data() + n * kLanes;
      for (std::size_t l = 0; l < kLanes; ++l) {
        x[l] += sample[l] * c;
        y[l] += sample[l] * s;
      }
      phase += k;
      if (phase >= spec_.n_fft) phase -= spec_.n_fft;
    }
    for (std::size_t l = 0; l < kLanes; ++l)
      power_[k * kLanes + l] = static_cast<float>(x[l] * x[l] + y[l] * y[l]);
  }
}

void LogMel::mel(std::size_t lanes, float* out) const {
  const float scale = 1.0f / spec_.std;
  for (std::size_t m = 0; m < spec_.n_mels; ++m) {
    const Filter& filter = filters_[m];
    const float* weight = weights_.data() + filter.weights;
    const float* power = power_.data() + filter.first_bin * kLanes;
    float sum[kLanes] = {};
    for (std::size_t bin = 0; bin < filter.bins; ++bin)
      for (std::size_t l = 0; l < kLanes; ++l) sum[l] += weight[bin] * power[bin * kLanes + l];
    for (std::size_t l = 0; l < lanes; ++l)
      out[l * spec_.n_mels + m] = (std::log(std::max(sum[l], spec_.floor)) - spec_.mean) * scale;
  }
}

}  // namespace mmedge
