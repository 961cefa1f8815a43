// The slope of a lower envelope.
#pragma once

#include <cstddef>

namespace mmedge {

// What was known of a slope before its points, in s per s.
struct SlopePrior {
  double slope;
  double sd;
};

// Returns the slope (y per x) of the lower half of `n` >= 1 points, drawn to the prior while they are few,
// within what any crystal can have. `x` and `y` in ns; `n` is at most 64.
double lower_slope(const double* x, const double* y, std::size_t n, const SlopePrior& prior);

}  // namespace mmedge
