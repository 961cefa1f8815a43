"""What goes to the page: one binary message, a JSON header and what it refers to behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mmedge.bundle.manifest import AudioInput, Ema, Hysteresis, ImageInput, Input, Smoothing, Task
from mmedge.pipeline import Statistics
from mmedge.pipeline.statistics import Histogram
from mmedge.types import TaskResult
from mmedge.view.sound import BANDS, COLUMNS_PER_S, Column

SCHEMA = "mmedge.view/1"
STEPS = ("deliver", "ready", "preprocessed", "inferred", "interpreted")
_BOXES = 50  # of one task that are drawn
_BINS = 6  # of the histogram to a doubling


def packed(header: Mapping[str, Any], blobs: Iterable[bytes] = ()) -> bytes:
    r"""Return one message: the length of the header in 4 bytes, the header, the blobs in the order of the header.

    Example:
        >>> packed({"a": 1}, [b"xy"])
        b'\x07\x00\x00\x00{"a":1}xy'
    """
    head = msgspec.json.encode(header)
    return b"".join((len(head).to_bytes(4, "little"), head, *blobs))


def hello(
    name: str,
    inputs: Mapping[str, Input],
    tasks: Mapping[str, Task | None],
    *,
    live: bool,
    privacy: str,
    typed: list[str],
) -> dict[str, Any]:
    """Return the first header of a connection: what there is to see."""
    seats: dict[str, dict[str, Any]] = {}
    for seat, spec in inputs.items():
        kind = type(spec).__name__.removesuffix("Input").lower()
        seats[seat] = {"modality": kind}
        if isinstance(spec, AudioInput):
            seats[seat] |= {"window_ms": spec.window_ms, "rate_hz": spec.sample_rate_hz}
    return {
        "kind": "hello",
        "schema": SCHEMA,
        "name": name,
        "live": live,
        "privacy": privacy,
        "inputs": seats,
        "tasks": {task: {"smoothing": "" if spec is None else _smoothing(spec)} for task, spec in tasks.items()},
        "pictures": [seat for seat, spec in inputs.items() if isinstance(spec, ImageInput)],
        "sounds": [seat for seat, spec in inputs.items() if isinstance(spec, AudioInput)],
        "typed": typed,
        "steps": list(STEPS),
        "bands": BANDS if privacy == "picture" else 0,
        "columns_per_s": COLUMNS_PER_S,
    }


def _smoothing(task: Task) -> str:
    """Say how a task's answers are smoothed, in short."""
    given = task.smoothing if isinstance(task.smoothing, tuple) else (task.smoothing,)
    said = [_one_smoothing(each) for each in given if each is not None]
    if task.threshold:
        said.append(f"threshold {task.threshold:g}")
    return ", ".join(said)


def _one_smoothing(each: Smoothing) -> str:
    if isinstance(each, Ema):
        return f"ema {each.tau_ms:g} ms"
    if isinstance(each, Hysteresis):
        return f"taken at {each.enter:g}, kept to {each.leave:g}"
    return f"held {each.hold_ms:g} ms"


def row(
    number: int,
    t_ms: float,
    *,
    valid: bool,
    tasks: Mapping[str, TaskResult],
    present: Mapping[str, bool],
    age_ms: Mapping[str, float],
    skew_ms: float,
    uncertainty_ms: float,
    latency_ms: Mapping[str, float],
    reason: str | None,
) -> dict[str, Any]:
    """Return one trigger as the page draws it; NaN never gets into it."""
    return {
        "n": number,
        "t": round(t_ms, 3),
        "valid": valid,
        "tasks": {name: _answer(task) for name, task in tasks.items()},
        "present": present,
        "age": age_ms,
        "skew": skew_ms,
        "unc": uncertainty_ms,
        "ms": [latency_ms.get(step, 0.0) for step in STEPS],
        "total": latency_ms.get("end_to_end"),
        "reason": reason,
    }


def _answer(task: TaskResult) -> list[Any]:
    """Return what a task says: text, score, and by what it is coloured, a label, or its number."""
    if task.value is not None:
        return [f"{task.value:.4g} {task.unit}".rstrip(), None, finite(task.value)]
    said = f"{len(task.boxes)} x {task.label}" if len(task.boxes) > 1 else task.label
    return [said, finite(task.score), task.label]


def boxes(tasks: Mapping[str, TaskResult]) -> list[list[Any]]:
    """Return the boxes of all tasks: task, label, score and corners in 0..1 of the picture."""
    return [
        [name, box.label, finite(box.score), box.x1, box.y1, box.x2, box.y2]
        for name, task in tasks.items()
        for box in task.boxes[:_BOXES]
    ]


def finite(value: float | None) -> float | None:
    """Return a number that JSON has, or None.

    Example:
        >>> finite(float("nan")) is None
        True
    """
    return value if value is not None and math.isfinite(value) else None


def columns(name: str, found: list[Column], started_ns: int) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of columns of sound."""
    times = [round((column.end_ns - started_ns) / 1e6, 1) for column in found]
    data = b"".join(column.data for column in found)
    return {"input": name, "t": times, "bytes": len(data)}, data


def figures(statistics: Statistics) -> dict[str, Any]:
    """Return counts and latencies of a run so far."""
    return {
        "state": statistics.state,
        "evidence": statistics.evidence,
        "results": statistics.results,
        "triggers": statistics.triggers,
        "unvalidated": statistics.unvalidated,
        "end_to_end": statistics.end_to_end.summary().to_dict(),
        "stamps_ms": finite(statistics.stamps.summary().p50),
        "steps": {step: statistics.steps[step].summary().to_dict() for step in STEPS if statistics.steps[step].n},
        "histogram": bins(statistics.end_to_end),
        "drops": {cause: n for cause, n in statistics.drops.items() if n},
        "lost": {
            "sound samples": sum(statistics.lost_samples.values()),
            "refused packets": sum(statistics.refused.values()),
            "stage failures": sum(statistics.stage_errors.values()),
            "results not read": statistics.undelivered,
        },
        "notes": list(statistics.notes)[-3:],
    }


def bins(histogram: Histogram) -> list[tuple[float, int]]:
    """Return from how many ms on each bin counts, and how many values it holds; six bins to a doubling.

    Example:
        >>> h = Histogram(); h.add(4_000_000); [count for _, count in bins(h)]
        [1]
    """
    used, counts, _, _ = histogram.dump()
    found: dict[int, int] = {}
    for bucket, count in zip(used, counts, strict=True):
        middle_ms = 1e-3 * 1.01 ** (bucket + 0.5)
        place = math.floor(math.log2(middle_ms) * _BINS)
        found[place] = found.get(place, 0) + count
    return [(round(2 ** (place / _BINS), 4), count) for place, count in sorted(found.items())]
