// How a stream's own time is placed on CLOCK_MONOTONIC: the lower envelope of its delays.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mmedge {

// Places a stream's own time (presentation time, sample count) on CLOCK_MONOTONIC.
//
// A packet can arrive late, never early, so a line with a slope follows the lower envelope of `arrival -
// stream time` and not its mean: stalls of the reader do not move it. Of each second, the packet with the
// least delay is a point of the line. Reads no clock, allocates nothing; times are ns, and whatever they are,
// the answers are finite.
class StreamClock {
 public:
  // `floor_ns`: the smallest uncertainty to claim, for what the envelope cannot see (constant delays).
  explicit StreamClock(std::int64_t floor_ns);

  // Learns that stream time `stream_ns` arrived at `arrive_ns`; `gap`: the stream says that something is
  // missing before this, but not how much. Returns 0, or the jump of the mapping: positive after a gap of the
  // stream, negative when everything before was stamped too late; beyond 10 s the stream's own time has
  // jumped.
  std::int64_t observe(std::int64_t stream_ns, std::int64_t arrive_ns, bool gap = false);
  // Forgets the offset, keeps the slope: the stream's time begins anew with the next observation.
  void restart() { count_ = 0; }
  // Takes in that `gap_ns` of the stream are missing before the next observation.
  void shift(std::int64_t gap_ns);
  // The time of `stream_ns` on CLOCK_MONOTONIC. While the stream advances it never runs back, except by a
  // jump that `observe` returned.
  std::int64_t to_monotonic(std::int64_t stream_ns);

  // CLOCK_MONOTONIC less the stream's own time, at the latest bucket.
  std::int64_t offset_ns() const;
  // How much slower than CLOCK_MONOTONIC the stream's clock runs, in parts per million.
  double ppm() const { return slope_ * 1e6; }
  // 99 % of the latest packets arrived within this of the earliest possible time.
  std::int64_t jitter_ns() const;
  // Bound on the error of the mapping: the floor, and the largest of: 1.5 times the spread of the minima
  // (their middle half) with how far the newest of them is off the line; how far even the earliest packet of
  // the last quarter of a second is above it; how much more than the earliest half of the packets needed (at
  // most 1 ms), as fine noise may be two-sided. While few packets were seen, also how late all of them may
  // have been.
  std::int64_t uncertainty_ns() const;

 private:
  static constexpr std::size_t kWindow = 60;    // points
  static constexpr std::size_t kJitter = 1024;  // newest packets whose excess delay is kept

  struct Point {
    std::int64_t stream_ns, delay_ns;
  };

  void begin(std::int64_t stream_ns, std::int64_t delay_ns, std::int64_t arrive_ns);
  double line(std::int64_t stream_ns) const;
  double early_in_settling(double* excess, std::int64_t arrive_ns);
  void keep_excess(double excess, std::int64_t arrive_ns);
  void keep_point(const Point& point);
  double fit(std::int64_t stream_ns);
  std::size_t kept() const { return seen_ < kJitter ? seen_ : kJitter; }
  double of_excess(double share) const;

  std::int64_t floor_ns_;
  std::array<Point, kWindow> points_{};  // the oldest first
  std::size_t n_points_ = 0;
  std::int64_t base_ns_ =
      0;  // delays are kept as differences from this one: exact, and small enough for doubles
  // The line passes at anchor_ns_ through level_, and takes in bend_ over the bucket after it.
  std::int64_t anchor_ns_ = 0;
  double level_ = 0.0, bend_ = 0.0;
  double slope_ = 0.0, prior_ = 0.0, prior_sd_;
  std::int64_t count_ = 0;
  std::int64_t bucket_ = 0, settled_ns_ = 0;
  Point low_{};
  double spread_ = 0.0;
  double least_ = 0.0, behind_ = 0.0;  // least excess since doubt_ns_, and of the time before that
  std::int64_t doubt_ns_ = 0;
  std::array<double, kJitter> excess_{};
  std::size_t seen_ = 0;
  std::int64_t newest_ns_ = 0;
  double told_ = 0.0;         // the level that the caller knows of
  std::int64_t tell_ns_ = 0;  // and when it may hear of another
  std::int64_t last_stream_ns_, last_ns_;
};

}  // namespace mmedge
