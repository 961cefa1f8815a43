"""Stages that take longer than a frame, and readers slower than the run: how old answers get, who is called absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmedge
from benchmarks.goals import judged
from benchmarks.harness import BenchmarkReport, Row, main, versions
from benchmarks.overload_rule import HOLD, STAGE_MS
from benchmarks.partners import queued
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import AudioInput, File, ImageInput, Manifest, Mask, Missing, Stage, Sync, Task
from mmedge.pipeline import values_needed
from mmedge.types import Result

FPS, HOP_MS = 30, 40.0
PERIOD_MS = 1000 / FPS
TIMES = (1.03, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0)  # of a frame
READER_S = 1 / 20
SETTLE_S = 1.0
RULE = "benchmarks.overload_rule"
CAMERA, MICROPHONE = f"test://?fps={FPS}&jitter_ms=1", "test://?seed=7&jitter_ms=1"


def bundle(folder: Path, trigger: str) -> Path:
    """Write a bundle of one picture, one sound and one stage that takes as long as it is told."""
    labels = b"no\nyes\n"
    manifest = Manifest(
        schema="mmedge.bundle/1",
        name="overload",
        licence="Apache-2.0",
        inputs={
            "image": ImageInput(size=(4, 4), color="gray", mean=(0.0,), std=(1.0,)),
            "audio": AudioInput(sample_rate_hz=16000, window_ms=100),
        },
        stages={
            "slow": Stage(
                callable=f"{RULE}:sleep",
                inputs={"image": "image", "audio": "audio"},
                outputs={"same": ("batch", 1)},
                timeout_ms=10_000,
            )
        },
        variants=(),
        tasks={"same": Task(kind="verification", output="slow.same", labels="labels.txt", threshold=0.5)},
        missing={"image": Missing(policy="hold", max_age_ms=300.0)},
        validated_masks=tuple(Mask(present=(n,), metric="none", value=0.0) for n in ("image", "audio")),
        sync=Sync(trigger=trigger, every_ms=HOP_MS),
        files={"labels.txt": File(sha256=hashlib.sha256(labels).hexdigest(), bytes=len(labels))},
    )
    return write_archive(folder / f"{trigger}.mmedge", manifest, {"labels.txt": labels})


def results(path: Path, duration_s: float, stage_ms: float, **options: str) -> Iterator[Result]:
    """Yield what a run in processes gives after it has settled; devices are simulated, everything else is real."""
    os.environ[STAGE_MS] = str(stage_ms)
    inputs = {"image": CAMERA, "audio": MICROPHONE}
    duration = SETTLE_S + duration_s
    given: Any = {"isolation": "process", "duration_s": duration, "allow": [RULE], **options}
    with mmedge.Pipeline(path, inputs, **given) as pipe:
        begin_ns = time.monotonic_ns() + round(SETTLE_S * 1e9)
        for result in pipe:
            if result.t_ns >= begin_ns:
                yield result


def p99(ages_ms: list[float]) -> float:
    """Return the 99th percentile, or the largest of so few values that they do not tell it."""
    return float(np.percentile(ages_ms, 99)) if len(ages_ms) >= values_needed(99) else max(ages_ms)


def slow_stage(path: Path, trigger: str, times: float, seconds: float, *, hold: bool = False) -> tuple[Row, float, int]:
    """Return a row, the share of the bound that p99 reached, and how often a device that delivers was absent."""
    os.environ[HOLD] = "1" if hold else "0"
    period_ms = HOP_MS if trigger in ("audio", "timer") else PERIOD_MS
    stage_ms = times * PERIOD_MS
    found = list(results(path, max(seconds, 4 * stage_ms / 1e3), stage_ms, latency="low"))
    ages = [result.latency_ms["end_to_end"] for result in found]
    worst = p99(ages)
    bound = 2 * stage_ms + period_ms
    absences = sum(not on for result in found for on in result.present.values())
    peers: dict[str, float | None] = {}
    if trigger == "image":
        for name, newest in (("queue", False), ("newest frame", True)):
            peers[name] = p99(queued.ages_ms(stage_ms / 1e3, seconds, newest=newest))
    kind = f"{times:g} frames{', holds the interpreter' if hold else ''}, trigger {trigger}"
    told = "p99" if len(ages) >= values_needed(99) else "largest"
    at_s = [result.t_ns / 1e9 for result in found]
    slope = float(np.polyfit(np.array(at_s) - at_s[0], ages, 1)[0]) if len(ages) > 2 else 0.0
    what = f"{kind}: {told} age (n = {len(ages)}, bound {bound:.0f}, absent {absences}, {slope:+.1f} ms/s)"
    best = min((value for value in peers.values() if value is not None), default=None)
    return Row(what, "ms", worst, peers, None if best is None else best / worst), worst / bound, absences


def slow_reader(path: Path, seconds: float) -> tuple[Row, float]:
    """Return how old results are in the hands of a 20 Hz reader: the latest, and for comparison all of them."""
    found: dict[str, float] = {}
    for choice in ("latest", "all"):
        ages = []
        for result in results(path, seconds, 1.0, results=choice):
            ages.append(result.latency_ms["received"])
            time.sleep(READER_S)
        found[choice] = p99(ages)
    ours = found["latest"]
    what = f"20 Hz reader of a {FPS} fps run: p99 of received"
    row = Row(what, "ms", ours, {"all results": found["all"]}, found["all"] / ours)
    return row, ours / PERIOD_MS


def measure(quick: bool) -> BenchmarkReport:
    """Age of answers for stages of 1 to 30 frames, false absences, age in the hands of a slow reader."""
    seconds = 1.5 if quick else 10.0
    times = TIMES[::3] + TIMES[-1:] if quick else TIMES
    rows: list[Row] = []
    worst, absences = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        paths = {trigger: bundle(Path(folder), trigger) for trigger in ("image", "audio", "timer")}
        for trigger, path in paths.items():
            for share in times if trigger == "image" else times[1::3]:
                row, reached, absent = slow_stage(path, trigger, share, seconds)
                rows.append(row)
                worst, absences = max(worst, reached), absences + absent
        row, reached, absent = slow_stage(paths["image"], "image", 10.0, seconds, hold=True)
        rows.append(row)
        worst, absences = max(worst, reached), absences + absent
        os.environ[HOLD] = "0"
        row, age = slow_reader(paths["image"], seconds)
        rows.append(row)
    limited = {"overload_p99_vs_bound": worst, "overload_false_absences": float(absences)}
    return judged(
        name="overload",
        title=f"Overload: {FPS} fps camera and microphone (simulated devices, real processes), stages that only wait",
        conditions={"latency": "low", "settle_s": SETTLE_S, "seconds": seconds, **versions("numpy")},
        rows=rows,
        targets={**limited, "slow_reader_age_vs_period": age},
        goals=limited,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
