#include "interpret/scores.hpp"

#include <algorithm>
#include <cmath>

namespace mmedge {
namespace {

// Pairwise in blocks of 128, and in a block eight sums side by side: as numpy adds.
double sum(const double* values, std::size_t n) {
  if (n < 8) {
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) total += values[i];
    return total;
  }
  if (n > 128) {
    const std::size_t half = n / 2 - (n / 2) % 8;
    return sum(values, half) + sum(values + half, n - half);
  }
  double part[8];
  std::copy(values, values + 8, part);
  std::size_t i = 8;
  for (; i + 8 <= n; i += 8)
    for (std::size_t k = 0; k < 8; ++k) part[k] += values[i + k];
  double total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  for (; i < n; ++i) total += values[i];
  return total;
}

}  // namespace

std::size_t best(const double* scores, std::size_t n) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (std::isnan(scores[i])) return i;
    if (scores[i] > scores[found]) found = i;
  }
  return found;
}

double smallest(const double* scores, std::size_t n) {
  double found = scores[0];
  for (std::size_t i = 0; i < n; ++i) {
    if (std::isnan(scores[i])) return scores[i];
    found = std::min(found, scores[i]);
  }
  return found;
}

void softmax(double* scores, std::size_t n, double temperature) {
  const double largest = scores[best(scores, n)];
  // The largest is taken off first: a small temperature must not overflow.
  for (std::size_t i = 0; i < n; ++i) scores[i] = std::exp((scores[i] - largest) / temperature);
  const double total = sum(scores, n);
  for (std::size_t i = 0; i < n; ++i) scores[i] /= total;
}

void clip(double* scores, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) scores[i] = std::clamp(scores[i], 0.0, 1.0);
}

}  // namespace mmedge
