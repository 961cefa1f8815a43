#include "sync/stream.hpp"

#include <algorithm>

#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::int64_t kMaxGapIdleNs = 2'000'000'000;
// Before their first packet devices take longer than a silence.
constexpr std::int64_t kStartupNs = 2'000'000'000;
constexpr std::int64_t kAverage = 8;  // steps

}  // namespace

Stream::Stream(const StreamRules& rules)
    : rules_(rules), silent_ns_(rules.live ? rules.started_ns + kStartupNs + 1 : kForeverNs) {}

Cause Stream::seen(const Stamp& stamp) {
  if (!arrived_ || stamp.epoch > source_epoch_) {
    fresh_ = true;
    epoch_ = std::max(stamp.epoch, epoch_ + (arrived_ ? 1 : 0));
  } else if (stamp.epoch < source_epoch_) {
    return kOldEpoch;
  } else {
    const std::int64_t step_ns = stamp.capture_ns - capture_ns_;
    const std::int64_t gap_ns = std::max<std::int64_t>(stamp.arrive_ns - last_arrive_ns_, 0);
    fresh_ = jumped(step_ns, step_ns - gap_ns);
    if (fresh_)
      ++epoch_;
    else if (step_ns < min_step_ns_)
      return kTimeBackwards;
    else if (paced_)
      learn(step_ns, gap_ns);
  }
  if (fresh_) {
    source_epoch_ = stamp.epoch;
    watermark_ns_ = -kForeverNs;
  }
  ended_ = false;
  arrived_ = true;
  last_arrive_ns_ = stamp.arrive_ns;
  capture_ns_ = stamp.capture_ns;
  uncertainty_ns_ = stamp.uncertainty_ns;
  silent_ns_ = rules_.live ? stamp.arrive_ns + idle_ns_ + 1 : kForeverNs;
  watermark_ns_ = std::max(watermark_ns_, stamp.capture_ns);
  return kTaken;
}

bool Stream::jumped(std::int64_t step_ns, std::int64_t early_ns) {
  return step_ns < -kJumpNs || (rules_.live && early_ns > kJumpNs);
}

void Stream::learn(std::int64_t step_ns, std::int64_t gap_ns) {
  if (step_ns > 0 && (gap_ns <= idle_ns_ || steps_ < kAverage)) {  // a death is no period
    if (steps_ < kAverage)
      ++steps_;
    else  // a stall says little
      step_ns = std::min(step_ns, 4 * period_ns_);
    period_ns_ =
        std::clamp(period_ns_ + floor_divide(step_ns - period_ns_, steps_), kMinPeriodNs, kMaxPeriodNs);
  }
  // Follows the 99th percentile of the gaps between arrivals: up by 99 parts if above, down by one if below.
  if (gap_ns > gap_ns_)
    gap_ns_ = std::min(gap_ns_ + gap_ns_ * 99 / 1600, kMaxGapIdleNs / 3);
  else if (gap_ns_ > kIdleNs / 3)
    gap_ns_ = std::max(gap_ns_ - gap_ns_ / 1600, kIdleNs / 3);
  idle_ns_ = 3 * std::max(period_ns_, gap_ns_);
}

bool Stream::end(std::int64_t epoch, bool with_reason) {
  if (epoch < source_epoch_) return false;
  ended_ = true;
  ended_with_reason_ = with_reason;
  silent_ns_ = -kForeverNs;
  return true;
}

bool Stream::complete(std::int64_t t_ns) const {
  // The next packet of a steady stream is then the farther one.
  return watermark_ns_ >= t_ns - (rules_.live ? period_ns_ / 2 : 0);
}

std::optional<std::int64_t> Stream::hold_ns() const {
  return rules_.policy == Policy::hold ? rules_.max_age_ns : std::nullopt;
}

Cut Stream::absent(Why why, std::int64_t why_ns) const {
  Cut cut;
  cut.why = why;
  cut.why_ns = why_ns;
  return cut;
}

Cut Stream::gone() const { return absent(ended_ ? kEnded : arrived_ ? kNotInTime : kNothingYet); }

}  // namespace mmedge
