// What a stage knows from one trigger to the next: when it is due, what it has seen, what its outputs are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "graph/moment.hpp"

namespace mmedge {

// What a stage's outputs are; mmedge/fusion/life.py says what each means.
enum class Life : std::uint8_t { kCold, kWarm, kHidden, kRenewing, kStale, kFailed };

inline bool is_cold(Life life) {
  return life == Life::kCold || life == Life::kStale || life == Life::kFailed;
}

inline bool is_shown(Life life) { return life == Life::kWarm || life == Life::kRenewing; }

// When a stage was fed for its newest run and when its engine ran, in ns on CLOCK_MONOTONIC; zeros before the
// first.
struct Span {
  std::int64_t fed_from_ns = 0, fed_until_ns = 0, ran_from_ns = 0, ran_until_ns = 0;
};

class Stage {
 public:
  static constexpr std::int64_t kNever = -1;
  static constexpr std::int64_t kSlackNs = 500'000;  // triggers waver
  // A run that costs this is heavy: handing it to another thread costs a tenth.
  static constexpr std::int64_t kHeavyNs = 1'000'000;

  struct Rules {
    std::uint64_t depends = 0;             // the seats that feed it, directly or through others
    std::uint64_t masks = 0;               // those whose presence alone makes it run again
    std::vector<std::size_t> watches;      // those whose new data does
    bool follows = false;                  // whether new outputs of the stages that feed it do
    std::optional<std::int64_t> every_ns;  // it runs no more often
  };
  enum class Due { kNo, kYes, kIfDifferent };

  // `producers` feed it; they live as long as it does.
  Stage(Rules rules, std::size_t seats, std::vector<const Stage*> producers);

  // Tells whether it must run. kIfDifferent: something came that is new, which matters unless it is the same.
  // `bits` are the seats that are present to it.
  Due due(const Moment& moment, std::uint64_t bits) const;
  bool is_new(const Moment& moment, std::size_t seat) const { return moment.marks[seat] != seen_[seat]; }
  // Takes down what it is fed with.
  void see(const Moment& moment, std::uint64_t bits);
  // Takes down when it must run next. Triggers come when they like; counted from when it was due, not from
  // when it ran, the mean is as asked for.
  void schedule(std::int64_t t_ns);
  // Takes down when its tensors were written; returns how long that took.
  std::int64_t fed(std::int64_t from_ns, std::int64_t until_ns) {
    span_.fed_from_ns = from_ns;
    span_.fed_until_ns = until_ns;
    return until_ns - from_ns;
  }
  // Notes when the engine itself began and ended, where a run is handed to a thread of its own: the way there
  // and back is no time of the engine's.
  void ran_within(std::int64_t from_ns, std::int64_t until_ns) { within_ = {from_ns, until_ns}; }
  // Takes down when a run began and ended; returns how long the engine took.
  std::int64_t took(std::int64_t from_ns, std::int64_t until_ns);
  // Raises the ages of the seats that it depends on to that of its outputs.
  void age(Moment* moment) const;
  // Its outputs are those of a run from now on.
  void finish() {
    ran = carry = true;
    life = Life::kWarm;
    ++version;
  }
  void forget_seen() { fed_bits_ = kNever; }
  bool has_seen() const { return fed_bits_ != kNever; }
  const Rules& rules() const { return rules_; }
  const Span& span() const { return span_; }

  std::int64_t version = 0;  // rises whenever its outputs change
  std::int64_t t_ns = 0;     // capture time that its outputs belong to
  std::int64_t cost_ns = 0;  // moving median of the time of a run
  std::int64_t took_ns = 0;  // of the newest run
  Life life = Life::kCold;
  bool ran = false;    // for this trigger
  bool carry = false;  // whether its states go on from its last run
  bool blank = false;  // whether nothing was written into its inputs since they were wiped

 private:
  bool linked_anew() const;

  Rules rules_;
  std::vector<const Stage*> producers_;
  std::vector<std::int64_t> seen_versions_;
  std::vector<Mark> seen_;
  std::int64_t fed_bits_ = kNever;
  std::int64_t due_ns_ = 0;
  Span span_;
  std::pair<std::int64_t, std::int64_t> within_;
};

}  // namespace mmedge
