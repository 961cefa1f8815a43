"""How many pipelines two cores carry, how fast sixteen of them start, and how fast a recording is replayed."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mmedge
from benchmarks.cost import installed
from benchmarks.goals import judged, load, summed_up
from benchmarks.harness import BenchmarkReport, Row, main, versions
from benchmarks.null_bundle import INPUTS, null_bundle

ROOT = Path(__file__).parents[1]
DIGITS = Path(mmedge.__file__).parent / "assets" / "digits"
FPS, CORES, STEP = 30, 2, 2
START_S = 60.0  # what takes longer to start has not started
SETTLE_S = 2.0
MOST = 64
FIRST = {"thread": 12, "process": 8}  # where the search begins


class Streams:
    """Pipelines side by side in this process: each is opened and read by a thread of its own, as servers do.

    Args:
        bundle: What all of them run.
        count: How many.
        isolation: ``thread`` or ``process``.
    """

    def __init__(self, bundle: Path, count: int, isolation: str) -> None:
        self._over = threading.Event()
        self._began = time.monotonic()
        self._first = [threading.Event() for _ in range(count)]
        self._times_ns: list[list[int]] = [[] for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._run, args=(bundle, number, isolation), daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, bundle: Path, number: int, isolation: str) -> None:
        with mmedge.Pipeline(bundle, INPUTS, isolation=isolation, results="all") as pipe:  # type: ignore[arg-type]
            for result in pipe:
                if all(result.present[name] for name in INPUTS):
                    self._first[number].set()
                self._times_ns[number].append(result.t_ns)
                if self._over.is_set():
                    return

    def started_s(self) -> float | None:
        """Return when the last of them had its first fused result; None if one has none in time."""
        for first in self._first:
            if not first.wait(max(0.0, self._began + START_S - time.monotonic())):
                return None
        return time.monotonic() - self._began

    def watch(self, seconds: float) -> tuple[int, int]:
        """Return (frames that should have been answered, frames that were not) of a while."""
        begin_ns = time.monotonic_ns()
        end_ns = begin_ns + round(seconds * 1e9)
        time.sleep(seconds + 1.0)  # what is late is not lost
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        due = round(seconds * FPS)
        answered = [sum(begin_ns <= t_ns < end_ns for t_ns in list(times)) for times in self._times_ns]
        # The edges of the time cut one frame off at most.
        return due * len(answered), sum(max(0, due - 1 - got) for got in answered)


def child(bundle: str, count: int, isolation: str, seconds: float) -> None:
    """Run pipelines on two cores; print when they had started, and what was lost."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    streams = Streams(Path(bundle), count, isolation)
    started_s = streams.started_s()
    due = lost = 0
    if started_s is not None and seconds:
        time.sleep(SETTLE_S)
        due, lost = streams.watch(seconds)
    print(json.dumps({"started_s": started_s, "due": due, "lost": lost}), flush=True)
    os._exit(0)  # pipelines that never started are not waited for; their processes end with this one


def streams(bundle: Path, count: int, isolation: str, seconds: float) -> dict[str, float | None]:
    """Return what a process of its own says of so many pipelines."""
    command = [sys.executable, "-m", "benchmarks.scale", "--child", str(bundle), str(count), isolation, str(seconds)]
    environment = installed(bundle.parent)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"{count} pipelines ({isolation}) ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def most(carries: Callable[[int], bool], begin: int, highest: int = MOST) -> int:
    """Return the largest number that is carried, in steps of two; the search walks up or down from where it begins.

    Example:
        >>> most(lambda n: n <= 12, 8), most(lambda n: n <= 12, 20), most(lambda n: False, 8)
        (12, 12, 0)
    """
    count = max(begin, STEP)
    if carries(count):
        while count + STEP <= highest and carries(count + STEP):
            count += STEP
        return count
    while count > STEP:
        count -= STEP
        if carries(count):
            return count
    return 0


