#include "clock/slope.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "clock/percentile.hpp"

namespace mmedge {
namespace {

constexpr std::size_t kMost = 64;
constexpr double kMaxSlope = 500e-6;                        // s per s: beyond any crystal
constexpr double kNoiseNs = 200'000.0, kNoisePoints = 4.0;  // of a point; as much as so many points say of it

using Values = std::array<double, kMost>;

double mean(const Values& values, std::size_t n) {
  return std::accumulate(values.begin(), values.begin() + n, 0.0) / static_cast<double>(n);
}

double dot(const Values& a, const Values& b, std::size_t n) {
  return std::inner_product(a.begin(), a.begin() + n, b.begin(), 0.0);
}

// The slope of (x, rest), or `before` if the points have no width: a single one, or a stream that stands
// still.
double regress(const Values& x, const Values& rest, std::size_t n, double prior_sd, double before) {
  const double x_mean = mean(x, n), rest_mean = mean(rest, n);
  Values dx{}, dy{}, off{};
  for (std::size_t i = 0; i < n; ++i) {
    dx[i] = x[i] - x_mean;
    dy[i] = rest[i] - rest_mean;
  }
  const double spread = dot(dx, dx, n), common = dot(dx, dy, n);
  if (spread == 0.0) return before;
  for (std::size_t i = 0; i < n; ++i) off[i] = dy[i] - dx[i] * (common / spread);
  const double noise =
      (dot(off, off, n) + kNoisePoints * (kNoiseNs * kNoiseNs)) / (static_cast<double>(n) + kNoisePoints);
  return common / (spread + noise / (prior_sd * prior_sd));
}

}  // namespace

double lower_slope(const double* x, const double* y, std::size_t n, const SlopePrior& prior) {
  n = std::min(n, kMost);
  Values kept_x{}, rest{}, above{};
  for (std::size_t i = 0; i < n; ++i) {
    kept_x[i] = x[i];
    rest[i] = y[i] - prior.slope * x[i];
  }
  double slope = regress(kept_x, rest, n, prior.sd, 0.0);
  for (std::size_t i = 0; i < n; ++i) above[i] = rest[i] - slope * kept_x[i];
  Values sorted = above;
  const double middle = median(sorted.data(), n);
  std::size_t lower = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (above[i] > middle) continue;
    kept_x[lower] = kept_x[i];
    rest[lower++] = rest[i];
  }
  slope = regress(kept_x, rest, lower, prior.sd, slope);
  return std::clamp(prior.slope + slope, -kMaxSlope, kMaxSlope);
}

}  // namespace mmedge
