#include "clock/stream_clock.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "clock/percentile.hpp"
#include "clock/slope.hpp"
#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::int64_t kBucketNs = 1'000'000'000;
constexpr std::size_t kRecent = 10;  // points by which the level is corrected
constexpr std::int64_t kSettleNs =
    2'000'000'000;  // after a start, in which an early packet moves the line at once
constexpr double kStepNs =
    30'000'000.0;  // a change of delay beyond this is a step; below, the line drifts to it
constexpr std::size_t kStepPoints = 3;          // in a row that must be off, or it is a stall
constexpr double kJumpNs = 10'000'000'000.0;    // beyond this the stream's clock has another origin
constexpr std::int64_t kDoubtNs = 250'000'000;  // of arrivals over which the least delay is looked for
constexpr double kSmooth = 0.3;                 // of the newest error that is taken over per bucket
constexpr double kUpNs = 500'000.0, kDownNs = 5'000'000.0;  // per bucket
// What is known of a slope before its first point, and of one that was learnt before the stream was
// interrupted.
constexpr double kPriorNew = 100e-6, kPriorKept = 5e-6;
constexpr double kFirstNs = 40'000'000.0;    // how late a lone first packet may well be
constexpr double kTwoSidedNs = 1'000'000.0;  // the most that jitter adds to the spread of the line
constexpr std::int64_t kNever = -(std::int64_t{1} << 62);

double real(std::int64_t value) { return static_cast<double>(value); }

}  // namespace

StreamClock::StreamClock(std::int64_t floor_ns)
    : floor_ns_(floor_ns), prior_sd_(kPriorNew), last_stream_ns_(kNever), last_ns_(kNever) {}

std::int64_t StreamClock::observe(std::int64_t stream_ns, std::int64_t arrive_ns, bool gap) {
  const std::int64_t delay_ns = subtract(subtract(arrive_ns, stream_ns), base_ns_);
  const std::int64_t bucket = floor_divide(arrive_ns, kBucketNs);
  const bool back = stream_ns < newest_ns_;
  newest_ns_ = stream_ns;
  if (count_ == 0) {
    base_ns_ = add(base_ns_, delay_ns);
    begin(stream_ns, 0, arrive_ns);
    told_ = -std::numeric_limits<double>::infinity();  // nobody relies on the first guess
    return 0;
  }
  double excess = real(delay_ns) - line(stream_ns);
  // So much later than ever, with stream time going on, is a reader that was stopped, or a gap: to be waited
  // for.
  if (excess < -kJumpNs || (excess > kJumpNs && back)) {
    const double jump = real(delay_ns) - level_;  // the drift over the jump never happened
    begin(stream_ns, delay_ns, arrive_ns);
    return round_to_int64(jump);
  }
  const bool settling = arrive_ns < settled_ns_;
  if ((gap && excess > 0) || (excess < -kStepNs && !settling)) {
    begin(stream_ns, delay_ns, arrive_ns);
    return round_to_int64(excess);
  }
  double jump = 0.0;
  if (settling)
    jump = early_in_settling(&excess, arrive_ns);
  else if (excess < -spread_)
    spread_ = -excess;  // what is early proves at once how late the line is; it follows at the bucket's end
  keep_excess(excess, arrive_ns);
  ++count_;
  if (bucket == bucket_) {
    if (delay_ns < low_.delay_ns) low_ = {stream_ns, delay_ns};
  } else {
    keep_point(low_);
    bucket_ = bucket;
    low_ = {stream_ns, delay_ns};
    jump += fit(stream_ns);
  }
  return round_to_int64(jump);
}

// Moves the line down to an early packet; returns the jump once it is worth telling.
double StreamClock::early_in_settling(double* excess, std::int64_t arrive_ns) {
  if (*excess < 0) {
    level_ += *excess;
    *excess = 0.0;
  }
  if (!(told_ - level_ > kStepNs && arrive_ns >= tell_ns_)) return 0.0;
  const double jump = level_ - told_;
  told_ = level_;
  tell_ns_ = add(arrive_ns, kDoubtNs);
  last_stream_ns_ = last_ns_ = kNever;
  return jump;
}

void StreamClock::keep_excess(double excess, std::int64_t arrive_ns) {
  if (subtract(arrive_ns, doubt_ns_) > kDoubtNs) {
    doubt_ns_ = arrive_ns;
    behind_ = least_;
    least_ = excess;
  } else if (excess < least_) {
    least_ = excess;
  }
  excess_[seen_ % kJitter] = excess;
  ++seen_;
}