def replay_x(recording: Path, seconds: float) -> float:
    """Return how many times faster than it was recorded a recording is replayed by the command, its start included."""
    command = [sys.executable, "-m", "mmedge", "replay", str(recording), str(DIGITS / "digits.mmedge"), "--json"]
    environment = installed(recording.parent)
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment)
    took_s = time.perf_counter() - begin
    lines = done.stdout.splitlines()
    span_s = float(json.loads(lines[-1])["t_ns"] - json.loads(lines[0])["t_ns"]) / 1e9
    if span_s < 0.8 * seconds:
        raise RuntimeError(f"the replay ended after {span_s:.1f} s of {seconds:g} s")
    return span_s / took_s


def record(folder: Path, seconds: float) -> Path:
    """Record a run of the digits bundle on a clip that is played again and again."""
    clip, made = DIGITS / "clips" / "clean.mp4", folder / "clip.mp4"
    loop = ["ffmpeg", "-loglevel", "error", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds)]
    subprocess.run([*loop, "-c", "copy", str(made)], check=True)
    recording, inputs = folder / "recording", {"image": str(made), "audio": str(made)}
    with mmedge.Pipeline(DIGITS / "digits.mmedge", inputs, latency="offline", record=recording) as pipe:
        pipe.run()
    return recording


def carried(bundle: Path, isolation: str, begin: int, seconds: float, highest: int) -> int:
    """Return how many pipelines lose no frame."""

    def carries(count: int) -> bool:
        found = streams(bundle, count, isolation, seconds)
        return found["started_s"] is not None and found["lost"] == 0

    return most(carries, begin, highest)


def measure(quick: bool) -> BenchmarkReport:
    """Pipelines at 30 fps on two cores without a drop; the start of sixteen; speed of a replay."""
    if len(os.sched_getaffinity(0)) < CORES:
        sys.exit(f"this benchmark needs {CORES} cores")
    rounds, watched_s, recorded_s, highest, many = (1, 1.0, 3.0, 2, 2) if quick else (7, 8.0, 60.0, MOST, 16)
    before = load()
    found: dict[str, list[float]] = {"thread": [], "process": [], "start": [], "replay": []}
    with tempfile.TemporaryDirectory() as folder:
        bundle = null_bundle(Path(folder) / "null.mmedge")
        recording = record(Path(folder), recorded_s)
        streams(bundle, 1, "process", 0)  # fills the folder of compiled modules, as the next does
        replay_x(recording, recorded_s)
        for _ in range(rounds):
            for isolation, first in FIRST.items():
                begin = round(found[isolation][-1]) if found[isolation] else min(first, highest)
                found[isolation].append(carried(bundle, isolation, begin, watched_s, highest))
            started_s = streams(bundle, many, "process", 0)["started_s"]
            found["start"].append(START_S if started_s is None else started_s)
            found["replay"].append(replay_x(recording, recorded_s))
    late = sum(value >= START_S for value in found["start"])
    targets = {
        "streams_30fps": statistics.median(found["thread"]),
        "streams_30fps_processes": statistics.median(found["process"]),
        "start_16_s": statistics.median(found["start"]),
        "replay_x": statistics.median(found["replay"]),
    }
    if quick:  # of two, not sixteen, and no more than two were tried
        for name in ("streams_30fps", "streams_30fps_processes", "start_16_s"):
            del targets[name]
    rows: list[Row] = [
        summed_up("pipelines without a drop, all in one process", "", found["thread"]),
        summed_up("pipelines without a drop, each in processes of its own", "", found["process"]),
        summed_up(f"start of {many} in processes, to the last one's first fused result", "s", found["start"]),
        summed_up(f"replay of {recorded_s:g} s, start included", "x", found["replay"]),
    ]
    return judged(
        name="scale",
        title=f"Many pipelines on {CORES} cores: simulated camera (640x480, 30 fps) and microphone each, networks that "
        "do next to nothing; replay of the digits bundle",
        conditions={
            "rounds": rounds,
            "watched_s": watched_s,
            "tried in steps of": STEP,
            f"not started within {START_S:g} s": late,
            "load before": before,
            "load after": load(),
            **versions("mmedge", "numpy", "onnxruntime"),
        },
        rows=rows,
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    if "--child" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--child", nargs=4)
        path, count, isolation, seconds = parser.parse_args().child
        child(path, int(count), isolation, float(seconds))
    else:
        main(measure)
