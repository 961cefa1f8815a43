// Whole nanoseconds: sums and quotients that stay defined whatever a broken source says.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace mmedge {

constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMinInt64 = std::numeric_limits<std::int64_t>::min();

// The sum, or the limit it would have passed.
constexpr std::int64_t add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? kMaxInt64 : kMinInt64;
}

// The difference, or the limit it would have passed.
constexpr std::int64_t subtract(std::int64_t a, std::int64_t b) {
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return b < 0 ? kMaxInt64 : kMinInt64;
}

// The quotient, rounded down; `divisor` is positive.
constexpr std::int64_t floor_divide(std::int64_t value, std::int64_t divisor) {
  return value / divisor - (value % divisor < 0);
}

// value * times / divisor, rounded to the nearest or down; the limit where that does not fit. `divisor` is
// positive.
constexpr std::int64_t scale(std::int64_t value, std::int64_t times, std::int64_t divisor,
                             bool nearest = false) {
  __extension__ using Wide = __int128;
  const Wide product = static_cast<Wide>(value) * times + (nearest ? divisor / 2 : 0);
  const Wide quotient = product / divisor - (product % divisor < 0);
  if (quotient > kMaxInt64) return kMaxInt64;
  return quotient < kMinInt64 ? kMinInt64 : static_cast<std::int64_t>(quotient);
}

// The nearest integer (the even one of two that are as near), or the limit it would have passed.
inline std::int64_t round_to_int64(double value) {
  if (value >= 0x1p63) return kMaxInt64;
  if (value < -0x1p63) return kMinInt64;
  return std::llrint(value);
}

}  // namespace mmedge
