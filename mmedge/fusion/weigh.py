"""Measure the speed and error of INT8 on this CPU against FP32, on the golden inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from mmedge.engine.cpu import instruction_sets
from mmedge.fusion.golden import self_test
from mmedge.fusion.stage import StageRunner
from mmedge.types import AnyArray

_RUNS = 9  # of which the median counts
_BUDGET_S = 0.2  # for all runs of one precision
CHOICE_RUNS, CHOICE_BUDGET_S = 51, 2.0  # of each form; for all forms of a stage, where what serves is chosen
_EXACT = 1e-3  # so far from the recorded answer FP32 may be, too


class Weight(NamedTuple):
    """One stage: milliseconds of a run, and the largest ``max|got - want| / max|want|`` of INT8's answers."""

    int8_ms: float
    fp32_ms: float
    error: float


def run_ms(*stages: StageRunner, runs: int = _RUNS, budget_s: float = _BUDGET_S) -> list[float]:
    """Return the median time of a run of each stage's engine on what its inputs hold, the stages in turn.

    Args:
        stages: To time.
        runs: Of each.
        budget_s: After it no further turn begins.
    """
    times: list[list[int]] = [[] for _ in stages]
    end = time.monotonic() + budget_s
    for turn in range(runs):
        first = turn % len(stages)  # nobody always runs behind the same neighbour's cache
        for place in (*range(first, len(stages)), *range(first)):
            before = time.perf_counter_ns()
            stages[place].engine.run()
            times[place].append(time.perf_counter_ns() - before)
        if time.monotonic() > end:
            break
    for stage in stages:
        stage.reset()
    return [median(taken) / 1e6 for taken in times]


def weigh(int8: StageRunner, fp32: StageRunner, golden: Mapping[str, AnyArray]) -> Weight:
    """Run a stage in both precisions on its golden samples. Arrays are [samples, ...] in the network's dtypes."""
    # No tolerance but the range itself: the INT8 stage has passed its own self-test.
    error = self_test(int8, golden, dict.fromkeys(int8.engine.outputs, 1.0), "int8")
    self_test(fp32, golden, dict.fromkeys(fp32.engine.outputs, 1.0), "fp32")
    int8_ms, fp32_ms = run_ms(int8, fp32)
    return Weight(int8_ms, fp32_ms, error)


def describe(weights: Sequence[Weight], precision: str = "int8", *, simulated: bool) -> str | None:
    """Return what to say of a precision here; None where it is neither slower nor less exact than FP32.

    Args:
        weights: One per stage that runs in it.
        precision: Its name.
        simulated: Whether a bundle without files of it for CPUs has TensorRT's simulated.
    """
    int8_ms, fp32_ms = (sum(times) for times in zip(*(weight[:2] for weight in weights), strict=True))
    error = max(weight.error for weight in weights)
    slower, inexact = int8_ms > fp32_ms, error > _EXACT
    if not slower and not inexact:
        return None
    sets = ", ".join(instruction_sets()) or "no 8-bit instructions known"
    what = f"TensorRT's {precision}, simulated" if simulated else precision
    found = f"{what} on this CPU ({sets}): {int8_ms:.3f} ms a pass, fp32 {fp32_ms:.3f} ms"
    if inexact:
        found += f"; its answers are up to {100 * error:.2g} % of their range off fp32's"
    return f"{found}: fp32 is the better choice, leave --precision out" if slower else found
