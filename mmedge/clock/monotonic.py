"""The one clock: CLOCK_MONOTONIC."""

from __future__ import annotations

import time


def now_ns() -> int:
    """Return the time in ns on CLOCK_MONOTONIC, the only clock used inside mmedge."""
    return time.monotonic_ns()
