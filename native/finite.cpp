#include "finite.hpp"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace mmedge {
namespace {

// A number is NaN or infinite when all bits of its exponent are set.
template <typename Bits, Bits kExponent>
bool all_finite(const void* values, std::size_t n) {
  const auto* bytes = static_cast<const unsigned char*>(values);
  Bits found = 0;
  for (std::size_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
    found = static_cast<Bits>(found | static_cast<Bits>((bits & kExponent) == kExponent));
  }
  return found == 0;
}

}  // namespace

bool all_finite(const void* values, std::size_t n, std::size_t bytes) {
  if (bytes == 2) return all_finite<std::uint16_t, 0x7c00>(values, n);
  if (bytes == 4) return all_finite<std::uint32_t, 0x7f800000>(values, n);
  if (bytes == 8) return all_finite<std::uint64_t, 0x7ff0000000000000>(values, n);
  throw std::invalid_argument("numbers must have 2, 4 or 8 bytes");
}

}  // namespace mmedge
