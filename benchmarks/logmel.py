"""Streaming log-mel: samples in the ring to the context in the engine's array, beside kaldi-native-fbank and numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.goals import judged, load
from benchmarks.harness import BenchmarkReport, Row, compare, interleave, main, versions
from benchmarks.limits import GOALS
from benchmarks.partners.numpy_mel import NumpyStreamingLogMel
from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, LogMel
from mmedge.fusion.feed import AudioFeed
from mmedge.sync import RingReader
from mmedge.types import FloatArray, Snapshot

try:
    from benchmarks.partners.knf import KnfLogMel
except ModuleNotFoundError as error:
    if error.name != "kaldi_native_fbank":
        raise
    KnfLogMel = None  # type: ignore[assignment, misc]

RATE_HZ = 16_000
SECOND, N_FFT = "ours, context of 1 s", "ours, n_fft 512"


def seat(frames: int = 98, n_fft: int = 512) -> AudioInput:
    """Return a seat whose newest frame ends with its newest sample: 98 frames are a second, but for 5 ms."""
    features = LogMel(
        n_fft=n_fft, window_samples=400, hop_samples=160, n_mels=64, f_min_hz=20, f_max_hz=7600, mean=-6.0, std=4.0
    )
    return AudioInput(sample_rate_hz=RATE_HZ, window_ms=10 * frames + 15, features=features)


class Microphone:
    """Noise that comes in steps into a ring, as the synchroniser writes it."""

    def __init__(self, step_ms: int) -> None:
        self.step = step_ms * RATE_HZ // 1000
        self._noise = np.random.default_rng(0).normal(0, 0.1, (64, self.step)).astype(np.float32)
        self._turn = 0
        self._ring = core.SampleRing(16 * RATE_HZ)
        self._reader = RingReader({"audio": self._ring})
        self._snapshot = Snapshot(t_ns=0, seq=0, present={"audio": True})
        for _ in range(12 * RATE_HZ // self.step):
            self()

    def __call__(self) -> None:
        """Let a step come."""
        self._turn += 1
        self.block = self._noise[self._turn % len(self._noise)]
        self._snapshot.audio_end["audio"] = self._ring.write(self.block)

    def runtime(self, spec: AudioInput) -> tuple[Callable[[], None], FloatArray]:
        """Return what the runtime calls for a stage, and the array that it writes."""
        feed, out = AudioFeed("audio", spec, raw=False), np.zeros(spec.tensor_shape, np.float32)
        snapshot, reader = self._snapshot, self._reader
        return lambda: feed.fill(snapshot, out, reader), out


def beside_partners(step_ms: int, rounds: int) -> Row:
    """Time an update of a second's context beside the partners, and see that they compute the same."""
    spec, microphone = seat(), Microphone(step_ms)
    ours, out = microphone.runtime(spec)
    by_numpy, numpy_out = NumpyStreamingLogMel(spec, microphone.step), np.zeros_like(out)
    peers: dict[str, Callable[[], object] | None] = {
        "numpy, new frames": lambda: by_numpy(microphone.block, numpy_out),
        "kaldi-native-fbank": None,
    }
    if KnfLogMel is not None:
        by_knf, knf_out = KnfLogMel(spec), np.zeros_like(out)
        by_knf.begin(np.zeros(240, np.float32))  # from now on the newest frame ends with the newest sample
        peers["kaldi-native-fbank"] = lambda: by_knf(microphone.block, knf_out)
    row = compare(f"{step_ms} ms new, context of 1 s", ours, peers, rounds, microphone)
    assert np.abs(out - numpy_out).max() < 1e-3, "a partner computes something else"
    # Its window is the symmetric one, and its triangles are straight in mel.
    assert KnfLogMel is None or np.abs(out - knf_out).mean() < 0.01, "a partner computes something else"
    return row


def beside_ourselves(rounds: int) -> tuple[Row, Row]:
    """Time an update of 20 ms with ten times the context, and with a transform of 400 samples."""
    microphone = Microphone(20)
    long, short, other = seat(998), seat(), seat(n_fft=400)
    (ten, out), (one, _), (of_400, _) = (microphone.runtime(spec) for spec in (long, short, other))
    source = np.zeros_like(out)
    candidates = {
        "10 s": ten,
        "1 s": one,
        "n_fft 400": of_400,
        "copy": lambda: np.copyto(out, source),
    }
    took = interleave(candidates, rounds=rounds, before=microphone)
    ours = {name: timing.median for name, timing in took.items()}

    def row(what: str, name: str, beside: dict[str, float]) -> Row:
        return Row(what, "us", ours[name], {}, None, {"mmedge": took[name]}, beside={**beside})

    marks = {SECOND: ours["1 s"], "copying 998x64 numbers once": ours["copy"]}
    return row("20 ms new, context of 10 s", "10 s", marks), row(
        "20 ms new, n_fft 400", "n_fft 400", {N_FFT: ours["1 s"]}
    )


def measure(quick: bool) -> BenchmarkReport:
    """Updates of a streaming log-mel as the runtime makes them: the whole Python call, one thread."""
    rounds = 1000 if quick else 10_000
    often, seldom = beside_partners(20, rounds), beside_partners(100, rounds)
    length, size = beside_ourselves(rounds)
    targets = {
        "audio_fill_us": often.ours,
        "logmel_10s_vs_1s": length.ours / (length.beside[SECOND] or float("nan")),
        "logmel_400_vs_512": size.ours / (size.beside[N_FFT] or float("nan")),
    }
    for name, row in ("20ms", often), ("100ms", seldom):
        for partner, peer in ("knf", "kaldi-native-fbank"), ("numpy", "numpy, new frames"):
            value = row.peers[peer]
            if value is not None:
                targets[f"logmel_{name}_vs_{partner}"] = value / row.ours
    limited = {name: value for name, value in targets.items() if name in GOALS}
    return judged(
        name="logmel",
        title="Streaming log-mel, 16 kHz, 25/10 ms, 64 mel: ring of samples to the engine's array, one call, medians",
        conditions={"threads": 1, "rounds": rounds, "load": load(), **versions("numpy", "kaldi-native-fbank")},
        rows=[often, seldom, length, size],
        targets=targets,
        goals=limited,
    )


if __name__ == "__main__":
    main(measure)
