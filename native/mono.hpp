// One channel of several: their plain mean, without gains or clipping.
#pragma once

#include <cstddef>
#include <vector>

namespace mmedge {

// Channels of float32 samples, each `stride` behind the one before.
struct Channels {
  const float* rows;
  std::size_t count, samples, stride;
};

// Writes the mean of the chosen channels (one as it is), and returns the sums of squares of each channel and,
// last, of the mean. Sums are float64, channel after channel: of integers they are exact, and the same on
// every processor. Throws std::invalid_argument if none is chosen, or one that is not there.
std::vector<double> mono(const Channels& channels, const std::vector<std::size_t>& chosen, float* out);

}  // namespace mmedge
