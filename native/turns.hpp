// Sine and cosine of parts of a turn, with the same bits on every machine.
#pragma once

#include <cstddef>

namespace mmedge {

struct Turn {
  double cosine, sine;
};

// Of 2 pi k / n, within an ulp or two. The C library's own differ from one library and processor to the next.
Turn turn(std::size_t k, std::size_t n);

}  // namespace mmedge
