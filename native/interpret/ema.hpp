// Exponential moving average over capture time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mmedge {

// An old score weighs exp(-dt / tau), whatever came between.
class Ema {
 public:
  Ema(double tau_ms, std::size_t size) : tau_ns_(tau_ms * 1e6), value_(size) {}

  // Smooths the scores [size] of `t_ns` in place.
  void smooth(double* scores, std::int64_t t_ns) {
    if (t_ns_) {
      const double keep = std::exp(-static_cast<double>(std::max<std::int64_t>(t_ns - *t_ns_, 0)) / tau_ns_);
      for (std::size_t i = 0; i < value_.size(); ++i) {
        const double kept = value_[i] * keep;  // rounded twice, as arrays are
        scores[i] = scores[i] * (1.0 - keep) + kept;
      }
    }
    std::copy(scores, scores + value_.size(), value_.begin());
    t_ns_ = t_ns;
  }

  void reset() { t_ns_.reset(); }

 private:
  double tau_ns_;
  std::vector<double> value_;
  std::optional<std::int64_t> t_ns_;
};

}  // namespace mmedge
