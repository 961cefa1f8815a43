// Scores of any float type at the border.
#pragma once

#include <cstddef>
#include <string>

#include "bindings/arrays.hpp"

namespace mmedge::bindings {

// Calls `read` with a pointer to `n` float32 or float64 values, else throws std::invalid_argument
// (ValueError).
template <typename Read>
auto with_scores(const Input& array, std::size_t n, Read read) {
  if (array.size() != n)
    throw std::invalid_argument("scores must have " + std::to_string(n) + " values, got " +
                                std::to_string(array.size()));
  if (array.dtype() == nb::dtype<double>()) {
    check<double>(array, "scores");
    return read(static_cast<const double*>(array.data()));
  }
  check<float>(array, "scores");
  return read(static_cast<const float*>(array.data()));
}

// The float64 scores [n] that are changed in place.
inline double* own_scores(const Output& array, std::size_t n) {
  if (array.dtype() != nb::dtype<double>() || array.size() != n)
    throw std::invalid_argument("scores must be float64 with " + std::to_string(n) + " values");
  check<double>(array, "scores");
  return static_cast<double*>(array.data());
}

}  // namespace mmedge::bindings
