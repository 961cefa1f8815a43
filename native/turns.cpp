#include "turns.hpp"

#include <algorithm>

namespace mmedge {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;

// Taylor's series, exact to the last bits up to an eighth of a turn.
double sine(double x) {
  const double z = x * x;
  double sum = 0.0;
  for (int n = 19; n >= 3; n -= 2) sum = (-1.0 - sum) * z / static_cast<double>(n * (n - 1));
  return x + x * sum;
}

double cosine(double x) {
  const double z = x * x;
  double sum = 0.0;
  for (int n = 20; n >= 2; n -= 2) sum = (-1.0 - sum) * z / static_cast<double>(n * (n - 1));
  return 1.0 + sum;
}

}  // namespace

// Whole numbers bring the angle to an eighth of a turn, so that nothing is lost before the series.
Turn turn(std::size_t k, std::size_t n) {
  k %= n;
  if (2 * k > n) {
    const Turn mirrored = turn(n - k, n);
    return {mirrored.cosine, -mirrored.sine};
  }
  if (4 * k > n) {  // half a turn less an angle of at most a quarter, of 2 n parts: (n - 2 k) / 2 n
    const Turn mirrored = turn(n - 2 * k, 2 * n);
    return {-mirrored.cosine, mirrored.sine};
  }
  if (8 * k > n) {  // a quarter less (n - 4 k) / 4 n
    const Turn mirrored = turn(n - 4 * k, 4 * n);
    return {mirrored.sine, mirrored.cosine};
  }
  const double x = kTau * static_cast<double>(k) / static_cast<double>(n);
  return {cosine(x), sine(x)};
}

}  // namespace mmedge
