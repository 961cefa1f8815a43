// What turns luma and chroma into red, green and blue, in whole numbers.
#pragma once

#include <cstdint>

namespace mmedge {

// 13 fractional bits: every factor fits 16 bits, so products are cheap vector operations.
struct Factors {
  std::int16_t black, luma, red_v, green_u, green_v, blue_u;
};

}  // namespace mmedge
