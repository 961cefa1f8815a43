"""Real devices on loopback: what dies comes back, a busy user process hurts nothing, nothing leaks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import mmedge
from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from benchmarks.loopback import PulseAudio, Sender, microphone, missing
from benchmarks.partners.plain_callback import PlainCallback
from mmedge.bundle.manifest import AudioInput
from mmedge.calibration.calibration import calibrate
from mmedge.calibration.flash_clip import write_clip
from mmedge.calibration.offsets import Offset
from mmedge.pipeline import Percentiles
from mmedge.types import Result

BUNDLE = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"
CLIP = BUNDLE.parent / "clips/clean.mp4"
HOLD_US = 250_000
P99_S = 5.0  # 100 answers at 25 a second tell a 99th percentile


def rows_of(what: str, unit: str, ours: float, **peers: float | None) -> Row:
    best = min((value for value in peers.values() if value is not None), default=None)
    return Row(what=what, unit=unit, ours=ours, peers=dict(peers), ratio=best / ours if best and ours else None)


class Reading:
    """Iterates a pipeline in a thread, as a user's program would, and keeps what the figures need."""

    def __init__(self, pipe: mmedge.Pipeline) -> None:
        self.pipe = pipe
        self.change = threading.Condition()
        self.epoch: dict[str, int] = {}
        self.present: dict[str, bool] = {}
        self.results = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for result in self.pipe:
            self._note(result)

    def _note(self, result: Result) -> None:
        with self.change:
            self.results += 1
            self.epoch.update(result.epoch)
            self.present = result.present
            self.change.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        with self.change:
            if not self.change.wait_for(condition, timeout_s):
                raise RuntimeError(f"nothing came back: {self.pipe.health()}")


@contextmanager
def running(inputs: dict[str, str]) -> Iterator[Reading]:
    with mmedge.Pipeline(BUNDLE, inputs) as pipe:
        reading = Reading(pipe)
        reading.wait(lambda: all(reading.present.get(name, False) for name in inputs))
        yield reading


def counted(pipe: mmedge.Pipeline, name: str) -> dict[str, int]:
    """Return the counters of an input's source."""
    counters = pipe.health()[name]["counters"]
    assert isinstance(counters, dict)
    return counters


def reconnects(pulse: PulseAudio, sender: Sender, rounds: int) -> dict[str, list[float]]:
    """Kill server and sender in mid-run and time from their return to the first fused result with them."""
    took: dict[str, list[float]] = {"PulseAudio server": [], "ffmpeg sender": []}
    with running({"image": sender.uri, "audio": pulse.uri}) as reading:
        for turn in range(rounds):
            away_s = 1.0 + turn
            for what, stream, device in (("PulseAudio server", "audio", pulse), ("ffmpeg sender", "image", sender)):
                before = reading.epoch[stream]
                device.kill()
                time.sleep(away_s)
                if device is pulse:
                    pulse.start()
                    back = time.monotonic()
                    pulse.play(CLIP, loop=True)
                else:
                    back = time.monotonic()
                    sender.send(CLIP, loop=True, fps=30)

                def again(stream: str = stream, before: int = before) -> bool:
                    return reading.present[stream] and reading.epoch[stream] > before

                reading.wait(again)
                took[what].append(time.monotonic() - back)
                time.sleep(1.0)
        dropped = sum(
            n for name in ("image", "audio") for k, n in counted(reading.pipe, name).items() if k.startswith("dropped")
        )
    s = reading.pipe.statistics
    took["lost"] = [float(dropped + s.triggers - s.results - s.dropped)]
    return took


@contextmanager
def busy(*, free_s: float) -> Iterator[None]:
    """Hold the GIL for 250 ms at a time, as an extension that forgot to release it does, with pauses."""
    stop = threading.Event()

    def hold() -> None:
        library = ctypes.PyDLL(None)
        while not stop.is_set():
            library.usleep(HOLD_US)
            time.sleep(free_s)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def overflows_when_busy(pulse: PulseAudio, seconds: float) -> int:
    """Count overflows while this process is held up all the time but for 1 ms in 250."""
    with running({"audio": pulse.uri}) as reading:
        with busy(free_s=0.001):
            time.sleep(seconds)
        return counted(reading.pipe, "audio").get("overflows", 0)


