"""Latency by step and drops by cause, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from mmedge._native import core
from mmedge.learn import learn

if TYPE_CHECKING:
    from mmedge.fusion.upgrade import Swap

# One bucket is 1 % wide.
_RATIO = math.log(1.01)
_BUCKETS = 2400  # as in native/statistics/histogram.hpp
FloatArray64 = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
STEPS = ("deliver", "ready", "preprocessed", "inferred", "interpreted", "sink")


class Histogram(core.Histogram):
    """Durations in buckets 1 % wide: percentiles of a run of any length, no allocation per value.

    Attributes:
        n: How many there are.
        max_ns: The longest one.
        sum_ns: All of them together.
    """

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in ms, exact to 1 %."""
        if not self.n:
            return math.nan
        rank = max(1, math.ceil(self.n * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self.counts()), rank))
        return min(math.exp((bucket + 0.5) * _RATIO) * 1e-3, self.max_ns / 1e6)

    def below(self, bounds_s: Sequence[float]) -> list[tuple[float, int]]:
        """Return each bound, in seconds, and how many durations lie below it.

        A bound is moved to the nearest edge of a bucket, so that the counts are exact; the last one is infinite.

        Example:
            >>> h = Histogram(); h.add(2_000_000); [n for _, n in h.below([0.001, 0.01])]
            [0, 1, 1]
        """
        total = np.concatenate([[0], np.cumsum(self.counts())])
        edges = [min(max(round(math.log(bound * 1e6) / _RATIO), 0), _BUCKETS) for bound in bounds_s]
        below = [(math.exp(edge * _RATIO) * 1e-6, int(total[edge])) for edge in edges]
        return [*below, (math.inf, int(total[-1]))]

    @property
    def sum_ms(self) -> float:
        """All durations together, in ms."""
        return self.sum_ns / 1e6

    def buckets(self) -> tuple[FloatArray64, IntArray]:
        """Return the buckets that hold anything, for a histogram of your own.

        Returns:
            The upper bound of each in ms, float64 [k], rising, and how many durations it holds, int64 [k]; copies. What
            is at most 1 us is in the first bucket.

        Example:
            >>> h = Histogram(); h.add(2_000_000); h.add(2_001_000); h.add(9_000_000)
            >>> upper_ms, counts = h.buckets()
            >>> upper_ms.round(1).tolist(), counts.tolist()
            ([2.0, 9.1], [2, 1])
        """
        counts = self.counts()
        used = np.flatnonzero(counts)
        return np.exp((used + 1) * _RATIO) * 1e-3, counts[used]

    def dump(self) -> tuple[list[int], list[int], int, int]:
        """Return everything it knows, as plain numbers."""
        counts = self.counts()
        used = np.flatnonzero(counts)
        return used.tolist(), counts[used].tolist(), self.sum_ns, self.max_ns

    def load(self, dump: tuple[list[int], list[int], int, int]) -> None:
        """Become what ``dump`` was made of."""
        self.replace(*dump)

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (type(self), self.dump())

    def summary(self) -> Percentiles:
        """Return n, mean, those of p50, p90, p99 and p99.9 that n values can show, and max."""
        return Percentiles(self)


def _loaded(kind: type[Histogram], dump: tuple[list[int], list[int], int, int]) -> Histogram:
    histogram = kind()
    histogram.load(dump)
    return histogram


def values_needed(percent: float) -> int:
    """Return how many values a percentile needs: one of them must be expected above it.

    Of fewer, what would be printed as that percentile is the maximum under another name.

    Example:
        >>> [values_needed(percent) for percent in (50, 90, 99, 99.9)]
        [2, 10, 100, 1000]
    """
    return round(100 / (100 - percent))


class Durations(Protocol):
    """What percentiles are told of."""

    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def sum_ns(self) -> int: ...  # noqa: D102
    @property
    def max_ns(self) -> int: ...  # noqa: D102
    def percentile_ms(self, percent: float) -> float: ...  # noqa: D102


class Percentiles:
    """A histogram's figures in ms, as attributes and as a dict; a percentile that n values cannot show is NaN.

    Attributes:
        n: How many values there are; ``values_needed`` says how many a percentile needs.

    Example:
        >>> h = Histogram(); h.add(2_000_000); h.summary().max, h.summary().p50
        (2.0, nan)
    """

    def __init__(self, histogram: Durations) -> None:
        def told(percent: float) -> float:
            return histogram.percentile_ms(percent) if histogram.n >= values_needed(percent) else math.nan

        self.n = histogram.n
        self.mean = histogram.sum_ns / histogram.n / 1e6 if histogram.n else math.nan
        self.p50, self.p90, self.p99, self.p999 = told(50), told(90), told(99), told(99.9)
        self.max = histogram.max_ns / 1e6 if histogram.n else math.nan

    def to_dict(self) -> dict[str, float | None]:
        """Return the figures rounded to 1 us; None for what n values cannot show."""
        values = {
            "p50": self.p50,
            "p90": self.p90,
            "p99": self.p99,
            "p99.9": self.p999,
            "max": self.max,
            "mean": self.mean,
        }
        rounded = {k: None if math.isnan(v) else round(v, 3) for k, v in values.items()}
        return {**rounded, "n": self.n}


