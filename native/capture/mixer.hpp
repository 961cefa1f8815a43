// One input's mono of a source's channels, and a watch over whether that loses their sound.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace mmedge {

// Takes one channel as it is, or the mean of several: in double, channel after channel, without gains for
// loudspeakers or clipping, so that it is the same on every CPU.
class Mixer {
 public:
  // Two seconds of a mix that are not what anybody wants to hear.
  struct Weak {
    bool silent;            // while other channels are not; else it is far weaker than its channels
    std::int64_t channels;  // of which it is the mean
    double decibels;        // below the loudest of them, at most 99
    std::int64_t loudest;   // of all channels
  };

  // `channels`: those that it takes, from 0; none takes all. Throws std::invalid_argument for one below 0.
  explicit Mixer(std::vector<std::int64_t> channels);

  // Mixes `samples` samples of `count` >= 1 channels, of which `rows` holds one after the other, into `out`.
  // Returns what is wrong with the last two seconds, at their end. Throws std::invalid_argument when a chosen
  // channel is not there.
  std::optional<Weak> mix(const float* rows, std::int64_t count, std::int64_t samples, std::int64_t rate_hz,
                          float* out);

 private:
  std::optional<Weak> watch(const float* rows, std::int64_t samples, std::int64_t rate_hz, const float* out);
  std::optional<Weak> judge() const;

  std::vector<std::int64_t> channels_;
  std::int64_t beyond_ = 0;           // more channels than there must be
  std::vector<double> sums_;          // of one block, by sample
  std::vector<double> each_, block_;  // sums of squares of each channel, and those of one block
  double mixed_ = 0.0;                // of the mix
  std::int64_t samples_ = 0;          // that were watched
};

}  // namespace mmedge
