// The synchroniser: packets in, cuts out, on capture time alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "sync/audio_stream.hpp"
#include "sync/cut.hpp"
#include "sync/image_stream.hpp"
#include "sync/payloads.hpp"
#include "sync/tally.hpp"
#include "sync/triggers.hpp"
#include "sync/value_stream.hpp"

namespace mmedge {

// Makes one set of cuts for each trigger.
//
// It reads no clock and starts no thread: `push` an event, `advance` the time, `poll` what is ready. The same
// calls give the same cuts. Design: a trigger is a capture time; audio is cut from a time-indexed ring
// exactly there, once its watermark has passed the trigger or the deadline is over (watermarks as in
// MediaPipe's timestamp bounds, bounded lateness and idleness as in Apache Flink).
//
// Inputs are numbered in the order in which they are added, all of them before the first packet. Payloads are
// the caller's: it keeps each under the slot that `push` returns until `drain` names that slot.
class Synchronizer {
 public:
  struct Rules {
    std::int64_t started_ns = 0;  // when the run began
    std::int64_t wait_ns = 0;     // how long after its delivery a trigger may wait
    std::int64_t hold_ns = 0;     // for how long a frame may be held
    std::int64_t every_ns = 0;    // the hop of audio and timer triggers
    bool timer = false;           // the time itself may have to make triggers
    bool latest = false;          // cut what is newest, wait for nothing
    bool lossless = false;        // wait for data as long as it takes (files played as fast as possible)
  };
  explicit Synchronizer(const Rules& rules);
  Synchronizer(const Synchronizer&) = delete;
  Synchronizer& operator=(const Synchronizer&) = delete;

  // Each returns the number of the new input; `trigger`: it is the one that makes the triggers.
  std::size_t add_image(StreamRules rules, bool trigger);
  std::size_t add_audio(StreamRules rules, const AudioStream::Rules& sound, bool trigger);
  std::size_t add_value(StreamRules rules, const ValueStream::Rules& values, bool trigger);

  // Each takes a packet. Those with a payload return its slot; kNoSlot: it is not kept. All throw
  // std::invalid_argument if there is no such input, or it is of another kind.
  Slot push_frame(std::size_t input, Stamp stamp, std::int64_t unchanged_ns, bool damaged);
  Slot push_value(std::size_t input, Stamp stamp, bool blank);
  void push_block(std::size_t input, Stamp stamp, const float* samples, std::size_t n, std::int64_t lost);
  // What came while the caller was busy and made room for a newer one: its times.
  void push_arrival(std::size_t input, Stamp stamp);
  // The source has nothing more to say; false: it is the end of what was replaced long ago.
  bool push_end(std::size_t input, Stamp stamp, bool with_reason);

  // Tells the time.
  void advance(std::int64_t now_ns);
  // When `poll` must be called even if nothing arrives.
  std::optional<std::int64_t> next_deadline_ns() const;
  // Makes the cuts that are ready, in order of capture time; returns how many. They are valid until the next
  // call.
  std::size_t poll();
  const Cuts& ready(std::size_t index) const { return ready_[index]; }
  // Releases what neither a trigger, pending or to come, nor the cuts polled so far can want. A trigger that
  // is behind the one before, as when a source has spoken again or a clock was wrong, still finds the frames
  // of the last `hold_ns`. A lossless run has no such bound: there the triggers' time runs forward.
  void trim();
  // Names each slot that nobody wants any more.
  template <typename Tell>
  void drain(Tell tell) {
    payloads_.drain(tell);
  }
  // Releases everything.
  void close();

  const Stream& stream(std::size_t input) const { return *seat(input).stream; }
  const AudioStream& sound(std::size_t input) const;
  // Whether nothing can be there at `t_ns` yet.
  bool starting(std::size_t input, std::int64_t t_ns) const { return stream(input).starting(t_ns, now_ns_); }
  // For how long an input has given nothing; nothing while it is alive or if it keeps no rate.
  std::optional<std::int64_t> silence_ns(std::size_t input, std::int64_t now_ns) const;
  // Whether it is live, keeps a rate, and was alive at `now_ns`.
  bool steady(std::size_t input, std::int64_t now_ns) const;
  // How far `capture_ns` is ahead of the slowest of `others`.
  std::int64_t ahead_ns(std::int64_t capture_ns, const std::vector<std::size_t>& others) const;
  // All triggers that were made: each becomes cuts, is dropped, or is pending.
  std::int64_t triggers() const { return triggers_.made(); }
  // From one trigger to the next, as measured.
  std::int64_t period_ns() const { return triggers_.step_ns(); }
  std::size_t pending() const { return triggers_.pending().size(); }
  // Whether no trigger waits and none can come: every source has ended, but for texts that only accompany.
  bool finished() const;
  std::size_t inputs() const { return seats_.size(); }
  // Triggers that became nothing, by cause.
  const Tally& drops() const { return triggers_.drops(); }
  // Other packets that were not taken, by `input * kSkip + cause`.
  const Tally& refused() const { return refused_; }

 private:
  struct Seat {
    std::unique_ptr<Stream> stream;
    ImageStream* image = nullptr;  // the same, if it is one
    AudioStream* audio = nullptr;
    ValueStream* value = nullptr;
  };

  std::size_t add(Seat seat, bool trigger);
  const Seat& seat(std::size_t input) const;
  void arrive(Stamp* stamp);
  Slot settle(std::size_t input, const Stamp& stamp, const Pushed& pushed);
  bool blocks(const Stream& stream, const Trigger& trigger) const;
  bool waits(const Trigger& trigger) const;
  bool cut(const Trigger& trigger, Cuts* cuts);

  Rules rules_;
  std::int64_t now_ns_;
  Payloads payloads_;
  std::vector<Seat> seats_;
  Triggers triggers_;
  std::vector<Cuts> ready_;
  std::int64_t seq_ = 0;
  Tally refused_;
};

}  // namespace mmedge
