// Is every value of an array a number?
#pragma once

#include <cstddef>

namespace mmedge {

// Tells whether none of `n` IEEE numbers of 2, 4 or 8 bytes each is NaN or infinite.
bool all_finite(const void* values, std::size_t n, std::size_t bytes);

}  // namespace mmedge
