// The smoothing of one task: of its scores, of the choice of a label, and of the label.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "interpret/debounce.hpp"
#include "interpret/ema.hpp"
#include "interpret/hysteresis.hpp"

namespace mmedge {

struct SmoothingSpec {
  std::optional<double> tau_ms;   // of the scores; none: they are not averaged
  double enter, leave;            // equal: a threshold, which remembers nothing
  std::optional<double> hold_ms;  // of the label; none: it is told at once
};

class Smoother {
 public:
  Smoother(const SmoothingSpec& spec, std::size_t size) : size_(size), hysteresis_(spec.enter, spec.leave) {
    if (spec.tau_ms) ema_.emplace(*spec.tau_ms, size);
    if (spec.hold_ms) debounce_.emplace(*spec.hold_ms);
  }

  std::size_t size() const { return size_; }
  // Smooths the scores [size] of `t_ns` in place and returns the index of the label they choose, -1 for none.
  int choose(double* scores, std::int64_t t_ns) {
    if (ema_) ema_->smooth(scores, t_ns);
    return hysteresis_.choose(scores, size_);
  }
  // Returns the label to tell at `t_ns`, after the one that was chosen.
  int tell(int label, std::int64_t t_ns) { return debounce_ ? debounce_->tell(label, t_ns) : label; }

  void reset() {
    if (ema_) ema_->reset();
    hysteresis_.reset();
    if (debounce_) debounce_->reset();
  }

 private:
  std::size_t size_;
  std::optional<Ema> ema_;
  Hysteresis hysteresis_;
  std::optional<Debounce> debounce_;
};

}  // namespace mmedge
