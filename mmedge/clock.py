"""The one clock: CLOCK_MONOTONIC, and how a stream's own time is placed on it."""

from __future__ import annotations

import time
from collections import deque

_BUCKET_NS = 500_000_000
_WINDOW = 20  # buckets: 10 s
_SETTLE_NS = 2_000_000_000
_STEP_NS = 30_000_000
_STEP_BUCKETS = 3
_SLEW = 500e-6  # 0.5 ms per second


def now_ns() -> int:
    """Return the time in ns on CLOCK_MONOTONIC, the only clock used inside mmedge."""
    return time.monotonic_ns()


class StreamClock:
    """Places a stream's own time (presentation time, sample count) on CLOCK_MONOTONIC.

    A packet can arrive late, never early, so the offset follows the lower envelope of
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
        self._minima: deque[tuple[int, int]] = deque()  # (number of the bucket, its smallest arrival - stream time)
        self._offset = 0.0
        self._first_ns: int | None = None
        self._seen_ns = 0
        self._last = (-(1 << 62), -(1 << 62))

    def observe(self, stream_ns: int, arrive_ns: int) -> int:
        """Learn that stream time ``stream_ns`` arrived at ``arrive_ns``.

        Returns:
            0, or the jump of the mapping in ns: positive after a gap that the stream did not report,
            negative when everything before was stamped too late.
        """
        delay, bucket = arrive_ns - stream_ns, arrive_ns // _BUCKET_NS
        if self._minima and self._minima[-1][0] == bucket:
            self._minima[-1] = (bucket, min(delay, self._minima[-1][1]))
        else:
            self._minima.append((bucket, delay))
        while self._minima[0][0] <= bucket - _WINDOW:
            self._minima.popleft()
        if self._first_ns is None:
            self._first_ns, self._seen_ns, self._offset = arrive_ns, arrive_ns, float(delay)
            return 0
        passed_ns, self._seen_ns = max(0, arrive_ns - self._seen_ns), arrive_ns
        if arrive_ns - self._first_ns < _SETTLE_NS:
            self._offset = min(self._offset, float(delay))
            return 0
        # The newest bucket is still filling: its minimum can only fall, so it cannot prove a gap.
        recent = [low for _, low in self._minima][-1 - _STEP_BUCKETS : -1]
        if len(recent) == _STEP_BUCKETS and min(recent) > self._offset + _STEP_NS:
            while len(self._minima) > _STEP_BUCKETS + 1:
                self._minima.popleft()
            return self._jump()
        if delay < self._offset - _STEP_NS:
            return self._jump()
        error = min(low for _, low in self._minima) - self._offset
        self._offset += max(-_SLEW * passed_ns, min(_SLEW * passed_ns, error))
        return 0

    def shift(self, gap_ns: int) -> None:
        """Take in that ``gap_ns`` of the stream are missing before the next observation."""
        self._offset += gap_ns
        self._minima = deque((bucket, low + gap_ns) for bucket, low in self._minima)

    def _jump(self) -> int:
        before, self._offset = self._offset, float(min(low for _, low in self._minima))
        return round(self._offset - before)

    def to_monotonic(self, stream_ns: int) -> int:
        """Return the time of ``stream_ns`` on CLOCK_MONOTONIC; never runs back while the stream advances."""
        time_ns = round(stream_ns + self._offset)
        if stream_ns >= self._last[0]:
            time_ns = max(time_ns, self._last[1])
            self._last = (stream_ns, time_ns)
        return time_ns

    @property
    def uncertainty_ns(self) -> int:
        """Bound on the error of the mapping: the floor plus 1.5 times the spread of the minima."""
        lows = sorted(low for _, low in self._minima)
        if len(lows) < 2:
            return 2 * self._floor_ns
        return self._floor_ns + round(1.5 * (lows[3 * len(lows) // 4] - lows[len(lows) // 4]))
