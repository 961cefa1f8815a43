// Percentiles of a few values, as numpy's `percentile` and `median` tell them.
#pragma once

#include <algorithm>
#include <cstddef>

namespace mmedge {

// The value that `share` (0..1) of the `n` >= 1 values lie below, between the two that are nearest to it.
// Reorders them.
inline double percentile(double* values, std::size_t n, double share) {
  const double place = share * static_cast<double>(n - 1);
  const auto below = static_cast<std::size_t>(place);
  std::nth_element(values, values + below, values + n);
  if (below + 1 >= n) return values[below];
  const double low = values[below], high = *std::min_element(values + below + 1, values + n);
  const double part = place - static_cast<double>(below);
  return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1.0 - part);
}

// The middle one of `n` >= 1 values, or the mean of the two in the middle. Reorders them.
inline double median(double* values, std::size_t n) {
  double* const high = values + n / 2;
  std::nth_element(values, high, values + n);
  return n % 2 == 1 ? *high : (*std::max_element(values, high) + *high) / 2.0;
}

}  // namespace mmedge
