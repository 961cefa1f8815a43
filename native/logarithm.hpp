// The natural logarithm with the same bits on every machine, in operations that a compiler can put into
// vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace mmedge {

// Of a positive normal number within 2e-12 of the result; infinity and NaN stay what they are.
__attribute__((always_inline)) inline double logarithm(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  // x = m 2^e with m from sqrt(1/2) to sqrt(2); e is biased by 1023.
  const std::uint64_t exponent = (bits + 0x00095f619980c433u) >> 52;
  const std::uint64_t mantissa = bits - (exponent << 52) + (std::uint64_t{1023} << 52);
  const std::uint64_t shifted = exponent + 0x4330000000000000u;  // 2^52 + exponent as a double
  double m, e;
  std::memcpy(&m, &mantissa, sizeof m);
  std::memcpy(&e, &shifted, sizeof e);
  e -= 4503599627370496.0 + 1023.0;
  // ln m = 2 artanh s, |s| < 0.172
  const double s = (m - 1.0) / (m + 1.0), z = s * s, twice = s + s;
  const double series =
      z * (1.0 / 3 + z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11 + z * (1.0 / 13))))));
  const double result = e * 0.69314718055994530942 + (twice + twice * series);
  return x < std::numeric_limits<double>::infinity() ? result : x;
}

}  // namespace mmedge
