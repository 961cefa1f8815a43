// The label that scores choose, held until it is clearly lost.
#pragma once

#include <cstddef>

#include "interpret/scores.hpp"

namespace mmedge {

// A label is taken up at a score of `enter` and kept until its score is below `leave` or another one reaches
// `enter`.
class Hysteresis {
 public:
  Hysteresis(double enter, double leave) : enter_(enter), leave_(leave) {}

  // Returns the index of the label, -1 to abstain.
  int choose(const double* scores, std::size_t n) {
    const std::size_t found = best(scores, n);
    if (scores[found] >= enter_)
      held_ = static_cast<int>(found);
    else if (held_ >= 0 && scores[held_] < leave_)
      held_ = -1;
    return held_;
  }

  void reset() { held_ = -1; }

 private:
  double enter_, leave_;
  int held_ = -1;
};

}  // namespace mmedge
