"""What the runtime adds to a fused trigger, beside two bare hops in C++, and how that grows.

The networks do next to nothing and their time is subtracted, as is the waiting for data: what remains is the runtime.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mmedge
from benchmarks.goals import judged, load, ratio, summed_up
from benchmarks.harness import BenchmarkReport, main, versions
from benchmarks.null_bundle import INPUTS, null_bundle
from benchmarks.partners.hops import build, hops_us
from mmedge.types import Result

SETTLE_S = 1.5
FURTHER = 16
SHORT, LONG = "7", "seven " * 10_000  # 60,000 letters
TEXT_NS, NEW_NS = 1_000_000_000, 300_000_000  # how long a text stays, and how long it may be new
WINDOWS_MS = 1000, 10_000


class Costs(NamedTuple):
    """Of each trigger of a run, in us: without preprocessing, with it, in the user's hands; of preprocessing alone."""

    core: list[float]
    whole: list[float]
    user: list[float]
    preprocessing: list[float]


class Case(NamedTuple):
    """A bundle, how long its run is watched, and how long it settles before."""

    bundle: Path
    seconds: float
    settle_s: float


def watched(case: Case, text: str | None = None) -> Iterator[tuple[mmedge.Pipeline, Result]]:
    """Run a bundle in processes of its own, as users do; yield its results while it is watched."""
    inputs = {**INPUTS, **({} if text is None else {"text": "push://"})}
    with mmedge.Pipeline(case.bundle, inputs, isolation="process") as pipe:
        if text is not None:
            pipe.text(text)
        begin_ns = end_ns = 0
        for result in pipe:
            if not all(result.present[name] for name in inputs):
                continue
            if not end_ns:
                begin_ns = result.t_ns + round(case.settle_s * 1e9)
                end_ns = begin_ns + round(case.seconds * 1e9)
            if result.t_ns >= end_ns:
                return
            if result.t_ns >= begin_ns:
                yield pipe, result


def run(case: Case) -> Costs:
    """Return what each trigger of a run costs."""
    return _costs([result for _, result in watched(case)])


def run_texts(case: Case) -> tuple[Costs, Costs]:
    """Return what triggers of one run cost beside a short and a long text, set in turn; a new one is left out."""
    found: tuple[list[Result], list[Result]] = ([], [])
    turn, since_ns = 0, 0
    for pipe, result in watched(case, SHORT):
        since_ns = since_ns or result.t_ns
        if result.t_ns - since_ns >= TEXT_NS:
            turn, since_ns = 1 - turn, result.t_ns
            pipe.text((SHORT, LONG)[turn])
        elif result.t_ns - since_ns >= NEW_NS:
            found[turn].append(result)
    return _costs(found[0]), _costs(found[1])


def _costs(results: list[Result]) -> Costs:
    if not results:
        raise RuntimeError("no trigger was answered while the run was watched: the machine is too busy")
    return Costs(*([1e3 * cost for cost in costs] for costs in zip(*map(_costs_ms, results), strict=True)))


def _costs_ms(result: Result) -> tuple[float, float, float, float]:
    said = result.latency_ms
    delivered = said["received"] - said["end_to_end"]
    return (
        said["overhead"] - said["preprocessed"],
        said["overhead"],
        said["overhead"] + delivered,
        said["preprocessed"],
    )


def cases(folder: Path, *, quick: bool) -> dict[str, Case]:
    """Write the bundles; return what is run in turn."""
    seconds, short_s = (1.0, 1.0) if quick else (10.0, 5.0)
    settle_s = 0.3 if quick else SETTLE_S
    base = null_bundle(folder / "base.mmedge", window_ms=WINDOWS_MS[0])
    stages = null_bundle(folder / "stages.mmedge", further=FURTHER)
    window = null_bundle(folder / "window.mmedge", window_ms=WINDOWS_MS[1])
    text = null_bundle(folder / "text.mmedge", text=True)
    full_s = settle_s if quick else settle_s + WINDOWS_MS[1] / 1e3  # the window has filled up
    return {
        "base": Case(base, seconds, settle_s),
        "stages": Case(stages, short_s, settle_s),
        "window": Case(window, short_s, full_s),
        "texts": Case(text, 3.0 if quick else seconds, settle_s),
    }


def targets_of(runs: Mapping[str, list[Costs]], bare: list[list[float]]) -> dict[str, float]:
    """Return the figures of runs that were made in turn."""

    def p50(name: str, part: str = "whole") -> list[float]:
        return [statistics.median(getattr(costs, part)) for costs in runs[name]]

    def p99(values: list[list[float]]) -> list[float]:
        return [float(np.percentile(each, 99)) for each in values]

    def more(name: str, than: str) -> float:
        return statistics.median(a - b for a, b in zip(p50(name), p50(than), strict=True))

    return {
        "overhead_core_p50_us": statistics.median(p50("base", "core")),
        "overhead_p50_us": statistics.median(p50("base")),
        "overhead_p99_vs_hops": ratio(p99([costs.whole for costs in runs["base"]]), p99(bare)),
        "user_overhead_p50_us": statistics.median(p50("base", "user")),
        "per_stage_us": more("stages", "base") / FURTHER,
        "window_cost_ratio": ratio(p50("window"), p50("base")),
        "old_text_us": more("long", "short"),
    }


def measure(quick: bool) -> BenchmarkReport:
    """Overhead of a trigger with null networks, beside two bare hops; cost of a stage, a window, an old text."""
    rounds = 1 if quick else 7
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        if program is None:
            sys.exit("a C++ compiler is missing; type: apt-get install g++")
        planned = cases(Path(folder), quick=quick)
        runs: dict[str, list[Costs]] = {name: [] for name in ("base", "stages", "window", "short", "long")}
        bare: list[list[float]] = []
        for turn in range(rounds):
            names = [*planned, "hops"]
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name == "hops":
                    bare.append(hops_us(program, planned["base"].seconds))
                elif name == "texts":
                    for which, costs in zip(("short", "long"), run_texts(planned[name]), strict=True):
                        runs[which].append(costs)
                else:
                    runs[name].append(run(planned[name]))
    rows = []
    for part, what in (
        ("core", "a fused trigger without preprocessing"),
        ("whole", "with it"),
        ("user", "at the user's process"),
        ("preprocessing", "preprocessing alone"),
    ):
        for percent in (50, 99):
            ours = [float(np.percentile(getattr(costs, part), percent)) for costs in runs["base"]]
            hops = {"two bare hops": [float(np.percentile(each, percent)) for each in bare]}
            rows.append(summed_up(f"{what}, p{percent}", "us", ours, {} if part == "preprocessing" else hops))
    for name, what in (
        ("stages", f"{FURTHER} further stages, p50"),
        ("window", f"a window of {WINDOWS_MS[1] / 1e3:g} s instead of {WINDOWS_MS[0] / 1e3:g} s, p50"),
        ("short", f"a text of {len(SHORT)} letter that is not new, p50"),
        ("long", f"a text of {len(LONG)} letters that is not new, p50"),
    ):
        rows.append(summed_up(what, "us", [statistics.median(costs.whole) for costs in runs[name]]))
    targets = targets_of(runs, bare)
    return judged(
        name="overhead",
        title="The runtime's own time a trigger: simulated camera (640x480, 30 fps) and microphone (16 kHz), real "
        "processes, networks that do next to nothing",
        conditions={
            "rounds": rounds,
            "triggers": sum(len(costs.whole) for costs in runs["base"]),
            "load before": before,
            "load after": load(),
            **versions("mmedge", "numpy", "onnxruntime"),
        },
        rows=rows,
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
