"""Preprocessing on the CPU: raw frame or PCM to the network's tensor, beside OpenCV and numpy."""

from __future__ import annotations

import numpy as np

from benchmarks.goals import judged, load
from benchmarks.harness import BenchmarkReport, Peers, Row, compare, main, versions
from benchmarks.images import INSTRUCTIONS, camera, figures, frame_of
from benchmarks.limits import GOALS
from benchmarks.partners.numpy_mel import NumpyLogMel
from mmedge.bundle.manifest import AudioInput, ImageInput, LogMel
from mmedge.preprocess import AudioPreprocessor, ImagePreprocessor

try:
    from benchmarks.partners import opencv
except ModuleNotFoundError as error:
    if error.name != "cv2":
        raise
    opencv = None  # type: ignore[assignment]

DIGITS = ImageInput(size=(112, 112), color="gray", mean=(0.45,), std=(0.25,), reduce=4)
SPEECH = AudioInput(
    sample_rate_hz=8000,
    window_ms=1500,
    features=LogMel(
        n_fft=256, window_samples=200, hop_samples=125, n_mels=40, f_min_hz=20, f_max_hz=3800, mean=-6.0, std=4.0
    ),
)


def gray_row(rounds: int, *, full_range: bool) -> Row:
    yuv = camera(720, 640, 1)[..., 0]
    frame, out = frame_of(yuv, "yuv420p", 480, 640, full_range=full_range), np.empty(DIGITS.tensor_shape, np.float32)
    ours = ImagePreprocessor(DIGITS)
    peers: Peers = {"opencv best": None, "opencv typical": None}
    if opencv is not None:
        best, typical = opencv.BestGray(DIGITS, full_range=full_range), opencv.TypicalGray(DIGITS)
        ours.tensor(frame, out)
        assert np.abs(out - best(yuv)).max() < 2.0 / 255 / DIGITS.std[0], "a partner computes something else"
        peers = {"opencv best": lambda: best(yuv), "opencv typical": lambda: typical(yuv)}
    kind = "full" if full_range else "limited"
    return compare(f"yuv420p 640x480 ({kind} range) -> gray 112x112", lambda: ours.tensor(frame, out), peers, rounds)


def mel_row(rounds: int) -> Row:
    pcm = np.random.default_rng(0).normal(0, 0.1, SPEECH.samples).astype(np.float32)
    out = np.empty(SPEECH.tensor_shape, np.float32)
    ours, peer = AudioPreprocessor(SPEECH), NumpyLogMel(SPEECH)
    ours.tensor(pcm, out)
    assert np.abs(out - peer(pcm)).max() < 1e-3, "a partner computes something else"
    return compare(
        "1.5 s at 8 kHz -> log-mel 95x40", lambda: ours.tensor(pcm, out), {"numpy rfft": lambda: peer(pcm)}, rounds
    )


def measure(quick: bool) -> BenchmarkReport:
    """Preprocessing beside OpenCV and numpy, one thread each."""
    rounds = 300 if quick else 3000
    pictures, targets = figures(rounds)
    limited, full = gray_row(rounds, full_range=False), gray_row(rounds, full_range=True)
    mel = mel_row(rounds)
    goals = {name: value for name, value in targets.items() if name in GOALS}
    for name, row in (("digits", limited), ("log_mel", mel)):
        for peer, value in row.peers.items():
            if value is not None:
                targets[f"{name}_vs_{peer.replace(' ', '_')}"] = value / row.ours
    return judged(
        name="preprocess",
        title="Preprocessing on the CPU: microseconds per call, median (middle half), one thread, interleaved",
        conditions={
            **{"threads": 1, "rounds": rounds, "image instructions": INSTRUCTIONS, "load": load()},
            **versions("numpy", "opencv-python-headless", "kornia-rs"),
        },
        rows=[*pictures, limited, full, mel],
        targets=targets,
        goals=goals,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
