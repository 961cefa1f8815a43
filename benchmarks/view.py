"""What the live page costs a run: latency while the page is served and looked at, against the same run without it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np

import mmedge
from benchmarks.harness import BenchmarkReport, Row, Timing, host, main, versions
from mmedge.pipeline import Pipeline
from mmedge.sinks import Sink
from mmedge.types import Result
from mmedge.view.live import LivePage

BUNDLE = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
# A frame comes with every fourth block of sound: how long a trigger waits for its sound does not wander.
INPUTS = {"image": "test://?fps=25&jitter_ms=1", "audio": "test://?seed=7&jitter_ms=1"}
KINDS: dict[Literal["process", "thread"], str] = {
    "process": "the run in a process of its own",
    "thread": "the run in the page's process",
}
SETTLE_S, WINDOW_S = 0.7, 2.5
LIMIT = 1.02
# A browser elsewhere: it takes each state as soon as it comes, and says so. It draws nothing on this machine, and what
# it needs of it comes last. It is told the port of each page.
VIEWER = """
import os, sys, websockets.sync.client as client
os.nice(19)
taken = size = 0
for port in map(str.strip, sys.stdin):
    with client.connect(f"ws://127.0.0.1:{port}/feed", origin=f"http://127.0.0.1:{port}", compression=None) as socket:
        try:
            socket.recv()
            while True:
                size += len(socket.recv())
                taken += 1
                socket.send('{"ack":true}')
        except Exception:
            pass
print(taken, size)
"""


class Switch:
    """A sink that hands results on while there is somebody to hand them to."""

    target: Sink | None = None

    def write(self, result: Result) -> None:
        """Hand a result on."""
        if (target := self.target) is not None:
            target.write(result)

    def close(self) -> None:
        """Leave the page to who opened it."""


class Watched:
    """A run whose page comes and goes.

    Args:
        isolation: Where the runtime is.

    Attributes:
        busy: With and without the page: processor time of this process in each window, in ms a second.
    """

    def __init__(self, isolation: Literal["process", "thread"]) -> None:
        self._ages: list[tuple[int, float]] = []
        self.busy: dict[bool, list[float]] = {True: [], False: []}
        self._switch = Switch()
        self.pipe = Pipeline(
            BUNDLE, INPUTS, sinks=[self._switch], on_result=self._take, isolation=isolation, results="all"
        )
        self._viewer = subprocess.Popen(
            [sys.executable, "-c", VIEWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self.pipe.run)
        self.pipe.start()
        self._thread.start()

    def _take(self, result: Result) -> None:
        self._ages.append((result.t_ns, result.latency_ms["end_to_end"]))

    def window(self, *, shown: bool) -> list[float]:
        """Return the latencies of a while, in ms, with a page and a viewer or without."""
        page = LivePage("127.0.0.1:0") if shown else None
        if page is not None:
            self._switch.target = page.sink
            page.open(self.pipe)
            assert self._viewer.stdin is not None
            print(page.port, file=self._viewer.stdin, flush=True)
        time.sleep(SETTLE_S)
        begin_ns, began_s = time.monotonic_ns(), time.process_time()
        time.sleep(WINDOW_S)
        end_ns, ended_s = time.monotonic_ns(), time.process_time()
        self.busy[shown].append((ended_s - began_s) / (end_ns - begin_ns) * 1e12)
        self._switch.target = None
        if page is not None:
            page.close()
        return [age_ms for t_ns, age_ms in list(self._ages) if begin_ns <= t_ns < end_ns]

    def close(self) -> tuple[int, int]:
        """End; return how many states the viewer got, of how many bytes."""
        self.pipe.close()
        self._thread.join()
        told, _ = self._viewer.communicate(timeout=20)
        taken, size = told.split()
        return int(taken), int(size)


def measure(quick: bool) -> BenchmarkReport:
    """Latency of one run in windows with the page and a viewer, and without, in turn."""
    pairs = 5 if quick else 24
    rows: list[Row] = []
    worst, told = 0.0, {}
    for isolation, kind in KINDS.items():
        run = Watched(isolation)
        try:
            time.sleep(2.0)
            windows: dict[bool, list[list[float]]] = {True: [], False: []}
            for turn in range(pairs):
                for shown in (turn % 2 == 0, turn % 2 == 1):  # nobody always comes second
                    windows[shown].append(run.window(shown=shown))
        finally:
            states, size = run.close()
        for percent in (50, 99):
            # Of windows that followed each other: a change of the machine's speed meets both.
            ratios = [
                float(np.percentile(a, percent) / np.percentile(b, percent))
                for a, b in zip(windows[True], windows[False], strict=True)
            ]
            ours, peer = (float(np.percentile(np.concatenate(windows[on]), percent)) for on in (True, False))
            low, ratio, high = statistics.quantiles(ratios, n=4)
            what = f"p{percent} of end to end, {kind}: {ratio:.3f} of without (quartiles {low:.3f}..{high:.3f})"
            everything = np.concatenate(windows[True])
            p25, p75 = (float(np.percentile(everything, p)) * 1e3 for p in (25, 75))
            timing = Timing(median=ours * 1e3, p25=p25, p75=p75, n=len(everything))
            timings = {"mmedge": timing} if percent == 50 else {}
            rows.append(Row(what, "ms", ours, {}, None, timings, beside={"without": peer}))
            if percent == 50:
                worst = max(worst, ratio)
        busy, idle = (statistics.median(run.busy[on]) for on in (True, False))
        rows.append(Row(f"processor time of this process, {kind}", "ms/s", busy, {}, None, beside={"without": idle}))
        seconds = pairs * (WINDOW_S + SETTLE_S)
        told[f"viewer, {kind}"] = f"{states / seconds:.1f} states/s, {size / max(states, 1) / 1e3:.0f} kB each"
    return BenchmarkReport(
        name="view",
        title="The live page: simulated camera (640x480, 25 fps) and microphone; windows of one run with page and "
        "viewer, and without",
        host=host(),
        conditions={
            "pairs": pairs,
            "window_s": WINDOW_S,
            "bundle": "digits",
            **told,
            **versions("uvicorn", "starlette", "websockets", "opencv-python-headless"),
        },
        evidence="cpu",
        rows=rows,
        targets={"view_cost_p50_ratio": worst},
        missed=["view_cost_p50_ratio"] if worst > LIMIT and not quick else [],
    )


if __name__ == "__main__":
    main(measure)