def told(value: float | None, digits: int = 2) -> str:
    """Return a figure for people: ``-`` for one that n values cannot show."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


class Statistics:
    """Counts and latencies of one run; written by the runtime, read when it ends (or in between)."""

    def __init__(self) -> None:
        self.end_to_end = Histogram()
        self.overhead = Histogram()
        self.received = Histogram()
        self.steps = {step: Histogram() for step in STEPS}
        self.skew = Histogram()
        self.uncertainty = Histogram()
        self.stamps = Histogram()  # bounds on the error of capture times, so of `deliver` and `end_to_end`
        self.triggers = 0
        self.results = 0
        self.unvalidated = 0
        self.drops: dict[str, int] = {}
        self.lost_samples: dict[str, int] = {}
        self.absent: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.stage_errors: dict[str, int] = {}
        self.stage_overruns: dict[str, int] = {}
        self.unwanted = 0  # results that the reader did not take from the runtime in time
        self.unread = 0  # and from this process
        self.unaccounted = 0
        self.notes: list[str] = []
        self.backends: dict[str, str] = {}
        self.startup_ms: dict[str, float] = {}  # loading engines, testing them, opening sources
        self.swaps: list[dict[str, object]] = []
        self.bundles: list[dict[str, object]] = []  # each that was to take over, and what came of it
        self.recording: dict[str, object] = {}
        self.sinks: dict[str, dict[str, Any]] = {}
        self.started_ns = self.started_unix_ns = 0  # one instant on both clocks
        self.state = "LOADING"
        self.evidence = "cpu"

    def times(self, origin: Literal["capture", "delivery", "call"]) -> core.TriggerTimes:
        """Return what counts the times of each trigger here; ``origin`` is from when latency counts."""
        steps = self.steps
        return core.TriggerTimes(
            origin,
            end_to_end=self.end_to_end,
            overhead=self.overhead,
            deliver=steps["deliver"],
            ready=steps["ready"],
            preprocessed=steps["preprocessed"],
            inferred=steps["inferred"],
            interpreted=steps["interpreted"],
            stamps=self.stamps,
            skew=self.skew,
            uncertainty=self.uncertainty,
        )

    def tell_swaps(self, swaps: Sequence[Swap], backends: Mapping[str, str]) -> None:
        """Tell which engines took the place of others, and what serves now; ``evidence`` stays that of the start."""
        for swap in swaps[len(self.swaps) :]:
            note = f"stage '{swap.stage}' ran on {swap.before} for {swap.after_s:.1f} s, and on {swap.after} since"
            self.notes = [*self.notes, note]
        self.swaps = [asdict(swap) for swap in swaps]
        self.backends = dict(backends)

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Every histogram by its name: ``end_to_end``, ``received``, ``overhead``, ``skew``, ... and the steps'.

        Example:
            >>> sorted(Statistics().histograms)[:3]
            ['deliver', 'end_to_end', 'inferred']
        """
        return {**self._histograms(), "received": self.received, "sink": self.steps["sink"]}

    def _histograms(self) -> dict[str, Histogram]:
        # Reader and sinks are in the user's process, so their times never cross a process border.
        steps = {name: h for name, h in self.steps.items() if name != "sink"}
        return {
            "end_to_end": self.end_to_end,
            "overhead": self.overhead,
            "skew": self.skew,
            "uncertainty": self.uncertainty,
            "stamps": self.stamps,
            **steps,
        }

    def encode(self) -> bytes:
        """Return everything but the sinks' times, for another process."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, (int, str, dict, list))}
        for own in ("steps", "sinks", "unread"):  # of the process that reads
            del plain[own]
        histograms = {name: (h.pack(), h.sum_ns, h.max_ns) for name, h in self._histograms().items()}
        return msgspec.msgpack.encode((plain, histograms))

    def update(self, data: bytes) -> None:
        """Become what another process encoded."""
        plain, histograms = msgspec.msgpack.decode(
            data, type=learn(tuple[dict[str, Any], dict[str, tuple[bytes, int, int]]])
        )
        vars(self).update(plain)
        for name, histogram in self._histograms().items():
            histogram.unpack(*histograms[name])

    @property
    def undelivered(self) -> int:
        """Results that were not read in time."""
        return self.unwanted + self.unread

    @property
    def dropped(self) -> int:
        """Triggers that gave no result, all causes."""
        return sum(self.drops.values())

    @property
    def clock(self) -> dict[str, int]:
        """The run's pair of times: ``unix_ns`` of a result is ``t_ns`` + this ``unix_ns`` - this ``t_ns``."""
        return {"t_ns": self.started_ns, "unix_ns": self.started_unix_ns}

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain data."""
        return {
            "latency_ms": {
                "end_to_end": self.end_to_end.summary().to_dict(),
                "overhead": self.overhead.summary().to_dict(),
                **({"received": self.received.summary().to_dict()} if self.received.n else {}),
                "steps": {name: h.summary().to_dict() for name, h in self.steps.items() if h.n},
                **({"stamp_uncertainty": self.stamps.summary().to_dict()} if self.stamps.n else {}),
            },
            "skew_ms": self.skew.summary().to_dict(),
            "uncertainty_ms": self.uncertainty.summary().to_dict(),
            "triggers": self.triggers,
            "results": self.results,
            "unvalidated": self.unvalidated,
            "drops": dict(self.drops),
            "lost_samples": dict(self.lost_samples),
            "absent": dict(self.absent),
            "refused": dict(self.refused),
            "stage_errors": dict(self.stage_errors),
            "stage_overruns": dict(self.stage_overruns),
            "undelivered": self.undelivered,
            "unaccounted": self.unaccounted,
            "notes": list(self.notes),
            "backends": dict(self.backends),
            **({"swaps": list(self.swaps)} if self.swaps else {}),
            **({"bundles": list(self.bundles)} if self.bundles else {}),
            **({"recording": dict(self.recording)} if self.recording else {}),
            **({"sinks": {name: dict(report) for name, report in self.sinks.items()}} if self.sinks else {}),
            **({"clock": self.clock} if self.started_unix_ns else {}),
            "state": self.state,
            "evidence": self.evidence,
        }
