// Log-mel features of a window that slides over sound: what two windows share is computed once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "log_mel.hpp"
#include "sample_ring.hpp"

namespace mmedge {

// Frames begin `hop_samples` apart from the window's own begin, wherever that lies. So windows share frames
// if they begin a whole number of hops apart, as every second or third one does beside a camera; of the
// newest of each such family the frames are kept. They have the same bits as those of a whole window.
//
// The sound of an index must never change. That the caller still means the same sound is checked on the last
// frame that is kept. One thread at a time.
class SlidingLogMel {
 public:
  // Windows have `samples` samples. Throws std::invalid_argument if that is less than one frame.
  SlidingLogMel(const LogMelSpec& spec, const float* filters, std::size_t samples);

  std::size_t frames() const { return frames_; }
  std::size_t n_mels() const { return log_mel_.n_mels(); }
  std::size_t samples() const { return samples_; }
  // How many of its last samples the window that ends before index `end` is computed from.
  std::size_t wanted(std::int64_t end) const;
  // Writes [frames, n_mels] from these last samples and returns true; false if what was kept is of other
  // sound: it is forgotten, so that the whole window is wanted. Allocates nothing but where the first windows
  // are kept.
  bool compute(const float* tail, std::int64_t end, float* out);
  // Writes [frames, n_mels] of the window that ends before index `end` of the ring, and reads as little of it
  // as is wanted.
  void read(const SampleRing& ring, std::int64_t end, float* out);
  void forget();

 private:
  struct Family {
    std::int64_t phase = -1,
                 next = 0;     // first sample of its frames, modulo the hop; the frame after the newest
    std::uint64_t used = 0;    // when
    std::vector<float> rows;   // [frames, n_mels], frame k in row k % frames
    std::vector<float> guard;  // the sound of the newest frame
  };
  struct Place {
    std::int64_t phase, first;  // first frame of the window
  };
  Place place(std::int64_t end) const;
  const Family* find(std::int64_t phase) const;
  std::size_t known(std::int64_t end) const;
  void copy(const Family& family, std::int64_t first, std::size_t count, float* out) const;
  void keep(Family& family, std::int64_t first, std::size_t count, const float* rows) const;

  LogMel log_mel_;
  std::int64_t hop_;
  std::size_t frame_samples_, samples_, frames_;
  std::uint64_t clock_ = 0;
  std::vector<Family> families_;
  std::vector<float> pcm_;  // what was read
};

}  // namespace mmedge
