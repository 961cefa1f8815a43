"""What the runtime is to reach, figure by figure, and how runs in turn become one figure."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.harness import BenchmarkReport, Row, host
from benchmarks.limits import GOALS
from mmedge.types import Evidence


def limits(targets: Mapping[str, float]) -> dict[str, str]:
    """Return the limit of each figure, as text."""
    return {name: "{} {:g}".format(*GOALS[name]) for name in targets}


def missed(targets: Mapping[str, float]) -> list[str]:
    """Return the names of the figures beyond their limits; one that is not a number is.

    Example:
        >>> missed({"streams_30fps": 12, "busy_frames_done": 1.0, "replay_x": float("nan")})
        ['streams_30fps', 'replay_x']
    """
    reached = {
        name: value <= GOALS[name][1] if GOALS[name][0] == "<=" else value >= GOALS[name][1]
        for name, value in targets.items()
    }
    return [name for name, good in reached.items() if not good]


def judged(
    *,
    name: str,
    title: str,
    conditions: Mapping[str, str | int | float],
    rows: Sequence[Row],
    targets: Mapping[str, float],
    goals: Mapping[str, float] | None = None,
    evidence: Evidence = "cpu",
    quick: bool = False,
) -> BenchmarkReport:
    """Return the report of a benchmark, its figures held against their limits.

    Args:
        name: Of the benchmark.
        title: What it measures.
        conditions: How.
        rows: What came of it.
        targets: The figures.
        goals: Those of them that have a limit; all, if left out.
        evidence: What they rest on.
        quick: A quick look judges nothing: its figures are of too little.
    """
    limited = targets if goals is None else goals
    return BenchmarkReport(
        name=name,
        title=title,
        host=host(),
        conditions=dict(conditions),
        evidence=evidence,
        rows=list(rows),
        targets=dict(targets),
        limits=limits(limited),
        missed=[] if quick else missed(limited),
    )


def summed_up(
    what: str,
    unit: str,
    ours: Sequence[float],
    peers: Mapping[str, Sequence[float]] | None = None,
    *,
    beside: Mapping[str, Sequence[float]] | None = None,
    is_share: bool = False,
) -> Row:
    """Return the row of runs that were made in turn: medians, the quartiles of ours, the best of the peers over ours.

    Args:
        what: What was measured.
        unit: Of all values.
        ours: A value of each run.
        peers: Name -> its values.
        beside: Name -> values of what is no peer: a bound, the same without.
        is_share: More is better, and a ratio says nothing.
    """
    medians, marks = (
        {name: statistics.median(values) for name, values in (given or {}).items()} for given in (peers, beside)
    )
    middle, quartiles = statistics.median(ours), None
    if len(ours) > 1:
        low, _, high = statistics.quantiles(ours, n=4)
        quartiles = low, high
    best = None if is_share else min(medians.values(), default=None)
    ratio = best / middle if best is not None and middle else None
    return Row(what, unit, middle, {**medians}, ratio, beside={**marks}, n=len(ours), quartiles=quartiles)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over the runs of ours in parts of theirs: what changes the machine's speed meets both."""
    return statistics.median(a / b if b else float("nan") for a, b in zip(ours, theirs, strict=True))


def load() -> str:
    """Return how busy the machine was: the mean numbers of processes that ran or wanted to, of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