def delays_when_busy(pulse: PulseAudio, seconds: float) -> tuple[float, float]:
    """Return p99 in ms from sound to our answer, and to the features of a plain callback, half of the time held up."""
    with running({"audio": pulse.uri}) as reading, busy(free_s=HOLD_US / 1e6):
        time.sleep(seconds)
    ours = reading.pipe.statistics.end_to_end.summary().p99
    spec = reading.pipe.bundle.inputs["audio"]
    assert isinstance(spec, AudioInput)
    with PlainCallback(spec) as plain, busy(free_s=HOLD_US / 1e6):
        time.sleep(seconds)
    return ours, float(np.percentile(plain.delays_ms, 99))


def latency(pulse: PulseAudio, sender: Sender, seconds: float) -> tuple[Percentiles, Percentiles]:
    """Return end to end from the capture times of camera and microphone, and how well these are known."""
    with running({"image": sender.uri, "audio": pulse.uri}) as reading:
        time.sleep(seconds)
    return reading.pipe.statistics.end_to_end.summary(), reading.pipe.statistics.stamps.summary()


def flash_and_beep(pulse: PulseAudio, flashes: int) -> Offset:
    """Return how far a flash and a beep that were sent together arrive apart, by ``mmedge calibrate``."""
    sender = Sender()
    with TemporaryDirectory() as folder:
        sender.send(write_clip(Path(folder) / "flash.mkv"), loop=True, microphone=pulse)
        try:
            return calibrate(sender.uri, pulse.uri, flashes=flashes).offset
        finally:
            sender.kill()


class Processes:
    """What this process, the runtime and its workers hold."""

    def __init__(self) -> None:
        mine = os.getpid()
        (self.runtime,) = self._asked_by(mine)
        (spawner,) = self._listed("-P", str(mine), "mmedge.ipc.spawner")
        self.pids = [mine, spawner, self.runtime, *self._asked_by(self.runtime)]

    def _asked_by(self, pid: int) -> list[int]:
        return self._listed(f"mmedge.ipc.worker .*--for {pid}$")

    @staticmethod
    def _listed(*options: str) -> list[int]:
        listed = subprocess.run(["pgrep", "-f", *options], capture_output=True, check=False)
        return [int(line) for line in listed.stdout.split()]

    def memory_mb(self, pids: list[int] | None = None) -> float:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids or self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def held(self, pids: list[int] | None = None) -> tuple[int, int]:
        """Return (descriptors, threads)."""
        both = ("fd", "task")
        fds, threads = (sum(len(list(Path(f"/proc/{p}/{kind}").iterdir())) for p in pids or self.pids) for kind in both)
        return fds, threads


def endurance(pulse: PulseAudio, sender: Sender, seconds: float, warm_s: float) -> tuple[float, int, int]:
    """Return (growth in MB a minute, descriptors more, threads more) after warm-up."""
    with running({"image": sender.uri, "audio": pulse.uri}):
        time.sleep(warm_s)
        processes = Processes()
        before, samples = processes.held(), []
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds:
            samples.append((passed / 60, processes.memory_mb()))
            time.sleep(1.0)
        after = processes.held()
    minutes, megabytes = np.array(samples).T
    return float(np.polyfit(minutes, megabytes, 1)[0]), after[0] - before[0], after[1] - before[1]


def forced(sender: Sender, times: int) -> tuple[float, int, int]:
    """Kill a worker again and again; return (MB more, descriptors more, threads more) of the runtime."""
    with running({"image": sender.uri}) as reading:
        marks = []
        for turn in range(times + 5):
            processes = Processes()
            runtime = [processes.runtime]
            if turn in (5, times + 4):
                marks.append((processes.memory_mb(runtime), *processes.held(runtime)))
            before = reading.epoch["image"]
            os.kill(processes.pids[-1], 9)
            reading.wait(lambda before=before: reading.epoch["image"] > before)  # type: ignore[misc]
    (mb, fds, threads), (mb_after, fds_after, threads_after) = marks
    return mb_after - mb, fds_after - fds, threads_after - threads


