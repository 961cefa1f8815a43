"""Results made by hand, for tests of what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mmedge.types import Result, TaskResult

STEP_NS = 40_000_000


def made(n: int, *, t_ns: int | None = None, **tasks: TaskResult | str | None) -> Result:
    """Return result number ``n`` of 25 a second; a task is a label, or all of it."""
    at_ns = n * STEP_NS if t_ns is None else t_ns
    answers: Mapping[str, TaskResult] = {
        name: task if isinstance(task, TaskResult) else TaskResult(label=task, score=0.9)
        for name, task in tasks.items()
    }
    return Result(
        t_ns=at_ns,
        unix_ns=at_ns + 1_000,
        status="ok",
        tasks=dict(answers),
        present={"image": True},
        age_ms={"image": 0.0},
        skew_ms=0.0,
        uncertainty_ms=0.0,
        latency_ms={"end_to_end": 5.0},
        epoch={"image": 0},
    ).attach({}, from_ns=time.monotonic_ns())
