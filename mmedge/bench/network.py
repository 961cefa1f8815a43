"""A latency benchmark of one ONNX network: calls at a rate that the network cannot slow down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np

from mmedge.bench.machine import facts
from mmedge.bench.report import Rate, Report
from mmedge.bench.run import check_asked
from mmedge.bench.schedule import Arrivals, Feed, PoissonFeed, exact_period_ns
from mmedge.bench.tally import Answer, OpenLoop
from mmedge.bench.warm_up import MOST_S, WarmUp
from mmedge.bench.watch import Watch
from mmedge.engine.base import Engine
from mmedge.engine.load import load_engine
from mmedge.engine.shapes import Given
from mmedge.errors import ConfigError
from mmedge.fusion.evidence import evidence_of
from mmedge.pipeline import Statistics
from mmedge.types import AnyArray, Backend

STAGE = "network"  # its name among the stages
RING = 4  # inputs that are given in turn
_GRACE = 2  # it may take this many times the measured time to answer what was due in it
_SPIN_NS = 200_000  # before a call is due; a sleep ends that much late


def bench_network(
    path: str | Path,
    duration_s: float = 30.0,
    *,
    backend: Backend = "auto",
    fps: float = 30.0,
    arrivals: Arrivals = "fixed",
    seed: int = 0,
    threads: int = 1,
    shapes: Given | None = None,
    warm_up_s: float = MOST_S,
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Measure one network by itself, in this process: an open loop of calls, each with other inputs.

    A call that is due while another one runs waits; ``end_to_end`` counts from when it was due. Inputs are seeded
    noise, zeros where they are whole numbers.

    Args:
        path: The ONNX file.
        duration_s: How long to measure, the warm-up apart.
        backend: As ``load_engine`` has it.
        fps: Calls a second.
        arrivals: ``fixed``: evenly; ``poisson``: at random, at the same mean rate.
        seed: Of random arrivals.
        threads: Threads of the CPU backend.
        shapes: As ``load_engine`` has it.
        warm_up_s: It is measured when latencies are steady, after this time at the latest.
        progress: Called with the share done, 0..1.

    Returns:
        The report; ``report.stages_ms["network"]["engine"]`` is the engine alone.

    Raises:
        MmedgeError: As ``load_engine`` does.

    Example:
        >>> bench_network("model.onnx", 5).stages_ms["network"]["engine"].p50  # doctest: +SKIP
        5.9
    """
    check_asked(duration_s, fps, seed, warm_up_s)
    conditions = facts()
    began_s = time.monotonic()
    with closing(load_engine(path, backend, threads=threads, shapes=shapes)) as engine:
        loaded_ms = round(1e3 * (time.monotonic() - began_s), 1)
        statistics = Statistics()
        statistics.backends, statistics.evidence = {STAGE: engine.backend}, evidence_of([engine.backend])
        watch = Watch(lambda: statistics, dict)
        try:
            period_ns = exact_period_ns(fps)
            feed = (
                PoissonFeed(name=STAGE, period_ns=period_ns, first_ns=0, seed=seed)
                if arrivals == "poisson"
                else Feed(name=STAGE, period_ns=period_ns, first_ns=0)
            )
            tally, warm_up, from_ns, start_ns = _calls(
                engine, feed, duration_s, warm_up_s, watch, progress or (lambda share: None)
            )
            seen, processes = watch.end(tally.answered)
        finally:
            watch.close()
        if not tally.answered:
            raise ConfigError(
                "nothing was measured: no call ended in the measured time",
                where="duration_s",
                fix="measure for longer, or ask for a lower --fps",
            )
    statistics.results = statistics.triggers = tally.answered
    return Report(
        bundle=Path(path).name,
        conditions={
            "duration_s": duration_s,
            "warm_up_s": round((from_ns - start_ns) / 1e9, 3),
            "settled": warm_up.settled,
            "inputs": f"{arrivals} calls, {fps:g} a second"
            + "".join(f"; {name} {'x'.join(map(str, array.shape))}" for name, array in engine.inputs.items()),
            "isolation": "thread",
            "threads": threads,
            "backends": statistics.backends,
            **conditions,
            **seen,
        },
        statistics=statistics,
        tally=tally,
        rate=Rate(asked_hz=fps, measured_s=duration_s, from_ns=from_ns, due=tally.due, answered=tally.answered),
        startup_ms={"load": loaded_ms, "until settled": round((from_ns - start_ns) / 1e6, 1)},
        processes=processes,
        problems=watch.conditions.problems,
    )


def _calls(
    engine: Engine, feed: Feed, duration_s: float, warm_up_s: float, watch: Watch, progress: Callable[[float], None]
) -> tuple[OpenLoop, WarmUp, int, int]:
    rings = {name: _ring(array) for name, array in engine.inputs.items()}
    start_ns = time.monotonic_ns()
    tally = OpenLoop((start_ns + feed.due_ns(number) for number in count()), float(feed.period_ns), (STAGE,))
    warm_up = WarmUp(start_ns, float(feed.period_ns), warm_up_s)
    duration_ns = round(duration_s * 1e9)
    from_ns = until_ns = 0
    for number in count():
        due_ns = start_ns + feed.due_ns(number)
        if until_ns and due_ns >= until_ns:
            break
        _wait(due_ns)
        answer = _call(engine, rings, number, due_ns)
        if not until_ns:
            if warm_up.over(answer.done_ns, (answer.done_ns - due_ns) / 1e6):
                from_ns, until_ns = answer.done_ns, answer.done_ns + duration_ns
                tally.begin(from_ns, until_ns)
                watch.begin()
        elif answer.done_ns > from_ns + _GRACE * duration_ns:
            break
        tally.note(answer)
        progress(min(1.0, max(0.0, (due_ns - from_ns) / duration_ns)) if until_ns else 0.0)
    tally.close(time.monotonic_ns())
    return tally, warm_up, from_ns, start_ns


def _call(engine: Engine, rings: Mapping[str, AnyArray], number: int, due_ns: int) -> Answer:
    start_ns = time.monotonic_ns()
    for name, array in engine.inputs.items():
        array[...] = rings[name][number % RING]
    fed_ns = time.monotonic_ns()
    engine.run()
    done_ns = time.monotonic_ns()
    return Answer.of_call(due_ns, start_ns, fed_ns, done_ns)


def _wait(due_ns: int) -> None:
    left_ns = due_ns - time.monotonic_ns() - _SPIN_NS
    if left_ns > 0:
        time.sleep(left_ns / 1e9)
    while time.monotonic_ns() < due_ns:
        pass


def _ring(array: AnyArray) -> AnyArray:
    """Return what an input is given in turn, [RING, ...] of its dtype."""
    shape = (RING, *array.shape)
    if array.dtype.kind != "f":
        return np.zeros(shape, array.dtype)
    return np.random.default_rng(0).normal(0, 1, shape).astype(array.dtype)
