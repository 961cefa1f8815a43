"""A live run beside loops by hand: processor time, memory and latency from the drawing of a frame to its answer.

All take the same camera (H.264 over UDP) and microphone (PortAudio on PulseAudio), and the same networks on ONNX
Runtime, one thread, no spinning. Each runs for a while in turn, idle and beside a thread of Python in the user's
process that never waits.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import mmedge
from benchmarks.cost import cpu_s, installed, pss_mib
from benchmarks.goals import judged, load, ratio, summed_up
from benchmarks.harness import BenchmarkReport, Row, main, versions
from benchmarks.loopback import PulseAudio, microphone, missing
from benchmarks.partners.by_hand import unpack
from benchmarks.partners.telling import MOVED
from benchmarks.stamped import StampedSender

ROOT = Path(__file__).parents[1]
DIGITS = Path(mmedge.__file__).parent / "assets" / "digits"
READY_S, SETTLE_S, GRACE_S = 60.0, 1.0, 0.5
TRIES = 5  # of a run whose frames' clock moved
SWITCH_S = 50e-6
OURS, FLOOR, THREADS, TUNED = "mmedge", "decode only", "threads", f"threads, switch interval {SWITCH_S * 1e6:g} us"
PROCESSES, ONE_LOOP = "multiprocessing, shared memory", "one loop"
NEEDED = [(FLOOR, False), (THREADS, False), (OURS, False), (THREADS, True), (TUNED, True), (OURS, True)]
ALL = [*NEEDED, (PROCESSES, False), (ONE_LOOP, False), (PROCESSES, True)]


class Window(NamedTuple):
    """What was seen of one run: latencies in ms, share of the frames that were answered, cores, memory in MiB."""

    p50: float
    p99: float
    done: float
    cores: float
    pss: float


class MovedError(RuntimeError):
    """The clock by which a loop knows its frames moved, as it may on a starved machine: the run says nothing."""


def command(name: str, *, busy: bool, sender: StampedSender, pulse: PulseAudio, folder: Path) -> list[str]:
    """Return how a loop is started."""
    by_hand = [sender.uri, str(folder)]
    started = {
        OURS: ["benchmarks.live_user", sender.uri, pulse.uri, str(DIGITS / "digits.mmedge")],
        FLOOR: ["benchmarks.partners.latest_frame", *by_hand, "--decode-only"],
        THREADS: ["benchmarks.partners.latest_frame", *by_hand],
        TUNED: ["benchmarks.partners.latest_frame", *by_hand, "--switch-s", str(SWITCH_S)],
        PROCESSES: ["benchmarks.partners.shared_memory", *by_hand],
        ONE_LOOP: ["benchmarks.partners.one_loop", *by_hand],
    }[name]
    return [sys.executable, "-m", *started, *(["--busy"] if busy else [])]


def watch(
    arguments: list[str], sender: StampedSender, seconds: float, settle_s: float, environment: Mapping[str, str]
) -> Window:
    """Start a loop, let it settle, watch it, end it."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        late = threading.Timer(READY_S, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            late.cancel()
            if ready.strip() != "ready":
                said.seek(0)
                raise RuntimeError(f"{' '.join(arguments[2:])} was not ready: {said.read()[-2000:]}")
            time.sleep(settle_s)
            begin_ns, before_s = time.monotonic_ns(), cpu_s(process.pid)
            time.sleep(seconds)
            end_ns, after_s = time.monotonic_ns(), cpu_s(process.pid)
            pss = pss_mib(process.pid)
            time.sleep(GRACE_S)
            told, _ = process.communicate(timeout=30)  # closes its standard input: it ends
            if process.returncode:
                said.seek(0)
                kind = MovedError if process.returncode == MOVED else RuntimeError
                raise kind(f"{' '.join(arguments[2:])} failed: {said.read()[-2000:]}")
        finally:
            late.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
    answers = json.loads(told.splitlines()[-1])
    latencies, drawn = latencies_ms(answers, sender.drawn_ns(), begin_ns, end_ns)
    if not latencies:
        raise RuntimeError(f"{' '.join(arguments[2:])} answered no frame")
    p50, p99 = (float(np.percentile(latencies, percent)) for percent in (50, 99))
    return Window(p50, p99, len(latencies) / drawn, (after_s - before_s) / ((end_ns - begin_ns) / 1e9), pss)


