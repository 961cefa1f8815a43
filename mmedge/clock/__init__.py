"""One clock for everything, and the estimator that places each stream's own time on it."""

from mmedge.clock.anchor import read_anchor
from mmedge.clock.estimator import ClockReport, StreamClock
from mmedge.clock.monotonic import now_ns

__all__ = ["ClockReport", "StreamClock", "now_ns", "read_anchor"]
