"""What the live page costs a run: latency with the page and a viewer against without, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import mmedge
from benchmarks.harness import BenchmarkReport, Row, Timing, host, main, versions
from mmedge.pipeline import Pipeline
from mmedge.types import Result
from mmedge.view.live import LivePage

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
CLIP = str(ASSETS / "clips" / "clean.mp4")
CAMERA, MICROPHONE = "test://?fps=30&jitter_ms=1", "test://?seed=7&jitter_ms=1"
KINDS = {
    "a clip, the run in this process": {"image": CLIP, "audio": CLIP},
    "simulated devices 640x480, the run in a process of its own": {"image": CAMERA, "audio": MICROPHONE},
}
SETTLE_S = 1.0
# A browser elsewhere: it takes each state as soon as it comes, and says so. It draws nothing on this machine, and what
# it needs of it comes last.
VIEWER = """
import os, sys, websockets.sync.client as client
os.nice(19)
port = sys.argv[1]
with client.connect(f"ws://127.0.0.1:{port}/feed", origin=f"http://127.0.0.1:{port}", compression=None) as socket:
    socket.recv()
    taken = size = 0
    try:
        while True:
            size += len(socket.recv())
            taken += 1
            socket.send('{"ack":true}')
    except Exception:
        print(taken, size)
"""


def run(inputs: dict[str, str], seconds: float, *, shown: bool) -> tuple[list[float], tuple[int, int]]:
    """Return the latencies of a run in ms after it has settled, and how many states a viewer got, of how many bytes."""
    ages: list[float] = []
    first_ns = 0

    def take(result: Result) -> None:
        nonlocal first_ns
        first_ns = first_ns or result.t_ns
        if result.t_ns - first_ns > SETTLE_S * 1e9:
            ages.append(result.latency_ms["end_to_end"])

    viewer: subprocess.Popen[str] | None = None
    with ExitStack() as stack:
        page = stack.enter_context(LivePage("127.0.0.1:0")) if shown else None
        sinks = [page.sink] if page is not None else []
        with Pipeline(
            ASSETS / "digits.mmedge", inputs, sinks=sinks, on_result=take, duration_s=SETTLE_S + seconds, results="all"
        ) as pipe:
            if page is not None:
                page.open(pipe)
                port = page.links[0].rpartition(":")[2].strip("/")
                viewer = subprocess.Popen([sys.executable, "-c", VIEWER, port], stdout=subprocess.PIPE, text=True)
            pipe.run()
    said = "0 0" if viewer is None else viewer.communicate(timeout=20)[0]
    taken, size = said.split()
    return ages, (int(taken), int(size))


def measure(quick: bool) -> BenchmarkReport:
    """Latency of runs with the page and a viewer against runs without, in turn."""
    seconds, rounds = (4.0, 2) if quick else (10.0, 8)
    rows: list[Row] = []
    worst, told = 0.0, {}
    for kind, inputs in KINDS.items():
        with_page: list[list[float]] = []
        without: list[list[float]] = []
        states = sizes = 0
        for turn in range(rounds):
            for shown in (turn % 2 == 0, turn % 2 == 1):  # nobody always comes second
                ages, (taken, size) = run(inputs, seconds, shown=shown)
                (with_page if shown else without).append(ages)
                states, sizes = states + taken, sizes + size
        for percent in (50, 99):
            ours, peer = (float(np.percentile(np.concatenate(all_), percent)) for all_ in (with_page, without))
            # Of pairs that ran one after the other: a change of the machine's speed meets both.
            ratios = [
                np.percentile(a, percent) / np.percentile(b, percent) for a, b in zip(with_page, without, strict=True)
            ]
            timing = Timing(ours * 1e3, *(float(np.percentile(np.concatenate(with_page), p)) * 1e3 for p in (25, 75)),
                            sum(map(len, with_page)))  # fmt: skip
            ratio = statistics.median(ratios)
            spread = f"{min(ratios):.3f}..{max(ratios):.3f} over {rounds} pairs"
            what = f"p{percent} of end to end, {kind}: with page and viewer {ratio:.3f} of without ({spread})"
            rows.append(
                Row(what, "ms", ours, {"without": peer}, peer / ours, {} if percent == 99 else {"mmedge": timing})
            )
            if percent == 50:
                worst = max(worst, float(ratio))
        told[f"viewer, {kind}"] = (
            f"{states / rounds / (seconds + SETTLE_S):.1f} states/s, {sizes / max(states, 1) / 1e3:.0f} kB each"
        )
    return BenchmarkReport(
        name="view",
        title="The live page: a run with the page and a viewer on the same machine, against the run alone, in turn",
        host=host(),
        conditions={
            "seconds": seconds,
            "rounds": rounds,
            "bundle": "digits",
            **told,
            **versions("uvicorn", "starlette", "websockets", "opencv-python-headless"),
        },
        evidence="cpu",
        rows=rows,
        targets={"view_cost_p50_ratio": worst},
        missed=["view_cost_p50_ratio"] if worst > 1.02 and not quick else [],
    )


if __name__ == "__main__":
    main(measure)