def latencies_ms(
    answers: list[tuple[int, int]], drawn_ns: npt.NDArray[np.int64], begin_ns: int, end_ns: int
) -> tuple[list[float], int]:
    """Return the latency of each frame that was drawn within a time and answered, and how many were drawn."""
    drawn = {int(k) for k in np.flatnonzero((drawn_ns >= begin_ns) & (drawn_ns < end_ns))}
    first: dict[int, int] = {}
    for number, done_ns in answers:
        if number in drawn:
            first.setdefault(number, done_ns)
    return [(done_ns - int(drawn_ns[number])) / 1e6 for number, done_ns in first.items()], len(drawn)


Windows = Mapping[tuple[str, bool], list[Window]]


def targets_of(windows: Windows) -> dict[str, float]:
    """Return the figures of runs that were made in turn."""

    def seen(name: str, part: str, *, busy: bool = False) -> list[float]:
        return [getattr(window, part) for window in windows[name, busy]]

    def above_floor(name: str) -> list[float]:
        floor = seen(FLOOR, "p50")
        return [p50 - least for p50, least in zip(seen(name, "p50", busy=True), floor, strict=True)]

    idle = {
        f"live_{figure}_vs_threads": ratio(seen(OURS, part), seen(THREADS, part))
        for figure, part in (("cpu", "cores"), ("pss", "pss"), ("p50", "p50"), ("p99", "p99"))
    }
    return {
        **idle,
        "busy_p50_vs_threads": ratio(above_floor(OURS), above_floor(THREADS)),
        "busy_p50_vs_tuned": ratio(above_floor(OURS), above_floor(TUNED)),
        "busy_frames_done": statistics.median(seen(OURS, "done", busy=True)),
    }


def rows_of(windows: Windows) -> list[Row]:
    """Return what was seen of each, idle and beside a busy thread."""
    rows = []
    for busy in (False, True):
        when = "beside a busy thread in the user's process" if busy else "idle"
        for part, what, unit in (
            ("p50", "drawn to answered, p50", "ms"),
            ("p99", "drawn to answered, p99", "ms"),
            ("done", "share of the frames that are answered", ""),
            ("cores", "processor time of all processes", "cores"),
            ("pss", "memory of all processes (PSS)", "MiB"),
        ):
            values = {n: [getattr(w, part) for w in found] for (n, b), found in windows.items() if b == busy}
            if busy and part == "p50":
                values[FLOOR] = [window.p50 for window in windows[FLOOR, False]]
            ours, marks = values.pop(OURS), {n: values.pop(n) for n in [FLOOR] if n in values}
            is_share = part == "done"
            rows.append(summed_up(f"{when}: {what}", unit, ours, values, beside=marks, is_share=is_share))
    return rows


def measure(quick: bool) -> BenchmarkReport:
    """A live run beside loops by hand, idle and with a busy thread of Python in the user's process."""
    if missing():
        sys.exit(f"{', '.join(missing())} missing; type: apt-get install pulseaudio pulseaudio-utils ffmpeg")
    rounds, seconds, settle_s = (1, 1.0, 0.2) if quick else (7, 10.0, SETTLE_S)
    planned = NEEDED if quick else ALL
    windows: dict[tuple[str, bool], list[Window]] = {key: [] for key in planned}
    repeated = 0
    before, clip = load(), DIGITS / "clips" / "clean.mp4"
    with tempfile.TemporaryDirectory() as folder, microphone() as pulse:
        unpack(DIGITS / "digits.mmedge", Path(folder), "fp32")
        sender = StampedSender(Path(folder))
        sender.begin(clip)
        pulse.play(clip, loop=True)
        environment = installed(Path(folder))

        def run(name: str, seconds: float, *, busy: bool) -> Window:
            arguments = command(name, busy=busy, sender=sender, pulse=pulse, folder=Path(folder))
            return watch(arguments, sender, seconds, settle_s, environment)

        try:
            for name in dict(planned):  # fills the folder of compiled modules
                with suppress(MovedError):
                    run(name, 0.5, busy=False)
            for turn in range(rounds):
                for name, busy in planned[turn % len(planned) :] + planned[: turn % len(planned)]:
                    for left in reversed(range(TRIES)):
                        try:
                            windows[name, busy].append(run(name, seconds, busy=busy))
                            break
                        except MovedError:
                            repeated += 1
                            if not left:
                                raise
        finally:
            sender.kill()
    targets = targets_of(windows)
    return judged(
        name="live",
        title="Live on loopback: the digits bundle on a UDP camera (640x480, 30 fps) and a microphone, beside "
        "loops by hand with the same networks; each for a while, in turn",
        conditions={
            "rounds": rounds,
            "window_s": seconds,
            "runs made again": repeated,
            "load before": before,
            "load after": load(),
            **versions("mmedge", "numpy", "av", "sounddevice", "opencv-python-headless", "onnxruntime"),
        },
        rows=rows_of(windows),
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
