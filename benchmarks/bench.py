"""Whether ``mmedge bench`` tells the truth: known delays, known stalls, its own cost, its intervals; runtime shares."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mmedge
from benchmarks.bench_bundles import SLEEP_MS, camera_bundle, sleeping_bundle
from benchmarks.goals import judged, load, summed_up
from benchmarks.harness import BenchmarkReport, Row, main, versions
from benchmarks.null_bundle import null_bundle
from mmedge.bench import Report
from mmedge.bench.compare import ratio_between
from mmedge.bench.generator import Generator
from mmedge.bench.samples import Samples
from mmedge.bench.schedule import make_feeds
from mmedge.pipeline import Histogram

ALLOW = ["benchmarks.bench_bundles"]
DELAY_MS = 20
STALL_S, EVERY_S, STALLED_HZ = 0.25, 1.25, 60.0
WARM_UP_S = 2.0  # at most: this machine may never be steady
FRAMES = {"vga": (480, 640), "1080p": (1080, 1920)}
CHECKED = (("end_to_end", "p50"), ("end_to_end", "p90"))


def known_latency(path: Path, seconds: float) -> tuple[float, float, float]:
    """Return by how much the delay and the stage differ from what they are, and what a trigger takes beside them."""
    report = mmedge.bench(path, seconds, fps=20, delay_ms=DELAY_MS, allow=ALLOW, warm_up_s=WARM_UP_S)
    deliver, engine = report.tally.latencies["deliver"], report.tally.stages["net"].engine
    rest_ms = report.latency_ms["end_to_end"].p50 - DELAY_MS - SLEEP_MS
    return deliver.percentile_ms(50) - DELAY_MS, engine.percentile_ms(50) - SLEEP_MS, rest_ms


def stalled(path: Path, seconds: float, *, stall: bool) -> tuple[float, float]:
    """Run ``mmedge bench``, stop its process (not the runtime's) now and then; return mean and analytic excess in ms.

    A trigger that is due x s into a stall of T s waits T - x: the triggers of a stall together rate * T^2 / 2.
    """
    options = ["--duration", f"{seconds}", "--fps", f"{STALLED_HZ}", "--warm-up", "1", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mmedge", "bench", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stalls: list[tuple[int, int]] = []
    reader = process.stdout
    assert reader is not None
    time.sleep(2)
    while stall and process.poll() is None:
        from_ns = time.monotonic_ns()
        process.send_signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        until_ns = time.monotonic_ns()
        process.send_signal(signal.SIGCONT)
        stalls.append((from_ns, until_ns))
        time.sleep(EVERY_S - STALL_S)
    document = json.loads(reader.read())
    process.wait()
    rate = document["rate"]
    begin_ns, end_ns = rate["from_ns"], rate["from_ns"] + round(seconds * 1e9)
    excess_s = 0.0
    for from_ns, until_ns in stalls:
        first_ns, last_ns = max(from_ns, begin_ns), min(until_ns, end_ns)
        if first_ns < last_ns:  # of what is due from the one to the other, until the end of the stall
            excess_s += STALLED_HZ * ((until_ns - first_ns) ** 2 - (until_ns - last_ns) ** 2) / 2 / 1e18
    mean_ms: float = document["latency_ms"]["end_to_end"]["mean"]
    return mean_ms, 1e3 * excess_s / rate["due"]


def plain(path: Path, seconds: float, warm_up_s: float = WARM_UP_S) -> float:
    """Return the time of a trigger without waiting for data, p10 of a run that nothing measures, in ms.

    The p10, since what other programs take away here is many times what is looked for.
    """
    with mmedge.load(path) as bundle:
        feeds = make_feeds(bundle.inputs, bundle.manifest.sync, 30.0)
        inputs = dict.fromkeys(bundle.inputs, "push://")
        with mmedge.Pipeline(bundle, inputs, isolation="process", results="all", engines="wait") as pipe:
            start_ns = time.monotonic_ns()
            generator = Generator(pipe, bundle, feeds, start_ns)
            begin_s = start_ns / 1e9 + warm_up_s
            found = [
                result.latency_ms["end_to_end"] - result.latency_ms["ready"]
                for result in pipe.results(begin_s + seconds)
                if time.monotonic() >= begin_s
            ]
            generator.stop()
    return float(np.percentile(found, 10))


def measured(path: Path, seconds: float, warm_up_s: float = WARM_UP_S) -> float:
    """Return the same of a run that the bench measures."""
    latencies = mmedge.bench(path, seconds, warm_up_s=warm_up_s).tally.latencies
    return float(np.percentile(latencies["answered"].values_ms() - latencies["ready"].values_ms(), 10))


def agree(one: Report, other: Report, figure: str, percent: str) -> bool | None:
    """Tell whether two runs of one thing differ by no more than their intervals say; None where they say nothing."""
    intervals = [report.latency_ms[figure].intervals_ms.get(percent, (None, None)) for report in (one, other)]
    if any(end is None for interval in intervals for end in interval):
        return None
    low, high = ratio_between(*intervals)
    assert low is not None
    assert high is not None
    return low <= 1 <= high


def histogram_error(values: Samples) -> float:
    """Return by how much of it the p99.9 of the runtime's histograms differs from the exact one."""
    histogram = Histogram()
    for value_ms in values.values_ms():
        histogram.add(round(value_ms * 1e6))
    return abs(histogram.percentile_ms(99.9) / values.percentile_ms(99.9) - 1)


def measure(quick: bool) -> BenchmarkReport:
    """Known delays, stalls of the generator, the bench's own cost, its intervals, runtime shares of ResNet-18."""
    rounds, seconds, pairs = (1, 1.0, 1) if quick else (5, 5.0, 40)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    before = load()
    rows: list[Row] = []
    targets: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        null, sleeping = null_bundle(Path(folder) / "null.mmedge"), sleeping_bundle(Path(folder) / "sleeping.mmedge")

        runs = [known_latency(sleeping, seconds) for _ in range(rounds)]
        delay, stage, rest = (list(each) for each in zip(*runs, strict=True))
        targets["known_latency_error_ms"] = max(abs(statistics.median(each)) for each in (delay, stage))
        rows.append(summed_up(f"a delay of {DELAY_MS} ms is told as more by, p50", "ms", delay))
        rows.append(summed_up(f"a stage of {SLEEP_MS} ms is told as more by, p50", "ms", stage))
        rows.append(summed_up("end to end beyond these two, p50", "ms", rest))

        found, expected = [], []
        for _ in range(1 if quick else 3):
            calm, _ = stalled(null, 4 if quick else 20, stall=False)
            mean_ms, excess_ms = stalled(null, 4 if quick else 20, stall=True)
            found.append(mean_ms - calm)
            expected.append(excess_ms)
        targets["omission_error"] = abs(statistics.median(a / b for a, b in zip(found, expected, strict=True)) - 1)
        rows.append(summed_up(f"mean latency that stalls of {STALL_S * 1e3:.0f} ms add", "ms", found))
        rows.append(summed_up("the same by calculation", "ms", expected))

        costs: dict[str, list[float]] = {"plain": [], "measured": []}
        # One pair differs by a tenth either way, whatever is measured: even a quick look takes several.
        for turn in range(3 if quick else 12):
            for name in list(costs)[:: 1 if turn % 2 else -1]:
                run = plain if name == "plain" else measured
                costs[name].append(run(null, min(seconds, 3.0), 1.0 if quick else WARM_UP_S))
        ratios = [a / b for a, b in zip(costs["measured"], costs["plain"], strict=True)]
        targets["bench_overhead_ratio"] = statistics.median(ratios)
        rows.append(summed_up("a trigger without waiting, measured, p10", "ms", costs["measured"]))
        rows.append(summed_up("the same, not measured, p10", "ms", costs["plain"]))

        for name, frame in FRAMES.items():
            bundle = camera_bundle(Path(folder) / f"resnet18-{name}.mmedge", frame)
            shares = []
            for _ in range(rounds):
                share = mmedge.bench(bundle, seconds, fps=8, warm_up_s=WARM_UP_S).runtime_share
                assert share is not None
                shares.append(share.p50)
            targets[f"runtime_share_{name}"] = statistics.median(shares)
            rows.append(summed_up(f"runtime share, ResNet-18, {name}, p50", "", shares))

        latencies = Samples()
        told: dict[tuple[str, str], list[bool]] = {figure: [] for figure in (*CHECKED, ("inferred", "p50"))}
        for _ in range(pairs):
            one, other = (mmedge.bench(null, 1.0 if quick else 4.0, warm_up_s=WARM_UP_S) for _ in range(2))
            for figure, same in told.items():
                if (agreed := agree(one, other, *figure)) is not None:
                    same.append(agreed)
            for report in (one, other):
                latencies.extend(report.tally.latencies["overhead"])
        for (what, percent), same in told.items():
            kept = statistics.mean(same) if same else float("nan")
            rows.append(
                Row(f"pairs whose {what} {percent} agree within their intervals", "", kept, {}, None, n=len(same))
            )
        checked = [agreed for figure in CHECKED for agreed in told[figure]]
        targets["interval_coverage"] = statistics.mean(checked) if checked else float("nan")
        targets["histogram_error_p999"] = histogram_error(latencies)
        rows.append(Row("p99.9 of overheads, exact", "ms", latencies.percentile_ms(99.9), {}, None, n=latencies.n))
    return judged(
        name="bench",
        title="Whether the latency bench tells the truth; the runtime's share of end to end",
        conditions={
            "rounds": rounds,
            "pairs": pairs,
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
