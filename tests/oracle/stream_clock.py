"""The stream clock in numpy: how a stream's own time is placed on CLOCK_MONOTONIC, the lower envelope of its delays."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BUCKET_NS = 1_000_000_000  # of which the packet with the least delay is a point of the line
_WINDOW = 60  # buckets
_RECENT = 10  # buckets by which the level is corrected
_SETTLE_NS = 2_000_000_000  # after a start, in which an early packet moves the line at once
_STEP_NS = 30_000_000  # a change of delay beyond this is a step; below, the line drifts to it
_STEP_BUCKETS = 3  # in a row that must be off, or it is a stall
_JUMP_NS = 10_000_000_000  # beyond this the stream's clock has another origin
_DOUBT_NS = 250_000_000  # of arrivals over which the least delay is looked for
_SMOOTH = 0.3  # of the newest error that is taken over per bucket
_UP_NS, _DOWN_NS = 500_000.0, 5_000_000.0  # per bucket
_MAX_SLOPE = 500e-6  # s per s: beyond any crystal
# What is known of a slope before its first point, and of one that was learnt before the stream was interrupted.
_PRIOR_NEW, _PRIOR_KEPT = 100e-6, 5e-6
_NOISE_NS, _NOISE_POINTS = 200_000.0, 4
_FIRST_NS = 40_000_000  # how late a lone first packet may well be
_JITTER = 1024  # newest packets whose excess delay is kept
_NEVER = (-(1 << 62), -(1 << 62))
_TWO_SIDED_NS = 1_000_000.0  # the most that jitter adds to the spread of the line


class StreamClock:
    """Places a stream's own time (presentation time, sample count) on CLOCK_MONOTONIC.

    A packet can arrive late, never early, so a line with a slope follows the lower envelope of
    ``arrival - stream time`` and not its mean: stalls of the reader do not move it.

    Args:
        floor_ns: Smallest uncertainty to claim, for what the envelope cannot see (constant delays).

    Example:
        >>> clock = StreamClock(floor_ns=1_000_000)
        >>> clock.observe(0, 5_000_000), clock.observe(40_000_000, 60_000_000)
        (0, 0)
        >>> clock.to_monotonic(40_000_000)
        45000000
    """

    def __init__(self, *, floor_ns: int) -> None:
        self._floor_ns = floor_ns
        self._points: deque[tuple[int, int]] = deque(maxlen=_WINDOW)  # (stream time, smallest delay) of each bucket
        self._base = 0  # delays are kept as differences from this one: exact, and small enough for floats
        self._anchor = 0  # the line passes here at _level, and takes in _bend over the bucket after it
        self._level = self._bend = 0.0
        self._slope = self._prior = 0.0
        self._prior_sd = _PRIOR_NEW
        self._count = 0
        self._bucket = self._settled_ns = 0
        self._low = (0, 0)
        self._spread = 0.0
        self._least = self._behind = 0.0  # least excess since _doubt_ns, and of the time before that
        self._doubt_ns = 0
        self._excess = np.zeros(_JITTER)
        self._seen = 0
        self._newest = 0
        self._told, self._tell_ns = 0.0, 0  # the level that the caller knows of, and when it may hear of another
        self._last = _NEVER

    def observe(self, stream_ns: int, arrive_ns: int, *, gap: bool = False) -> int:
        """Learn that stream time ``stream_ns`` arrived at ``arrive_ns``.

        Args:
            stream_ns: The stream's own time.
            arrive_ns: Its arrival on CLOCK_MONOTONIC.
            gap: The stream says that something is missing before this, but not how much.

        Returns:
            0, or the jump of the mapping in ns: positive after a gap of the stream, negative when
            everything before was stamped too late; beyond 10 s the stream's own time has jumped.
        """
        delay, bucket = arrive_ns - stream_ns - self._base, arrive_ns // _BUCKET_NS
        newest, self._newest = self._newest, stream_ns
        if not self._count:
            self._base += delay
            self._begin(stream_ns, 0, arrive_ns)
            self._told = -math.inf  # nobody relies on the first guess
            return 0
        excess = delay - self._line(stream_ns)
        # So much later than ever, with stream time going on, is a reader that was stopped, or a gap: to be waited for.
        if excess < -_JUMP_NS or (excess > _JUMP_NS and stream_ns < newest):
            jump = delay - self._level  # the drift over the jump never happened
            self._begin(stream_ns, delay, arrive_ns)
            return round(jump)
        settling = arrive_ns < self._settled_ns
        if (gap and excess > 0) or (excess < -_STEP_NS and not settling):
            self._begin(stream_ns, delay, arrive_ns)
            return round(excess)
        jump = 0.0
        if settling:
            if excess < 0:
                self._level += excess
                excess = 0.0
            if self._told - self._level > _STEP_NS and arrive_ns >= self._tell_ns:
                jump = self._level - self._told
                self._told, self._tell_ns, self._last = self._level, arrive_ns + _DOUBT_NS, _NEVER
        elif excess < -self._spread:
            self._spread = -excess  # what is early proves at once how late the line is; it follows at the bucket's end
        if arrive_ns - self._doubt_ns > _DOUBT_NS:
            self._doubt_ns, self._behind, self._least = arrive_ns, self._least, excess
        elif excess < self._least:
            self._least = excess
        self._excess[self._seen % _JITTER] = excess
        self._seen += 1
        self._count += 1
        if bucket == self._bucket:
            if delay < self._low[1]:
                self._low = (stream_ns, delay)
        else:
            self._points.append(self._low)
            self._bucket, self._low = bucket, (stream_ns, delay)
            jump += self._fit(stream_ns)
        return round(jump)

    def restart(self) -> None:
        """Forget the offset, keep the slope: the stream's time begins anew with the next observation."""
        self._count = 0

    def shift(self, gap_ns: int) -> None:
        """Take in that ``gap_ns`` of the stream are missing before the next observation."""
        self._base += gap_ns

    def _begin(self, stream_ns: int, delay: int, arrive_ns: int) -> None:
        if len(self._points) >= _RECENT:
            self._prior, self._prior_sd = self._slope, _PRIOR_KEPT
        self._points.clear()
        self._anchor, self._level, self._bend = stream_ns, float(delay), 0.0
        self._bucket, self._low = arrive_ns // _BUCKET_NS, (stream_ns, delay)
        self._settled_ns = arrive_ns + _SETTLE_NS
        self._count, self._spread, self._seen = 1, 0.0, 0
        self._least, self._behind, self._doubt_ns = 0.0, 0.0, arrive_ns
        self._told, self._tell_ns, self._last = self._level, arrive_ns + _DOUBT_NS, _NEVER

    def _line(self, stream_ns: int) -> float:
        passed = stream_ns - self._anchor
        return self._level + self._slope * passed + self._bend * min(max(passed / _BUCKET_NS, 0.0), 1.0)

    def _fit(self, stream_ns: int) -> float:
        """Draw the line anew after a bucket; return its jump."""
        level = self._line(stream_ns)
        points = np.array(self._points, dtype=np.float64)
        points[:, 0] = [n - stream_ns for n, _ in self._points]
        x, y = points.T
        jump = 0.0
        off = y[-_STEP_BUCKETS:] - level - self._slope * x[-_STEP_BUCKETS:]
        if len(off) == _STEP_BUCKETS and off.min() > _STEP_NS:
            jump = float(off.min())
            for _ in range(len(x) - _STEP_BUCKETS):
                self._points.popleft()
            self._prior, self._prior_sd = self._slope, _PRIOR_KEPT
            x, y = x[-_STEP_BUCKETS:], y[-_STEP_BUCKETS:]
        self._slope = self._regress(x, y)
        rest = y - self._slope * x
        self._anchor, self._level = stream_ns, level + jump
        error = float(rest[-_RECENT:].min()) - self._level
        if jump:
            self._level += error
            self._least = self._behind = 0.0
        self._bend = 0.0 if jump else max(-_DOWN_NS, min(_UP_NS, _SMOOTH * error))
        low, high = np.percentile(rest, (25, 75))
        off_line = 1.5 * float(high - low) + abs(float(rest[-1]) - self._level)
        self._spread = max(off_line, min(float(np.median(self._excess[: self._seen])), _TWO_SIDED_NS))
        return jump

    def _regress(self, x: FloatArray, y: FloatArray) -> float:
        """Return the slope of the points' lower half, drawn to what was known before while they are few."""
        rest = y - self._prior * x
        slope = 0.0
        for lower_half in (False, True):
            if lower_half:
                above = rest - slope * x
                keep = above <= np.median(above)
                x, rest = x[keep], rest[keep]
            dx, dy = x - x.mean(), rest - rest.mean()
            spread = float(dx @ dx)
            if spread == 0:  # a single point, or a stream whose time stands still
                break
            off = dy - dx * (dx @ dy / spread)
            noise = (off @ off + _NOISE_POINTS * _NOISE_NS**2) / (len(x) + _NOISE_POINTS)
            slope = float(dx @ dy / (spread + noise / self._prior_sd**2))
        return max(-_MAX_SLOPE, min(_MAX_SLOPE, self._prior + slope))

    def to_monotonic(self, stream_ns: int) -> int:
        """Return the time of ``stream_ns`` on CLOCK_MONOTONIC.

        While the stream advances it never runs back, except by a jump that ``observe`` returned.
        """
        time_ns = stream_ns + self._base + round(self._line(stream_ns))
        if stream_ns >= self._last[0]:
            time_ns = max(time_ns, self._last[1])
            self._last = (stream_ns, time_ns)
        return time_ns

    @property
    def offset_ns(self) -> int:
        """CLOCK_MONOTONIC less the stream's own time, at the latest bucket."""
        return self._base + round(self._level)

    @property
    def ppm(self) -> float:
        """How much slower than CLOCK_MONOTONIC the stream's clock runs, in parts per million."""
        return self._slope * 1e6

    @property
    def jitter_ns(self) -> int:
        """99 % of the latest packets arrived within this of the earliest possible time."""
        return round(float(np.percentile(self._excess[: self._seen], 99))) if self._seen else 0

    @property
    def uncertainty_ns(self) -> int:
        """Bound on the error of the mapping, in ns.

        The floor, and the largest of: 1.5 times the spread of the minima (their middle half) with how far the newest
        of them is off the line; how far even the earliest packet of the last quarter of a second is above it; how
        much more than the earliest half of the packets needed (at most 1 ms), as fine noise may be two-sided. While
        few packets were seen, also how late all of them may have been.
        """
        return self._floor_ns + round(max(self._spread, self._behind) + _FIRST_NS / max(self._count, 1))
