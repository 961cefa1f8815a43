"""How a stream's own time is placed on CLOCK_MONOTONIC: the lower envelope of its delays (native/clock)."""

from __future__ import annotations

import msgspec

from mmedge._native import core
from mmedge.types import ClockQuality


class ClockReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stream's clock.

    Attributes:
        quality: Class of its time stamps (A driver, B stream, C arrival).
        offset_ns: CLOCK_MONOTONIC less the stream's own time, now.
        ppm: How much slower than CLOCK_MONOTONIC the stream's clock runs, in parts per million.
        jitter_ns: 99 % of the latest packets arrived within this of the earliest possible time.
        uncertainty_ns: Bound on the error of the mapping.
    """

    quality: ClockQuality
    offset_ns: int
    ppm: float
    jitter_ns: int
    uncertainty_ns: int


class StreamClock(core.StreamClock):
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

    def report(self, quality: ClockQuality) -> ClockReport:
        """Return the present state for a health report.

        Args:
            quality: Class of the time stamps that were observed.
        """
        return ClockReport(
            quality=quality,
            offset_ns=self.offset_ns,
            ppm=round(self.ppm, 2),
            jitter_ns=self.jitter_ns,
            uncertainty_ns=self.uncertainty_ns,
        )
