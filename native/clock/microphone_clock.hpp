// Which of PortAudio's time stamps to trust, at the start and while the microphone runs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "clock/stream_clock.hpp"

namespace mmedge {

// What the callback saw of one block. PortAudio's times may be of any clock, or nonsense.
struct Stamp {
  std::int64_t samples;     // of the device, counted up to the end of the block
  std::int64_t entry_ns;    // CLOCK_MONOTONIC at the entry of the callback
  std::int64_t adc_ns;      // PortAudio's time of the block's last sample
  std::int64_t current_ns;  // PortAudio's time of the callback
};

// The converter's time, PortAudio's time of the callback, the entry of our callback: the best first.
enum class Quality : std::uint8_t { kA, kB, kC };
constexpr std::size_t kQualities = 3;

// Places a microphone's count of samples on CLOCK_MONOTONIC by the best time there is.
//
// For two seconds C is used and every class is probed. Then the best one is used and watched: when its times
// stop, run back or are not near their arrival any more, the next class takes over. All classes are observed
// from the start, and how much later the worse ones are is learnt in the probe, so that the time goes on
// without a jump.
//
// Times of another clock than CLOCK_MONOTONIC are never used: a step of the wall clock would move them. C
// does not subtract the latency PortAudio announces: a block is handed over when its last sample is there;
// behind PulseAudio the announced 20 ms are not in the data at all (measured).
class MicrophoneClock {
 public:
  enum class Change : std::uint8_t { kNone, kChosen, kLeft };
  struct Outcome {
    std::int64_t gap_ns;  // what is missing before the block
    bool broken;          // a new epoch must begin: what came before the block was not where it seemed to be
    Change change;        // of the class in use
  };

  // `floor_ns`: of each class the smallest uncertainty to claim. Throws std::invalid_argument unless the rate
  // is at least 1.
  MicrophoneClock(std::int64_t rate_hz, const std::array<std::int64_t, kQualities>& floor_ns);

  // Learns from the next block; `overflow`: the device says that samples are missing before it, not how many.
  Outcome observe(const Stamp& stamp, bool overflow);
  // The microphone's own time of a count of samples.
  std::int64_t stream_ns(std::int64_t samples) const;
  // The time of `stream_ns` on CLOCK_MONOTONIC.
  std::int64_t to_monotonic(std::int64_t stream_ns) { return clock_of(quality_).to_monotonic(stream_ns); }

  // The class in use, and its clock.
  Quality quality() const { return quality_; }
  const StreamClock& clock() const { return of(clocks_, quality_); }

 private:
  template <typename T>
  using Each = std::array<T, kQualities>;
  template <typename T>
  static T& of(Each<T>& each, Quality quality) {
    return each[static_cast<std::size_t>(quality)];
  }
  template <typename T>
  static const T& of(const Each<T>& each, Quality quality) {
    return each[static_cast<std::size_t>(quality)];
  }
  StreamClock& clock_of(Quality quality) { return of(clocks_, quality); }

  std::int64_t observe_class(Quality quality, const Stamp& stamp, std::int64_t stream_ns, bool overflow);
  bool sane(Quality quality) const;
  void choose();
  std::int64_t leave(std::int64_t stream_ns);
  Quality best() const;

  std::int64_t rate_hz_;
  Each<StreamClock> clocks_;
  Each<bool> trusted_{true, true, true};
  Each<std::int64_t> lag_ns_{}, before_ns_{};
  Each<int> faults_{};
  Quality quality_ = Quality::kC;
  bool probing_ = true;
  std::vector<Stamp> probe_;
};

}  // namespace mmedge
