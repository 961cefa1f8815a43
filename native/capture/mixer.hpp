// One input's mono of a source's channels, and a watch over whether that loses their sound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "mono.hpp"

namespace mmedge {

// Takes one channel or the mean of several, as `mono` does.
class Mixer {
 public:
  // Two seconds of a mix that are not what anybody wants to hear.
  struct Weak {
    bool silent;           // while other channels are not; else it is far weaker than its channels
    std::size_t channels;  // of which it is the mean
    double decibels;       // below the loudest of them, at most 99
    std::size_t loudest;   // of all channels
  };

  // `channels`: those that it takes, from 0; none takes all.
  explicit Mixer(std::vector<std::size_t> channels) : channels_(std::move(channels)) {}

  // Mixes channels into `out`. Returns what is wrong with the last two seconds, at their end. Throws
  // std::invalid_argument when a chosen channel is not there.
  std::optional<Weak> mix(const Channels& channels, std::int64_t rate_hz, float* out);

 private:
  std::optional<Weak> judge(const std::vector<std::size_t>& chosen) const;

  std::vector<std::size_t> channels_, all_;
  std::vector<double> powers_;  // sums of squares of each channel and, last, of the mix
  std::int64_t samples_ = 0;    // that were watched
};

}  // namespace mmedge
