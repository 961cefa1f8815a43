// What the synchroniser knows of one input: newest data, watermark, whether it is alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "sync/cut.hpp"
#include "sync/tally.hpp"

namespace mmedge {

enum class Policy { zero, hold, skip, fail };

// How an input is treated.
struct StreamRules {
  bool live = true;  // its source follows the clock; a file's does not
  Policy policy = Policy::zero;
  std::optional<std::int64_t> max_age_ns;  // of policy hold
  std::int64_t started_ns = 0;             // when the run began
};

// What became of a packet that was pushed.
struct Pushed {
  Cause cause;  // why it was refused, or kTaken
  Item item;    // without a slot if it is not kept
};

// One input: its watermark (capture time up to which it is complete) and its life.
class Stream {
 public:
  static constexpr int kNoRank = -1;
  // A live source that has been silent for this long, and for three of its periods and of its usual worst
  // gaps, no longer holds triggers back.
  static constexpr std::int64_t kIdleNs = 250'000'000;
  static constexpr std::int64_t kMinPeriodNs = 1'000'000, kMaxPeriodNs = 5'000'000'000;  // 1,000 Hz to 0.2 Hz
  static constexpr std::size_t kMaxValues = 4096;  // texts or arrays that wait for their trigger

  explicit Stream(const StreamRules& rules);
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool live() const { return rules_.live; }
  Policy policy() const { return rules_.policy; }
  // Which stream is the clock of hops: the one of lowest rank that is alive.
  int rank() const { return rank_; }
  bool ranked() const { return rank_ != kNoRank; }
  bool waits() const { return waits_; }  // whether triggers wait for it
  bool has_arrived() const { return arrived_; }
  std::int64_t last_arrive_ns() const { return last_arrive_ns_; }
  // Of the newest packet: what its source says, and one more for each jump of its time stamps.
  std::int64_t epoch() const { return epoch_; }
  // Highest capture time of this epoch.
  std::int64_t watermark_ns() const { return watermark_ns_; }
  std::int64_t uncertainty_ns() const { return uncertainty_ns_; }
  // Mean step of its capture time; a guess until `measured`.
  std::int64_t period_ns() const { return period_ns_; }
  bool measured() const { return steps_ > 0; }
  // A live source that is silent for longer is not waited for.
  std::int64_t idle_ns() const { return idle_ns_; }
  // From when on it is not waited for if nothing more arrives.
  std::int64_t silent_ns() const { return silent_ns_; }
  // Whether new data may still come soon.
  bool alive(std::int64_t now_ns) const { return now_ns < silent_ns_; }
  bool ended() const { return ended_; }
  // Whether everything has come, as from a file.
  bool ended_well() const { return ended_ && !ended_with_reason_ && arrived_; }

  // Notes that nothing more is expected, unless this is the end of what was replaced long ago: then returns
  // false. A later packet takes it back.
  bool end(std::int64_t epoch, bool with_reason);
  // Takes the times of a packet that was let go before it came here; returns why it is refused, or kTaken.
  virtual Cause passed(const Stamp& stamp) { return seen(stamp); }
  // Whether what would have been cut at `t_ns` had come, and was let go before it came here.
  virtual bool let_go_near(std::int64_t) const { return false; }
  // Whether nothing can be there at `t_ns` yet.
  virtual bool starting(std::int64_t, std::int64_t now_ns) const { return !arrived_ && alive(now_ns); }
  // Whether nothing that is still to come can change what is cut at `t_ns`.
  virtual bool complete(std::int64_t t_ns) const;
  // What is valid at `t_ns`; with `latest`, the newest.
  virtual Cut cut(std::int64_t t_ns, bool latest) const = 0;
  // What `item` gives at `t_ns`, if it may be used there.
  virtual Cut admit(const Item& item, std::int64_t t_ns) const = 0;
  // How many items `trim` may release.
  virtual std::size_t kept() const { return 0; }
  // Releases what no trigger from `keep_from_ns` on can want, up to `wanted`.
  virtual void trim(std::int64_t, Slot) {}
  // Releases what is held.
  virtual void close() {}

  // Notes that it was cut for a trigger at `t_ns`.
  void note_cut(std::int64_t epoch, std::int64_t t_ns) { cut_epoch_ = epoch, cut_ns_ = t_ns; }
  // Whether a trigger at `t_ns` would be followed backwards within the epoch; a text knows no order.
  bool runs_back(std::int64_t epoch, std::int64_t t_ns) const {
    return ranked() && cut_epoch_ == epoch && t_ns <= cut_ns_;
  }
  // Up to when this epoch is done with: whatever were cut there or before would run back.
  std::int64_t passed_ns() const { return runs_back(epoch_, cut_ns_) ? cut_ns_ : -kForeverNs; }

 protected:
  // Notes a packet's times; returns why it must be refused, or kTaken.
  Cause seen(const Stamp& stamp);
  // Whether the newest packet began an epoch.
  bool fresh() const { return fresh_; }
  std::int64_t capture_ns() const { return capture_ns_; }
  std::optional<std::int64_t> hold_ns() const;
  Cut absent(Why why, std::int64_t why_ns = 0) const;
  Cut gone() const;

  // Set by the kinds of streams.
  int rank_ = kNoRank;
  bool waits_ = true;
  bool paced_ = true;  // whether its steps are worth learning: lines of text come when they like
  std::int64_t min_step_ns_ = 0;
  std::int64_t period_ns_ = 40'000'000;
  std::int64_t idle_ns_ = kIdleNs;

 private:
  // Whether a packet `step_ns` after the one before, and `early_ns` ahead of the clock, has another origin.
  virtual bool jumped(std::int64_t step_ns, std::int64_t early_ns);
  void learn(std::int64_t step_ns, std::int64_t gap_ns);

  StreamRules rules_;
  std::int64_t silent_ns_;
  std::int64_t epoch_ = 0, source_epoch_ = 0;
  bool fresh_ = true, arrived_ = false, ended_ = false, ended_with_reason_ = false;
  std::int64_t watermark_ns_ = -kForeverNs;
  std::int64_t last_arrive_ns_ = 0, capture_ns_ = 0, uncertainty_ns_ = 0;
  std::int64_t steps_ = 0;
  std::int64_t gap_ns_ = kIdleNs / 3;
  std::int64_t cut_epoch_ = 0, cut_ns_ = -kForeverNs;
};

}  // namespace mmedge
