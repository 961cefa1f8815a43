// The arithmetic of the log-mel, of several frames side by side: lane l of every vector is frame l.
//
// A frame has the same bits in whatever lane, beside whatever others, on whatever processor: each lane is
// computed by the same additions, multiplications and divisions in the same order, and none of them are
// fused.
#pragma once

#include <cstddef>

#include "log_mel_kernels.hpp"
#include "log_mel_plan.hpp"
#include "logarithm.hpp"

// Vectors wider than the processor's never cross the border of a function: all is inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
#define MMEDGE_INLINE __attribute__((always_inline)) inline

namespace mmedge {

template <std::size_t kLanes>
struct LogMelVector;
template <>
struct LogMelVector<2> {
  typedef double Type __attribute__((vector_size(16), may_alias));
  typedef float Floats __attribute__((vector_size(8)));
};
template <>
struct LogMelVector<4> {
  typedef double Type __attribute__((vector_size(32), may_alias));
  typedef float Floats __attribute__((vector_size(16)));
};
template <>
struct LogMelVector<8> {
  typedef double Type __attribute__((vector_size(64), may_alias));
  typedef float Floats __attribute__((vector_size(32)));
};

template <std::size_t kLanes>
class LogMelLanes {
 public:
  // Room for all of it: values, powers, and the sums of the filters.
  static std::size_t lines(const LogMelPlan& plan) {
    const std::size_t bins = plan.spec.n_fft / 2 + 1,
                      values = plan.pairs > 0 ? 2 * plan.pairs : plan.spec.n_fft;
    return ((values + bins + plan.spec.n_mels) * kLanes + 7) / 8;
  }

  // Writes [count, n_mels] of frames a hop apart; `count` is 1 to kLanes.
  MMEDGE_INLINE static void compute(const LogMelPlan& plan, LogMelLine* scratch, const float* pcm,
                                    std::size_t count, float* out) {
    Vector* const values = reinterpret_cast<Vector*>(scratch);
    Vector* const power = values + (plan.pairs > 0 ? 2 * plan.pairs : plan.spec.n_fft);
    double* const sums = reinterpret_cast<double*>(power + plan.spec.n_fft / 2 + 1);
    const float* frames[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l)
      frames[l] = pcm + (l < count ? l : count - 1) * plan.spec.hop_samples;
    if (plan.pairs > 0) {
      load_pairs(plan, frames, values);
      transform(plan, values);
      join(plan, values, power);
    } else {
      sum_up(plan, frames, values, power);
    }
    filter(plan, power, sums);
    const double floor = static_cast<double>(plan.spec.floor), mean = static_cast<double>(plan.spec.mean);
    for (std::size_t i = 0; i < count * plan.spec.n_mels; ++i)
      out[i] = static_cast<float>((logarithm(sums[i] < floor ? floor : sums[i]) - mean) * plan.scale);
  }

 private:
  using Vector = typename LogMelVector<kLanes>::Type;

  struct Complex {
    Vector re, im;
  };

  // Sample n of every frame.
  MMEDGE_INLINE static Vector across(const float* const* frames, std::size_t n) {
    typename LogMelVector<kLanes>::Floats samples;
    for (std::size_t l = 0; l < kLanes; ++l) samples[l] = frames[l][n];
    return __builtin_convertvector(samples, Vector);
  }

  MMEDGE_INLINE static void load_pairs(const LogMelPlan& plan, const float* const* frames, Vector* values) {
    const std::size_t samples = plan.spec.window_samples;
    const double* const window = plan.window.data();
    for (std::size_t n = 0; n < samples; n += 2) {
      Vector* const pair = values + 2 * plan.places[n / 2];
      pair[0] = across(frames, n) * window[n];
      pair[1] = n + 1 < samples ? across(frames, n + 1) * window[n + 1] : Vector{};
    }
    for (std::size_t pair = (samples + 1) / 2; pair < plan.pairs; ++pair)
      values[2 * plan.places[pair]] = values[2 * plan.places[pair] + 1] = Vector{};
  }

