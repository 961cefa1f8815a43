"""The histogram in plain Python, as it ran before it was native: what holds the native one."""

from __future__ import annotations

import math

import numpy as np

RATIO = math.log(1.01)
BUCKETS = 2400


class Histogram:
    """Durations in buckets 1 % wide."""

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, np.int64)
        self.n = 0
        self.max_ns = 0
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        self.counts[min(int(math.log(max(duration_ns, 1000) / 1000) / RATIO), BUCKETS - 1)] += 1
        self.n += 1
        self.sum_ns += duration_ns
        self.max_ns = max(self.max_ns, duration_ns)
