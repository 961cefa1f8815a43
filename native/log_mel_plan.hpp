// What the log-mel of a frame needs to know, worked out once.
#pragma once

#include <cstddef>
#include <vector>

#include "turns.hpp"

namespace mmedge {

struct LogMelSpec {
  std::size_t n_fft, window_samples, hop_samples, n_mels;
  float floor, mean, std;
};

struct LogMelPlan {
  // Throws std::invalid_argument for what cannot work. `filters`: row-major [n_fft / 2 + 1, n_mels].
  LogMelPlan(const LogMelSpec& spec, const float* filters);

  // Joins `radix` transforms of `size` values each; the factors are those of one value after the other, of
  // input 1 to radix - 1 each, and the first stage needs none.
  struct Stage {
    std::size_t radix, size;
    std::vector<Turn> factors;
  };
  struct Filter {
    std::size_t first_bin, bins, weights;
  };

  LogMelSpec spec;
  double scale;
  // An even n_fft whose half is 2^a 3^b 5^c: pairs of samples are the complex numbers of a transform of half
  // the length, the first stage first. Else there are no pairs, and each bin is a sum over all samples.
  std::size_t pairs = 0;
  std::vector<Stage> stages;
  std::vector<std::size_t> places;  // of each pair, in front of the first stage
  std::vector<Turn> turns;          // of all bins, or of n_fft samples where there are no pairs
  std::vector<double> window;  // periodic Hann; halved where there are pairs, which pays for joining them
  std::vector<Filter> filters;
  std::vector<double> weights;

 private:
  void plan_stages();
};

}  // namespace mmedge