  MMEDGE_INLINE static void transform(const LogMelPlan& plan, Vector* values) {
    for (const LogMelPlan::Stage& stage : plan.stages) {
      const Turn* const factors = stage.factors.data();
      const std::size_t all = plan.pairs, size = stage.size;
      Complex* const data = reinterpret_cast<Complex*>(values);
      if (stage.radix == 4)
        size == 1 ? join4<true>(data, all, size, factors) : join4<false>(data, all, size, factors);
      else if (stage.radix == 2)
        join2(data, all, size, factors);
      else if (stage.radix == 3)
        join3(data, all, size, factors);
      else
        join5(data, all, size, factors);
    }
  }

  // By the conjugate of the factor.
  MMEDGE_INLINE static Complex turned(const Complex& value, const Turn& by) {
    return {value.re * by.cosine + value.im * by.sine, value.im * by.cosine - value.re * by.sine};
  }

  template <bool kFirst>
  MMEDGE_INLINE static void join4(Complex* data, std::size_t all, std::size_t size, const Turn* factors) {
    for (std::size_t block = 0; block < all; block += 4 * size) {
      const Turn* w = factors;
      for (std::size_t k = block; k < block + size; ++k, w += kFirst ? 0 : 3) {
        Complex &a = data[k], &b = data[k + size], &c = data[k + 2 * size], &d = data[k + 3 * size];
        const Complex tb = kFirst ? b : turned(b, w[0]), tc = kFirst ? c : turned(c, w[1]),
                      td = kFirst ? d : turned(d, w[2]);
        const Complex even{a.re + tc.re, a.im + tc.im}, odd{a.re - tc.re, a.im - tc.im};
        const Complex sum{tb.re + td.re, tb.im + td.im}, difference{tb.re - td.re, tb.im - td.im};
        a = {even.re + sum.re, even.im + sum.im};
        b = {odd.re + difference.im, odd.im - difference.re};
        c = {even.re - sum.re, even.im - sum.im};
        d = {odd.re - difference.im, odd.im + difference.re};
      }
    }
  }

  MMEDGE_INLINE static void join2(Complex* data, std::size_t all, std::size_t size, const Turn* factors) {
    for (std::size_t block = 0; block < all; block += 2 * size)
      for (std::size_t k = 0; k < size; ++k) {
        Complex &a = data[block + k], &b = data[block + k + size];
        const Complex t = size == 1 ? b : turned(b, factors[k]);
        b = {a.re - t.re, a.im - t.im};
        a = {a.re + t.re, a.im + t.im};
      }
  }

  MMEDGE_INLINE static void join3(Complex* data, std::size_t all, std::size_t size, const Turn* factors) {
    constexpr double kSine = 0.86602540378443864676;  // of a third of a turn
    for (std::size_t block = 0; block < all; block += 3 * size) {
      for (std::size_t k = 0; k < size; ++k) {
        Complex &a = data[block + k], &b = data[block + k + size], &c = data[block + k + 2 * size];
        const Complex tb = size == 1 ? b : turned(b, factors[2 * k]),
                      tc = size == 1 ? c : turned(c, factors[2 * k + 1]);
        const Complex sum{tb.re + tc.re, tb.im + tc.im};
        const Complex difference{(tb.re - tc.re) * kSine, (tb.im - tc.im) * kSine};
        const Complex middle{a.re - 0.5 * sum.re, a.im - 0.5 * sum.im};
        a = {a.re + sum.re, a.im + sum.im};
        b = {middle.re + difference.im, middle.im - difference.re};
        c = {middle.re - difference.im, middle.im + difference.re};
      }
    }
  }

