"""Durations of one kind, in the order in which they came: percentiles, and what is known of them."""

from __future__ import annotations

import math
from array import array

import numpy as np

from mmedge.pipeline import Percentiles
from mmedge.pipeline.statistics import FloatArray64, values_needed

CONFIDENCE = 0.95
PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
_BLOCKS = 5
Interval = tuple[float | None, float | None]


class Samples:
    """Durations in ns: eight bytes each, and exact percentiles.

    Example:
        >>> s = Samples()
        >>> for number in range(100):  # 0 to 99 ms, out of order
        ...     s.add(number * 37 % 100 * 1_000_000)
        >>> s.percentile_ms(50), s.interval_ms(50), s.interval_ms(99)
        (49.0, (39.0, 61.0), (95.0, None))
    """

    def __init__(self) -> None:
        self._ns = array("q")
        self._sorted: FloatArray64 | None = None

    def add(self, duration_ns: int) -> None:
        """Take one down."""
        self._ns.append(duration_ns)
        self._sorted = None

    def extend(self, other: Samples) -> None:
        """Take down what another has, behind its own."""
        self._ns.extend(other._ns)
        self._sorted = None

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self._ns)

    @property
    def sum_ns(self) -> int:
        """All together."""
        return sum(self._ns)

    @property
    def max_ns(self) -> int:
        """The longest."""
        return max(self._ns, default=0)

    def values_ms(self) -> FloatArray64:
        """Return them as they came, float64 [n]; a copy."""
        return np.array(self._ns, np.float64) / 1e6

    def _rising(self) -> FloatArray64:
        if self._sorted is None:
            self._sorted = np.sort(self.values_ms())
        return self._sorted

    def percentile_ms(self, percent: float) -> float:
        """Return the smallest value that ``percent`` % are not above; NaN of none."""
        return float(self._rising()[_rank(self.n, percent) - 1]) if self.n else math.nan

    def interval_ms(self, percent: float) -> Interval:
        """Return between what the percentile lies with 95 % confidence, whatever the distribution; None: not known."""
        if not self.n:
            return None, None
        values, rising = self.values_ms(), self._rising()
        below = values <= self.percentile_ms(percent)
        independent = self.n / inefficiency(below.astype(np.float64))
        low, high = levels(independent, percent / 100)
        # One rank further out on each side: ranks are whole, levels are not.
        first, last = math.floor(low * self.n), math.ceil(high * self.n) + 1
        return (
            float(rising[first - 1]) if first >= 1 else None,
            float(rising[last - 1]) if last <= self.n else None,
        )

    def summary(self) -> Figures:
        """Return the figures that n values can show."""
        return Figures(self)


class Figures(Percentiles):
    """Percentiles with their intervals.

    Attributes:
        intervals_ms: Of each percentile that n can show, between what it lies with 95 % confidence.
    """

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples)
        shown = {name: percent for name, percent in PERCENTS.items() if samples.n >= values_needed(percent)}
        self.intervals_ms = {name: samples.interval_ms(percent) for name, percent in shown.items()}

    def to_dict(self) -> dict[str, object]:  # type: ignore[override]
        """Return the figures rounded to 1 us, with ``interval``; None for what n values cannot show."""

        def rounded(value: float | None) -> float | None:
            return None if value is None else round(value, 3)

        between = {name: [rounded(low), rounded(high)] for name, (low, high) in self.intervals_ms.items()}
        return {**super().to_dict(), "interval": between}


def _rank(n: int, percent: float) -> int:
    return min(max(1, math.ceil(n * percent / 100)), n)


def levels(n: float, share: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the quantile levels between which that of ``share`` lies, by order statistics of n independent values.

    How many of n values lie below a quantile is binomial, whatever they are distributed like (David and Nagaraja,
    Order Statistics, 7.1). A level below 1/n or above 1 means that n values do not bound it on that side.

    Args:
        n: Independent values; need not be whole.
        share: 0..1.
        confidence: That it lies between the two, at least.

    Example:
        >>> [round(level * 100) for level in levels(100, 0.5)]  # ranks 40 and 61
        [40, 61]
    """
    trials = max(1, math.floor(n))
    spread = math.sqrt(trials * share * (1 - share))
    first = max(0, math.floor(trials * share - 8 * spread - 8))
    last = min(trials, math.ceil(trials * share + 8 * spread + 8))
    whole = math.lgamma(trials + 1)
    below, low, high = 0.0, first, last + 1
    tail = (1 - confidence) / 2
    for k in range(first, last + 1):
        chance = whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        chance = math.exp(chance + k * math.log(share) + (trials - k) * math.log(1 - share))
        below += chance
        if below <= tail:
            low = k + 1
        if below >= 1 - tail:
            high = k + 1
            break
    if low > trials * share:  # so few values that no rank is low enough
        low = 0
    return low / trials, high / trials


def inefficiency(values: FloatArray64) -> float:
    """Return how many values in a row are worth one independent value, at least 1.

    Latencies come in bursts, so n of them tell less than n draws would. The larger of two: one plus twice the sum of
    the correlations, cut where pairs of them stop being positive (Geyer, Practical Markov Chain Monte Carlo, 1992),
    which sees bursts; and by how much more the means of five blocks differ than those of independent values do, which
    sees a machine that changes while it is measured.

    Args:
        values: float64 [n], in the order in which they came.
    """
    n = len(values)
    centred = values - values.mean() if n else values
    power = float(centred @ centred)
    if n < 4 * _BLOCKS or power <= 0:
        return 1.0
    size = n // _BLOCKS
    means = centred[: _BLOCKS * size].reshape(_BLOCKS, size).mean(axis=1)
    return max(_bursts(centred, power), size * float(means.var(ddof=1)) / (power / n), 1.0)


def _bursts(centred: FloatArray64, power: float) -> float:
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[: n // 2] / power
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    kept = pairs[: ends[0]] if len(ends) else pairs
    return float(2 * kept.sum() - 1)
