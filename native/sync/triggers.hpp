// When a fused inference is made: at the packets of one input, or at hops on the capture time of another.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sync/fifo.hpp"
#include "sync/stream.hpp"
#include "sync/tally.hpp"

namespace mmedge {

// One capture time at which everything is cut.
struct Trigger {
  std::int64_t t_ns = 0;
  std::int64_t deliver_ns = 0;      // when what made it arrived
  const Stream* clock = nullptr;    // whose capture time it is; nullptr: the time itself
  std::int64_t epoch = 0;           // of the clock
  std::int64_t uncertainty_ns = 0;  // of t_ns
  bool by_packet = false;           // whether `item` made it; otherwise it is a hop
  Item item;
};

// Makes the triggers and keeps those that wait.
//
// Each packet of the trigger's input makes one; for audio and timer every `every_ns` does. While that input
// is dead, hops of whatever is alive keep its rate, from where it stopped to where it is back; a timer's go
// on with the time itself while nothing is alive that has a clock.
class Triggers {
 public:
  struct Rules {
    std::int64_t every_ns = 0;  // the hop
    std::int64_t wait_ns = 0;   // how long a trigger may wait
    bool ticking = false;       // whether the time itself may have to make triggers
  };
  // Throws std::invalid_argument for a hop that is none.
  Triggers(const Rules& rules, Payloads& payloads);

  // Adds an input; `own`: it is the trigger's, and `by_packet`: each of its packets makes one.
  void add(const Stream& stream, bool own, bool by_packet);

  const Stream* own() const { return own_; }
  bool ticking() const { return rules_.ticking; }
  // Makes the trigger of a packet of the trigger's own input.
  void on_packet(const Stamp& stamp, const Item& item);
  // Counts a packet of it that was refused, or `let_go` before it came here.
  void on_refused(const Stamp& stamp, Cause cause, bool let_go);
  // Makes the hops up to where their clock is; `deliver_ns` is when it got there.
  void make_hops(std::int64_t now_ns, std::int64_t deliver_ns);
  // Whether the time itself is the timer's clock: all others are silent, but for texts, which have none.
  bool ticks(std::int64_t now_ns) const;
  // When the time makes the next trigger.
  std::optional<std::int64_t> next_tick_ns(std::int64_t now_ns) const;
  // From one trigger to the next.
  std::int64_t step_ns() const;

  // Those that wait, the oldest first.
  const Fifo<Trigger>& pending() const { return pending_; }
  void pop() { pending_.pop_front(); }  // the caller releases its item
  // Notes that what was ready has left.
  void polled() { resumed_ = 0; }
  // The oldest time that a trigger will cut while no clock runs back, and the oldest item that one will. A
  // source that ended without error is not considered.
  struct Wanted {
    std::int64_t t_ns;
    Slot slot;
  };
  Wanted wanted() const;

  std::int64_t made() const { return made_; }
  Tally& drops() { return drops_; }
  const Tally& drops() const { return drops_; }
  void close();

 private:
  struct Clock {
    const Stream* stream = nullptr;
    std::int64_t epoch = 0;
    bool operator==(const Clock& other) const { return stream == other.stream && epoch == other.epoch; }
  };

  std::int64_t hop(std::int64_t next_ns, std::int64_t horizon_ns, std::int64_t deliver_ns,
                   const Clock& clock);
  void append(Trigger trigger);
  void drop_oldest();
  std::int64_t patience_ns() const;
  std::int64_t limit() const;
  const Stream* first_alive(std::int64_t now_ns) const;

  Rules rules_;
  Payloads& payloads_;
  std::vector<const Stream*> streams_, clocks_;  // the clocks by rank
  const Stream* own_ = nullptr;
  bool by_packet_ = false;
  std::optional<std::int64_t> next_hop_ns_;
  Clock hop_clock_, last_clock_;
  std::int64_t resumed_ = 0;  // hops that make up for a silence, until they are polled
  std::int64_t last_ns_ = -kForeverNs;
  Fifo<Trigger> pending_;
  std::int64_t made_ = 0;
  Tally drops_;
};

}  // namespace mmedge
