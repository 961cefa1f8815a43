// Rounding to decimals, to the same bits as Python's round().
#pragma once

namespace mmedge {

// The double nearest to `value` rounded to `digits` (0..15) decimals: what is rounded is its exact binary
// value, and a tie goes to the even digit. NaN and infinity stay as they are. Never allocates.
double round_decimals(double value, int digits);

}  // namespace mmedge