void StreamClock::keep_point(const Point& point) {
  if (n_points_ == kWindow)
    std::move(points_.begin() + 1, points_.end(), points_.begin());
  else
    ++n_points_;
  points_[n_points_ - 1] = point;
}

void StreamClock::shift(std::int64_t gap_ns) { base_ns_ = add(base_ns_, gap_ns); }

void StreamClock::begin(std::int64_t stream_ns, std::int64_t delay_ns, std::int64_t arrive_ns) {
  if (n_points_ >= kRecent) {
    prior_ = slope_;
    prior_sd_ = kPriorKept;
  }
  n_points_ = 0;
  anchor_ns_ = stream_ns;
  level_ = real(delay_ns);
  bend_ = 0.0;
  bucket_ = floor_divide(arrive_ns, kBucketNs);
  low_ = {stream_ns, delay_ns};
  settled_ns_ = add(arrive_ns, kSettleNs);
  count_ = 1;
  spread_ = 0.0;
  seen_ = 0;
  least_ = behind_ = 0.0;
  doubt_ns_ = arrive_ns;
  told_ = level_;
  tell_ns_ = add(arrive_ns, kDoubtNs);
  last_stream_ns_ = last_ns_ = kNever;
}

double StreamClock::line(std::int64_t stream_ns) const {
  const double passed = real(subtract(stream_ns, anchor_ns_));
  return level_ + slope_ * passed + bend_ * std::clamp(passed / real(kBucketNs), 0.0, 1.0);
}

// Draws the line anew after a bucket; returns its jump.
double StreamClock::fit(std::int64_t stream_ns) {
  const double level = line(stream_ns);
  std::array<double, kWindow> x, y, rest;
  const auto to_floats = [&] {
    for (std::size_t i = 0; i < n_points_; ++i) {
      x[i] = real(subtract(points_[i].stream_ns, stream_ns));
      y[i] = real(points_[i].delay_ns);
    }
  };
  to_floats();
  double jump = 0.0;
  if (n_points_ >= kStepPoints) {
    double off = std::numeric_limits<double>::infinity();
    for (std::size_t i = n_points_ - kStepPoints; i < n_points_; ++i)
      off = std::min(off, y[i] - level - slope_ * x[i]);
    if (off > kStepNs) {
      jump = off;
      std::move(points_.begin() + (n_points_ - kStepPoints), points_.begin() + n_points_, points_.begin());
      n_points_ = kStepPoints;
      prior_ = slope_;
      prior_sd_ = kPriorKept;
      to_floats();
    }
  }
  const std::size_t n = n_points_;
  slope_ = lower_slope(x.data(), y.data(), n, {prior_, prior_sd_});
  for (std::size_t i = 0; i < n; ++i) rest[i] = y[i] - slope_ * x[i];
  anchor_ns_ = stream_ns;
  level_ = level + jump;
  const double error =
      *std::min_element(rest.begin() + (n - std::min(n, kRecent)), rest.begin() + n) - level_;
  if (jump != 0.0) {
    level_ += error;
    least_ = behind_ = 0.0;
  }
  bend_ = jump != 0.0 ? 0.0 : std::clamp(kSmooth * error, -kDownNs, kUpNs);
  const double newest = rest[n - 1];
  const double low = percentile(rest.data(), n, 0.25), high = percentile(rest.data(), n, 0.75);
  const double off_line = 1.5 * (high - low) + std::abs(newest - level_);
  spread_ = std::max(off_line, std::min(of_excess(0.5), kTwoSidedNs));
  return jump;
}

// A percentile of the newest excess delays.
double StreamClock::of_excess(double share) const {
  std::array<double, kJitter> sorted;
  std::copy_n(excess_.begin(), kept(), sorted.begin());
  return share == 0.5 ? median(sorted.data(), kept()) : percentile(sorted.data(), kept(), share);
}

std::int64_t StreamClock::to_monotonic(std::int64_t stream_ns) {
  std::int64_t time_ns = add(add(stream_ns, base_ns_), round_to_int64(line(stream_ns)));
  if (stream_ns >= last_stream_ns_) {
    time_ns = std::max(time_ns, last_ns_);
    last_stream_ns_ = stream_ns;
    last_ns_ = time_ns;
  }
  return time_ns;
}

std::int64_t StreamClock::offset_ns() const { return add(base_ns_, round_to_int64(level_)); }

std::int64_t StreamClock::jitter_ns() const { return seen_ > 0 ? round_to_int64(of_excess(0.99)) : 0; }

std::int64_t StreamClock::uncertainty_ns() const {
  const double late = kFirstNs / real(std::max<std::int64_t>(count_, 1));
  return add(floor_ns_, round_to_int64(std::max(spread_, behind_) + late));
}

}  // namespace mmedge