def measure(quick: bool) -> BenchmarkReport:
    """Live capture on loopback: recovery, load, leaks."""
    if missing():
        sys.exit(f"{', '.join(missing())} missing; type: apt-get install pulseaudio pulseaudio-utils ffmpeg")
    load_s, warm_s, run_s, kills, flashes = (4.0, 2.0, 5.0, 2, 5) if quick else (60.0, 60.0, 600.0, 50, 20)
    sender = Sender()
    with microphone() as pulse:
        offset = flash_and_beep(pulse, flashes)
        sender.send(CLIP, loop=True, fps=30)
        pulse.play(CLIP, loop=True)
        try:
            live, stamps = latency(pulse, sender, load_s)
            took = reconnects(pulse, sender, 1 if quick else 3)
            overflows = overflows_when_busy(pulse, load_s)
            ours_ms, plain_ms = delays_when_busy(pulse, max(load_s / 2, P99_S))
            slope, fds, threads = endurance(pulse, sender, run_s, warm_s)
            leaked_mb, leaked_fds, leaked_threads = forced(sender, kills)
        finally:
            sender.kill()
    worst = max(took["PulseAudio server"] + took["ffmpeg sender"])
    rows = [
        rows_of(f"live, capture to result, p50 (n = {live.n}, capture times ± {stamps.p50:.1f} ms)", "ms", live.p50),
        rows_of("live, capture to result, p90", "ms", live.p90),
        rows_of("live, capture to result, p99", "ms", live.p99),
        rows_of("flash against beep, sent together: apart on arrival", "ms", abs(offset.offset_ns) / 1e6),
        rows_of("uncertainty of that", "ms", offset.uncertainty_ns / 1e6),
        rows_of("PulseAudio killed: results with sound after its return, worst", "s", max(took["PulseAudio server"])),
        rows_of("ffmpeg killed: results with pictures after its return, worst", "s", max(took["ffmpeg sender"])),
        rows_of("captured and neither answered nor counted", "packets", took["lost"][0]),
        rows_of(f"audio overflows in {load_s:g} s beside a thread that holds the GIL", "", overflows),
        rows_of(
            "sound to features (ours: to the answer), p99, the GIL held every other 250 ms",
            "ms",
            ours_ms,
            plain_callback=plain_ms,
        ),
        rows_of(f"memory growth over {run_s:g} s at 30 fps, all processes", "MB/min", slope),
        rows_of("descriptors more after it", "", fds),
        rows_of("threads more after it", "", threads),
        rows_of(f"memory of the runtime more after {kills} killed workers", "MB", leaked_mb),
        rows_of("descriptors more after it", "", leaked_fds),
        rows_of("threads more after it", "", leaked_threads),
    ]
    return BenchmarkReport(
        name="devices",
        title="Live devices on loopback: PortAudio on a PulseAudio monitor, ffmpeg over UDP, the digits bundle",
        host=host(),
        conditions={
            "gil_hold_ms": HOLD_US // 1000,
            "load_s": load_s,
            "run_s": run_s,
            **versions("mmedge", "sounddevice", "av", "onnxruntime"),
        },
        evidence="cpu",
        rows=rows,
        targets={
            "reconnect_s": worst,
            "audio_overflows_busy_60s": overflows,
            "audio_gil_p99_vs_callback": ours_ms / plain_ms,
            # Buffers still fill in the first minute: a quick run cannot tell.
            **({} if quick else {"rss_slope_mb_per_min": slope}),
            "loopback_skew_ms": abs(offset.offset_ns) / 1e6,
        },
    )


if __name__ == "__main__":
    main(measure)
