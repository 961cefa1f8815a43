"""What every benchmark shares: interleaved timing, the JSON document, the table, the two options."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.limits import good_side
from mmedge.engine.cpu import instruction_sets
from mmedge.types import Evidence

HEADS = ("what", "n", "mmedge", "peers", "best peer / ours", "beside it, no peers")
Peers: TypeAlias = Mapping[str, Callable[[], object] | None]


class Timing(msgspec.Struct, frozen=True):
    """Times of one candidate in microseconds; the spread is that of the middle half."""

    median: float
    p25: float
    p75: float
    n: int


class Row(msgspec.Struct, frozen=True):
    """One comparison.

    Attributes:
        what: Was measured.
        unit: Of all values.
        ours: The value, a median where it was measured ``n`` times.
        peers: Others' programs that do the same; one that is missing is None.
        ratio: The best peer's value over ours; None where that says nothing.
        timings: Of those that were timed call by call.
        beside: What is no peer: our own other forms, bounds, the same without.
        n: How often it was measured, where ``timings`` does not say.
        quartiles: Between them lies the middle half of these values.
    """

    what: str
    unit: str
    ours: float
    peers: dict[str, float | None]
    ratio: float | None
    timings: dict[str, Timing] = {}
    beside: dict[str, float | None] = {}
    n: int | None = None
    quartiles: tuple[float, float] | None = None


class BenchmarkReport(msgspec.Struct, frozen=True):
    """The document that ``--json`` prints."""

    name: str
    title: str
    host: dict[str, str | int]
    conditions: dict[str, str | int | float]
    evidence: Evidence
    rows: list[Row]
    targets: dict[str, float]
    missed: list[str] = []  # names of figures that are beyond their limit
    limits: dict[str, str] = {}  # figure -> its limit, where one is set: "<= 120"
    schema: Literal["mmedge.benchmark/1"] = "mmedge.benchmark/1"


def host() -> dict[str, str | int]:
    """Return what matters about this machine, without its name."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if ":" in line
    )
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return {
        "cpu": named.get("model name", named.get("CPU part", platform.machine())),
        "machine": platform.machine(),
        "instructions": " ".join(instruction_sets()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def versions(*distributions: str) -> dict[str, str | int | float]:
    """Return the versions of installed distributions, ``"missing"`` where one is not."""
    found: dict[str, str | int | float] = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, before: Callable[[], object] | None = None
) -> dict[str, Timing]:
    """Time candidates in turn, so that a change of the machine's speed meets all of them alike.

    Args:
        candidates: Name -> what to time.
        rounds: How often each is timed, after a tenth of that as warm-up.
        before: Called in front of each round, and not timed.

    Returns:
        The timing of each.
    """
    names = list(candidates)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-(rounds // 10) - 1, rounds):
        if before is not None:
            before()
        # Each round starts with another candidate: nobody always runs behind the same neighbour's cache.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start_ns = time.perf_counter_ns()
            candidates[name]()
            elapsed_ns = time.perf_counter_ns() - start_ns
            if turn >= 0:
                samples[name].append(elapsed_ns / 1000)
    result = {}
    for name, values in samples.items():
        p25, median, p75 = statistics.quantiles(values, n=4)
        result[name] = Timing(median=median, p25=p25, p75=p75, n=len(values))
    return result


def compare(
    what: str,
    ours: Callable[[], object],
    peers: Peers,
    rounds: int,
    before: Callable[[], object] | None = None,
    beside: Mapping[str, Callable[[], object]] | None = None,
) -> Row:
    """Time ours beside its peers; a peer that is None could not be installed and is named as missing."""
    present = {name: peer for name, peer in peers.items() if peer is not None}
    marks = dict(beside or {})
    timings = interleave({"mmedge": ours, **present, **marks}, rounds=rounds, before=before)
    best = min((timings[name].median for name in present), default=None)
    return Row(
        what=what,
        unit="us",
        ours=timings["mmedge"].median,
        peers={name: timings[name].median if name in present else None for name in peers},
        ratio=best / timings["mmedge"].median if best is not None else None,
        timings=timings,
        beside={name: timings[name].median for name in marks},
    )


def main(measure: Callable[[bool], BenchmarkReport]) -> None:
    """Run one benchmark from the command line: a table, or with ``--json`` the document.

    It ends with exit code 1 if a figure misses its limit.

    Args:
        measure: Called with whether to be quick.
    """
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    options = parser.parse_args()
    report = measure(options.quick)
    if options.json:
        print(msgspec.json.encode(report, enc_hook=float).decode())  # numpy numbers
    else:
        show(report)
    if report.missed:
        sys.exit(1)


def show(report: BenchmarkReport) -> None:
    """Print the report as a table that says what was measured and how."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(*HEADS, title=report.title, title_justify="left")
    for row in report.rows:
        table.add_row(row.what, *cells(row))
    console.print(table)
    facts = {**report.host, **report.conditions, "evidence": report.evidence}
    console.print("; ".join(f"{key}: {value}" for key, value in facts.items()), highlight=False)
    for name in report.targets:
        console.print(figure(report, name), highlight=False)
    for name in report.missed:
        console.print(f"{name} misses its limit", style="red", highlight=False)


def figure(report: BenchmarkReport, name: str, mark: str = "") -> str:
    """Return a figure with its limit or the side that is good, its name between marks."""
    told = f"target {report.limits[name]}" if name in report.limits else good_side(name)
    return f"{mark}{name}{mark} = {report.targets[name]:.2f} ({told})"


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Return n, ours, peers, ratio and what stands beside, of a row, as text."""

    def text(name: str, value: float | None) -> str:
        if value is None:
            return "missing"
        timing = row.timings.get(name)
        scale = 1e-3 if row.unit == "ms" else 1.0  # timings are in microseconds
        digits = 0 if abs(value) >= (10 if timing and scale == 1.0 else 100) else 2
        middle = (timing.p25 * scale, timing.p75 * scale) if timing else row.quartiles if name == "mmedge" else None
        spread = "" if middle is None else f" ({middle[0]:.{digits}f}..{middle[1]:.{digits}f})"
        return f"{value:.{digits}f} {row.unit}{spread}"

    def lines(values: Mapping[str, float | None]) -> str:
        return "\n".join(f"{name}: {text(name, value)}" for name, value in values.items())

    n = row.timings["mmedge"].n if "mmedge" in row.timings else row.n
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return "" if n is None else str(n), text("mmedge", row.ours), lines(row.peers), ratio, lines(row.beside)
