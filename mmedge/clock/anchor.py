"""Where the one clock stood on the wall clock: for people, never for the synchroniser."""

from __future__ import annotations

import time


def read_anchor() -> tuple[int, int]:
    """Return one instant on CLOCK_MONOTONIC and on the wall clock, in ns: the tightest of a few readings.

    Example:
        >>> monotonic_ns, unix_ns = read_anchor()
        >>> abs(unix_ns - time.time_ns()) < 1_000_000_000
        True
    """
    readings = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(5)]
    before_ns, unix_ns, after_ns = min(readings, key=lambda reading: reading[2] - reading[0])
    return (before_ns + after_ns) // 2, unix_ns