  MMEDGE_INLINE static void join5(Complex* data, std::size_t all, std::size_t size, const Turn* factors) {
    // Of a fifth of a turn, and of two.
    constexpr double kCosine1 = 0.30901699437494742410, kSine1 = 0.95105651629515357212,
                     kCosine2 = -0.80901699437494742410, kSine2 = 0.58778525229247312917;
    for (std::size_t block = 0; block < all; block += 5 * size) {
      for (std::size_t k = 0; k < size; ++k) {
        Complex *at = data + block + k, &a = at[0], &b = at[size], &c = at[2 * size], &d = at[3 * size],
                &e = at[4 * size];
        const Turn* const w = factors + 4 * k;
        const Complex tb = size == 1 ? b : turned(b, w[0]), tc = size == 1 ? c : turned(c, w[1]),
                      td = size == 1 ? d : turned(d, w[2]), te = size == 1 ? e : turned(e, w[3]);
        const Complex s1{tb.re + te.re, tb.im + te.im}, s2{tc.re + td.re, tc.im + td.im};
        const Complex d1{tb.re - te.re, tb.im - te.im}, d2{tc.re - td.re, tc.im - td.im};
        const Complex m1{a.re + kCosine1 * s1.re + kCosine2 * s2.re,
                         a.im + kCosine1 * s1.im + kCosine2 * s2.im};
        const Complex m2{a.re + kCosine2 * s1.re + kCosine1 * s2.re,
                         a.im + kCosine2 * s1.im + kCosine1 * s2.im};
        const Complex t1{kSine1 * d1.re + kSine2 * d2.re, kSine1 * d1.im + kSine2 * d2.im};
        const Complex t2{kSine2 * d1.re - kSine1 * d2.re, kSine2 * d1.im - kSine1 * d2.im};
        a = {a.re + s1.re + s2.re, a.im + s1.im + s2.im};
        b = {m1.re + t1.im, m1.im - t1.re};
        c = {m2.re + t2.im, m2.im - t2.re};
        d = {m2.re - t2.im, m2.im + t2.re};
        e = {m1.re - t1.im, m1.im + t1.re};
      }
    }
  }

  // The spectrum of the even and of the odd samples, taken apart by symmetry, then joined to powers.
  MMEDGE_INLINE static void join(const LogMelPlan& plan, const Vector* values, Vector* power) {
    const Complex* const data = reinterpret_cast<const Complex*>(values);
    const std::size_t half = plan.pairs;
    const Vector first = data[0].re + data[0].im, last = data[0].re - data[0].im;
    power[0] = 4.0 * (first * first);
    power[half] = 4.0 * (last * last);
    for (std::size_t k = 1; 2 * k <= half; ++k) {
      const Complex a = data[k], b = data[half - k];
      const Complex even{a.re + b.re, a.im - b.im};
      const Complex odd = turned({a.im + b.im, b.re - a.re}, plan.turns[k]);
      const Complex low{even.re + odd.re, even.im + odd.im}, high{even.re - odd.re, even.im - odd.im};
      power[k] = low.re * low.re + low.im * low.im;
      power[half - k] = high.re * high.re + high.im * high.im;
    }
  }

  MMEDGE_INLINE static void sum_up(const LogMelPlan& plan, const float* const* frames, Vector* values,
                                   Vector* power) {
    const std::size_t samples = plan.spec.window_samples, n_fft = plan.spec.n_fft;
    for (std::size_t n = 0; n < samples; ++n) values[n] = across(frames, n) * plan.window[n];
    for (std::size_t k = 0; k <= n_fft / 2; ++k) {
      Complex sum{};
      std::size_t phase = 0;
      for (std::size_t n = 0; n < samples; ++n) {
        sum.re += values[n] * plan.turns[phase].cosine;
        sum.im += values[n] * plan.turns[phase].sine;
        phase += k;
        if (phase >= n_fft) phase -= n_fft;
      }
      power[k] = sum.re * sum.re + sum.im * sum.im;
    }
  }

  // Writes [kLanes, n_mels].
  MMEDGE_INLINE static void filter(const LogMelPlan& plan, const Vector* power, double* sums) {
    const std::size_t n_mels = plan.spec.n_mels;
    for (std::size_t m = 0; m < n_mels; ++m) {
      const LogMelPlan::Filter& filter = plan.filters[m];
      const double* const weights = plan.weights.data() + filter.weights;
      Vector sum{};
      for (std::size_t bin = 0; bin < filter.bins; ++bin) sum += weights[bin] * power[filter.first_bin + bin];
      for (std::size_t l = 0; l < kLanes; ++l) sums[l * n_mels + m] = sum[l];
    }
  }
};

}  // namespace mmedge

#undef MMEDGE_INLINE
