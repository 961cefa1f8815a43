// What a stage knows from one trigger to the next: when it is due, what it has seen, what its outputs are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "graph/life.hpp"
#include "graph/moment.hpp"

namespace mmedge {

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
    bool differs = false;                  // whether what is new counts only if it is another one
    std::uint64_t direct = 0;              // the seats that feed it directly
    bool stream = false;                   // whether it hears every step of a sound
    bool background = false;               // whether triggers do not wait for it
  };
  enum class Due { kNo, kYes, kIfDifferent };

  // `producers` feed it; they live as long as it does.
  Stage(Rules rules, std::size_t seats, std::vector<const Stage*> producers);

  // Tells whether it must run. kIfDifferent: something came that is new, which matters unless it is the same.
  // `bits` are the seats that are present to it.
  Due due(const Moment& moment, std::uint64_t bits) const;
  bool is_new(const Moment& moment, std::size_t seat) const { return moment.marks[seat] != seen_[seat]; }
  // Whether a stream feeds it, directly or through others.
  bool behind() const { return !streams_.empty(); }
  // Which of the present seats are present to it. What comes through a stream alone is absent until the
  // stream's first step; seats that do not feed it stay as they are.
  std::uint64_t hears(std::uint64_t bits) const { return behind() ? bits & ~unheard() : bits; }
  // The seats that feed it and of which it hears nothing yet, though they may be present.
  std::uint64_t unheard() const;
  // Takes down of which epochs its seats are; returns whether one is another than before.
  bool turn(const Moment& moment);
  // Takes down what it is fed with.
  void see(const Moment& moment, std::uint64_t bits);
  // Takes down when it must run next. Triggers come when they like; counted from when it was due, not from
  // when it ran, the mean is as asked for.
  void schedule(std::int64_t t_ns);
  // Takes down when its tensors were written.
  void fed(std::int64_t from_ns, std::int64_t until_ns) {
    span_.fed_from_ns = from_ns;
    span_.fed_until_ns = until_ns;
    feed_ns = until_ns - from_ns;
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
    faulty = false;
    ++version;
  }
  // Whether its next run is one in the background; the first one, and that after an absence, are waited for.
  bool in_background() const { return rules_.background && !is_cold(life) && (!ran || running); }
  // It runs in the background from now on, for a trigger of this time.
  void start(std::int64_t started_ns) {
    started_ns_ = started_ns;
    carry = false;
    ran = running = true;
    if (life == Life::kWarm) life = Life::kRenewing;
  }
  // Its background run has ended; returns whether what it gave is wanted.
  bool take_up() {
    running = false;
    const bool stale = life == Life::kStale;
    if (stale)
      life = faulty ? Life::kFailed : Life::kCold;
    else if (life == Life::kRenewing)
      life = Life::kWarm;
    return !stale;
  }
  std::int64_t started_ns() const { return started_ns_; }
  // It has no outputs any more, and has seen nothing.
  void fall() {
    version += is_shown(life);
    life = running ? Life::kStale : Life::kCold;
    blank = true;
    forget_seen();
  }
  // Whether there is nothing to forget.
  bool is_empty() const { return blank && !has_seen() && (!running || life == Life::kStale); }
  void forget_seen() { fed_bits_ = kNever; }
  bool has_seen() const { return fed_bits_ != kNever; }
  const Rules& rules() const { return rules_; }
  const Span& span() const { return span_; }

  std::int64_t version = 0;  // rises whenever its outputs change
  std::int64_t t_ns = 0;     // capture time that its outputs belong to
  std::int64_t cost_ns = 0;  // moving median of the time of a run
  std::int64_t took_ns = 0;  // of the newest run
  std::int64_t feed_ns = 0;  // that writing its tensors took before it
  Life life = Life::kCold;
  bool ran = false;      // for this trigger
  bool carry = false;    // whether its states go on from its last run
  bool blank = false;    // whether nothing was written into its inputs since they were wiped
  bool running = false;  // whether a background run was not taken up yet
  bool faulty = false;   // of one in the background: whether it has failed, and no run has ended well since

 private:
  bool linked_anew() const;

  Rules rules_;
  std::vector<const Stage*> producers_;
  std::vector<std::int64_t> seen_versions_;
  std::vector<Mark> seen_;
  std::int64_t fed_bits_ = kNever;
  std::int64_t due_ns_ = 0, started_ns_ = 0;
  Span span_;
  static constexpr std::pair<std::int64_t, std::int64_t> kNowhere{-1, -1};
  std::pair<std::int64_t, std::int64_t> within_ = kNowhere;  // of the run that is taken down next
  std::vector<const Stage*> streams_;                        // the nearest ones before it
  std::uint64_t open_ = 0;   // the seats that feed it by a way without a stream
  std::uint64_t dated_ = 0;  // the seats whose epochs it knows
  std::vector<std::int64_t> epochs_;
};

}  // namespace mmedge
