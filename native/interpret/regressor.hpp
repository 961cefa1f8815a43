// One number: clamped, averaged over time, told to six digits.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "interpret/ema.hpp"

namespace mmedge {

class Regressor {
 public:
  Regressor(std::optional<double> tau_ms, std::optional<std::pair<double, double>> clamp) : clamp_(clamp) {
    if (tau_ms) ema_.emplace(*tau_ms, 1);
  }

  // Takes up the number; what it took up before, and did not tell, is forgotten.
  void read(double value) { value_ = clamped(value); }
  // What was read, averaged; once, for the average moves on.
  double tell(std::int64_t t_ns) {
    if (ema_) ema_->smooth(&value_, t_ns);
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value_);
    return clamped(std::strtod(text, nullptr));
  }
  void reset() {
    if (ema_) ema_->reset();
  }

 private:
  double clamped(double value) const {
    if (!clamp_) return value;
    if (value < clamp_->first) value = clamp_->first;
    return value > clamp_->second ? clamp_->second : value;
  }

  std::optional<std::pair<double, double>> clamp_;
  std::optional<Ema> ema_;
  double value_ = 0.0;
};

}  // namespace mmedge
