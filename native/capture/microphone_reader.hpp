// A microphone's blocks on their way from PortAudio's thread to another process, without Python.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "callback_blocks.hpp"
#include "capture/mixer.hpp"
#include "capture/sound_writer.hpp"
#include "clock/microphone_clock.hpp"

namespace mmedge {

// Takes blocks as they come, places them on CLOCK_MONOTONIC, counts what is missing and writes each input's
// mono at the rate of the device. One thread calls `run`; others may ask for the state meanwhile.
class MicrophoneReader {
 public:
  // What a block says that the user should hear of; else only the state knows of it.
  struct Told {
    MicrophoneClock::Outcome clock;
    Quality before, now;                                     // classes of time stamps
    std::vector<std::pair<std::size_t, Mixer::Weak>> mixes;  // by stream
  };
  enum class Turn { kClosed, kSilent, kTold };

  struct Stream {
    std::int64_t seq;         // of the next block
    std::int64_t capture_ns;  // of the newest one, 0 before the first of an epoch
  };
  struct Progress {
    std::int64_t epoch;
    std::int64_t blocks = 0, lost = 0, jumps = 0;  // blocks and lost samples of all streams together
    std::int64_t arrive_ns = 0;                    // of the newest block, 0 before the first
    std::vector<Stream> streams;
  };
  struct State {
    Progress progress;
    Quality quality;
    StreamClock clock;
  };

  // Reads `blocks` into `writer`, whose streams take `channels` each, beginning with this epoch; it owns
  // neither. Throws std::invalid_argument where these do not fit.
  MicrophoneReader(CallbackBlocks& blocks, SoundWriter& writer, std::int64_t rate_hz,
                   const std::array<std::int64_t, kQualities>& floor_ns,
                   const std::vector<std::vector<std::size_t>>& channels, std::int64_t epoch);

  // Reads until the blocks are closed, nothing has come for `silence_ms`, or a block said something.
  Turn run(int silence_ms, Told& told);
  State state() const;

 private:
  // Reads one block; whether it said something.
  bool read(const CallbackBlocks::Block& block, Told& told);

  CallbackBlocks& blocks_;
  SoundWriter& writer_;
  std::int64_t rate_hz_;
  std::vector<Mixer> mixers_;
  std::vector<float> rows_, mono_;
  std::int64_t counted_ = -1;  // frames until the end of the block before, -1 before the first
  std::int64_t missing_ = 0;   // samples before the next block
  mutable std::mutex mutex_;   // guards what follows
  MicrophoneClock clock_;
  Progress progress_;
};

}  // namespace mmedge
