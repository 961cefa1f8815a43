// A number by which a picture is known again.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmedge {

// Returns 64 bits of all of these bytes, the same on every CPU: equal for equal bytes, and for others as
// likely as two random numbers are. No secret: who wants two pictures of one number can make them.
std::uint64_t fingerprint(const std::uint8_t* data, std::size_t n);

}  // namespace mmedge
