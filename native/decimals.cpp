#include "decimals.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr double kPowers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
constexpr double kWhole = 4503599627370496.0;  // from 2**52 on a double has no fraction

}  // namespace

double round_decimals(double value, int digits) {
  if (digits < 0 || digits > 15) throw std::invalid_argument("digits must be 0 to 15");
  if (!std::isfinite(value)) return value;
  const double power = kPowers[digits], size = std::fabs(value), scaled = size * power;
  if (scaled < kWhole) {
    // `scaled` and `rest` together are the exact product, and so is the fraction that decides.
    const double rest = std::fma(size, power, -scaled), floor = std::floor(scaled), fraction = scaled - floor;
    const auto odd = [floor] { return std::fmod(floor, 2.0) != 0.0; };
    const bool up = fraction > 0.5 || (fraction == 0.5 && (rest > 0.0 || (rest == 0.0 && odd())));
    // Both are whole and exact, so the one division rounds to the double nearest to the decimal.
    return std::copysign((up ? floor + 1.0 : floor) / power, value);
  }
  if (size >= kWhole) return value;
  char text[40];  // at most 16 digits before the point and 15 behind it
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::strtod(text, nullptr);
}

}  // namespace mmedge
