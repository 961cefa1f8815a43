"""Preprocessing on the CPU: raw frame or PCM to the network's tensor, beside OpenCV and numpy."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import BenchmarkReport, Peers, Row, compare, host, main, versions
from benchmarks.partners.numpy_mel import NumpyLogMel
from mmedge.bundle.manifest import AudioInput, ImageInput, LogMel
from mmedge.preprocess import AudioPreprocessor, ImagePreprocessor
from mmedge.types import ByteArray, Description, Frame, PixelFormat

try:
    from benchmarks.partners import opencv
except ModuleNotFoundError as error:
    if error.name != "cv2":
        raise
    opencv = None  # type: ignore[assignment]

IMAGENET = ImageInput(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
DIGITS = ImageInput(size=(112, 112), color="gray", mean=(0.45,), std=(0.25,), reduce=4)
SPEECH = AudioInput(
    sample_rate_hz=8000,
    window_ms=1500,
    features=LogMel(
        n_fft=256, window_samples=200, hop_samples=125, n_mels=40, f_min_hz=20, f_max_hz=3800, mean=-6.0, std=4.0
    ),
)


def camera(height: int, width: int, channels: int) -> ByteArray:
    """Smooth shapes with sensor noise: what a camera sees, repeatable."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    smooth = 126 + 90 * np.sin(x / 37 + c) * np.cos(y / 23)
    return (smooth + np.random.default_rng(0).normal(0, 4, smooth.shape)).clip(16, 235).astype(np.uint8)


def frame_of(data: ByteArray, format: PixelFormat, height: int, width: int, *, full_range: bool = True) -> Frame:
    return Frame(
        stream="image",
        seq=0,
        capture_ns=0,
        arrive_ns=0,
        data=data,
        format=format,
        width=width,
        height=height,
        description=Description(full_range=full_range),
    )


def colour_row(height: int, width: int, rounds: int) -> Row:
    spec = ImageInput(size=IMAGENET.size, mean=IMAGENET.mean, std=IMAGENET.std, frame=(height, width))
    bgr = camera(height, width, 3)
    frame, out = frame_of(bgr, "bgr24", height, width), np.empty(spec.tensor_shape, np.float32)
    ours = ImagePreprocessor(spec)
    peers: Peers = {"opencv best": None, "opencv typical": None}
    if opencv is not None:
        best, typical = opencv.BestColour(spec), opencv.TypicalColour(spec)
        ours.tensor(frame, out)
        # OpenCV rounds the resized picture to whole grey levels, hence half a level between us.
        for peer in best(bgr), typical(bgr):
            assert np.abs(out - peer).max() < 1.0 / 255 / min(spec.std), "a partner computes something else"
        peers = {"opencv best": lambda: best(bgr), "opencv typical": lambda: typical(bgr)}
    return compare(f"bgr24 {width}x{height} -> rgb 224x224", lambda: ours.tensor(frame, out), peers, rounds)


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
    vga, hd = colour_row(480, 640, rounds), colour_row(1080, 1920, rounds // 3)
    limited, full = gray_row(rounds, full_range=False), gray_row(rounds, full_range=True)
    mel = mel_row(rounds)
    targets = {}
    for name, row in (("vga", vga), ("hd", hd), ("digits", limited), ("log_mel", mel)):
        for peer, value in row.peers.items():
            if value is not None:
                targets[f"{name}_vs_{peer.replace(' ', '_')}"] = value / row.ours
    return BenchmarkReport(
        name="preprocess",
        title="Preprocessing on the CPU: microseconds per call, median (middle half), one thread, interleaved",
        host=host(),
        conditions={"threads": 1, "rounds": rounds, **versions("numpy", "opencv-python-headless")},
        evidence="cpu",
        rows=[vga, hd, limited, full, mel],
        targets=targets,
    )


if __name__ == "__main__":
    main(measure)
