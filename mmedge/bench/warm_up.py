"""When a run has settled: the warm-up is a state that is looked for, not a time that is guessed."""

from __future__ import annotations

from collections import deque

import numpy as np

LEAST_S = 1.0
MOST_S = 10.0
_FEW, _MANY = 20, 100  # results that are compared
_TAIL, _MIDDLE = 1.25, 1.1  # p99 and p50 of two neighbouring stretches may differ by this factor


class WarmUp:
    """Watches the latencies until the p99 of the last N, and their median, are those of the N before.

    Args:
        begin_ns: When the first data came, on CLOCK_MONOTONIC.
        period_ns: From one trigger to the next: N is as many as come in a second, 20 to 100.
        most_s: It ends then, settled or not.

    Attributes:
        settled: Whether it ended because the latencies were steady.

    Example:
        >>> warm_up = WarmUp(0, 10_000_000)
        >>> [k for k in range(400) if warm_up.over(10_000_000 * k, 50 - min(k, 40))][0]
        236
    """

    def __init__(self, begin_ns: int, period_ns: float, most_s: float = MOST_S) -> None:
        self._n = round(min(max(1e9 / period_ns, _FEW), _MANY))
        self._least_ns = begin_ns + round(min(LEAST_S, most_s) * 1e9)
        self._most_ns = begin_ns + round(most_s * 1e9)
        self._latest: deque[float] = deque(maxlen=2 * self._n)
        self.settled = False

    def over(self, now_ns: int, latency_ms: float) -> bool:
        """Take down the newest latency; tell whether the warm-up has ended."""
        self._latest.append(latency_ms)
        if now_ns < self._least_ns:
            return False
        if len(self._latest) == 2 * self._n:
            before, after = np.array(self._latest).reshape(2, self._n)
            self.settled = all(
                1 / factor <= np.percentile(after, percent) / max(np.percentile(before, percent), 1e-6) <= factor
                for percent, factor in ((50, _MIDDLE), (99, _TAIL))
            )
        return self.settled or now_ns >= self._most_ns
