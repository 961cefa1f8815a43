"""Camera frames to tensors beside OpenCV and kornia-rs: one thread, frames from a ring, the instructions of AVX2.

A round of a candidate is one frame after the other, all of the ring: a picture that comes from a camera is not in the
nearest cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, Timing, interleave
from benchmarks.partners import read_floor
from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.preprocess import ImagePreprocessor, reference
from mmedge.preprocess.fit import Seen, tensor_fit
from mmedge.types import AnyArray, ByteArray, Description, Frame, PixelFormat

try:
    from benchmarks.partners import opencv
except ModuleNotFoundError as error:
    if error.name != "cv2":
        raise
    opencv = None  # type: ignore[assignment]
try:
    from benchmarks.partners import kornia
except ModuleNotFoundError as error:
    if error.name != "kornia_rs":
        raise
    kornia = None  # type: ignore[assignment]

RING = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What most machines have; wider registers are as quick here.
INSTRUCTIONS = next(name for name in ("avx2", *core.image_instructions()) if name in core.image_instructions())


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


def seat(height: int, width: int) -> ImageInput:
    return ImageInput(size=(224, 224), mean=MEAN, std=STD, frame=(height, width))


def ring(format: PixelFormat, height: int, width: int) -> list[Frame]:
    rows, channels = (height, 3) if format in ("bgr24", "rgb24") else (height * 3 // 2, 1)
    first = camera(rows, width, channels)
    pictures = [np.ascontiguousarray(np.roll(first, 2 * i, 1)) for i in range(RING)]
    full = channels == 3
    return [frame_of(p if full else p[..., 0], format, height, width, full_range=full) for p in pictures]


def turns(frames: Sequence[Frame], candidates: dict[str, Callable[[Frame], object]], rounds: int) -> Row:
    """Time candidates in turn, each over the whole ring; a missing one is not among them."""

    def round_of(candidate: Callable[[Frame], object]) -> Callable[[], object]:
        def over_the_ring() -> None:
            for frame in frames:
                candidate(frame)

        return over_the_ring

    calls = {name: round_of(candidate) for name, candidate in candidates.items()}
    timings = {
        name: Timing(*(value / len(frames) for value in (t.median, t.p25, t.p75)), n=t.n)
        for name, t in interleave(calls, rounds=max(rounds // len(frames), 10)).items()
    }
    medians = {name: timing.median for name, timing in timings.items() if name != "mmedge"}
    return Row("", "us", timings["mmedge"].median, {**medians}, None, timings)


def _ours(spec: ImageInput) -> tuple[Callable[[Frame], object], AnyArray]:
    preprocessor, out = ImagePreprocessor(spec, instructions=INSTRUCTIONS), np.empty(spec.tensor_shape, np.float32)
    return lambda frame: preprocessor.tensor(frame, out), out


def _checked(what: str, row: Row, missing: Sequence[str], beside: Sequence[str] = ()) -> Row:
    peers = {name: value for name, value in row.peers.items() if name not in beside}
    competing = [value for value in peers.values() if value is not None]
    ratio = min(competing) / row.ours if competing else None
    marks = {name: row.peers[name] for name in beside}
    return Row(what, "us", row.ours, {**peers, **dict.fromkeys(missing)}, ratio, row.timings, beside=marks)


def colour(height: int, width: int, rounds: int) -> tuple[Row, float]:
    """BGR to the tensor; also the largest error of ours, in grey levels."""
    spec, frames, rows = seat(height, width), ring("bgr24", height, width), _rows_needed(height, width)
    ours, out = _ours(spec)
    candidates: dict[str, Callable[[Frame], object]] = {"mmedge": ours}
    missing = []
    if opencv is not None:
        for name, peer in (
            ("opencv planes", opencv.BestColour(spec)),
            ("opencv blob", opencv.BlobColour(spec)),
            ("opencv typical", opencv.TypicalColour(spec)),
        ):
            candidates[name] = lambda frame, peer=peer: peer(frame.data)
    else:
        missing += ["opencv planes", "opencv blob", "opencv typical"]
    if kornia is not None:
        fused = kornia.Fused(spec)
        candidates["kornia-rs"] = lambda frame: fused(frame.data)  # its frames are RGB: as many bytes
    else:
        missing.append("kornia-rs")
    with tempfile.TemporaryDirectory() as folder:
        floor = read_floor.build(Path(folder))
        if floor is not None:
            read, written = floor, np.empty_like(out)
            candidates["read floor"] = lambda frame: read(frame.data, rows, written)
        else:
            missing.append("read floor")
        ours(frames[0])
        error = float((np.abs(out - reference.tensor(frames[0], spec)).max(axis=(0, 2, 3)) * STD).max()) * 255
        for name, peer in candidates.items():
            # OpenCV rounds the resized picture to whole grey levels.
            made = peer(frames[0]) if name.startswith("opencv") else None
            assert made is None or np.abs(out - made).max() < 1.0 / 255 / min(STD), "a partner computes something else"
        row = turns(frames, candidates, rounds)
    return _checked(f"bgr24 {width}x{height} -> rgb 224x224", row, missing, beside=["read floor"]), error


def _rows_needed(height: int, width: int) -> AnyArray:
    rows = tensor_fit(seat(height, width), Seen.of(ring("bgr24", height, width)[0])).rows
    centre = np.clip((np.arange(rows.length) + 0.5) * rows.step - 0.5, 0, height - 1).astype(int)
    return np.unique([centre, np.minimum(centre + 1, height - 1)]).astype(np.uint32)


def luma_and_chroma(format: PixelFormat, height: int, width: int, rounds: int) -> tuple[Row, float]:
    """NV12 or planar YUV to the tensor, beside OpenCV's conversion and its best path."""
    spec, frames = seat(height, width), ring(format, height, width)
    ours, out = _ours(spec)
    candidates: dict[str, Callable[[Frame], object]] = {"mmedge": ours}
    missing = []
    if opencv is not None:
        for name, peer in ("planes", opencv.BestColour(spec)), ("blob", opencv.BlobColour(spec)):
            whole = opencv.Yuv(spec, format, peer)
            candidates[f"opencv cvtColor + {name}"] = lambda frame, whole=whole: whole(frame.data)
    else:
        missing += ["opencv cvtColor + planes", "opencv cvtColor + blob"]
    ours(frames[0])
    error = float((np.abs(out - reference.tensor(frames[0], spec)).max(axis=(0, 2, 3)) * STD).max()) * 255
    for name, peer in candidates.items():
        made = peer(frames[0]) if name.startswith("opencv") else None
        assert made is None or np.abs(out - made).max() < 2.5 / 255 / min(STD), "a partner computes something else"
    return _checked(f"{format} {width}x{height} -> rgb 224x224", turns(frames, candidates, rounds), missing), error


def other_size(rounds: int) -> Row:
    """A camera of 1920x1080 at a seat whose frame is 640x480, beside a seat made for that camera."""
    frames = ring("bgr24", 1080, 1920)
    small, _ = _ours(seat(480, 640))
    own, _ = _ours(seat(1080, 1920))
    averaged, _ = _ours(ImageInput(size=(224, 224), mean=MEAN, std=STD, frame=(1080, 1920), reduce=2))
    candidates = {"mmedge": small, "a seat of its size": own, "a seat of its size, reduce=2": averaged}
    row = turns(frames, candidates, rounds)
    return _checked("bgr24 1920x1080 at a seat of 640x480", row, [], beside=list(row.peers))


def figures(rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Return the rows, and the figures that have goals; one whose partner is missing is left out."""
    vga, vga_error = colour(480, 640, rounds)
    hd, hd_error = colour(1080, 1920, rounds // 3)
    nv12, nv12_error = luma_and_chroma("nv12", 480, 640, rounds)
    i420, i420_error = luma_and_chroma("yuv420p", 480, 640, rounds)
    nv12_hd, nv12_hd_error = luma_and_chroma("nv12", 1080, 1920, rounds // 3)
    other = other_size(rounds // 3)

    def against(row: Row, *names: str) -> float | None:
        known = row.peers | row.beside
        values = [value for name in names if (value := known[name]) is not None]
        return min(values) / row.ours if values else None

    best, converted = ("opencv planes", "opencv blob"), ("opencv cvtColor + planes", "opencv cvtColor + blob")
    floor = against(hd, "read floor")
    found = {
        "image_480_vs_best_opencv": against(vga, *best),
        "image_480_vs_kornia": against(vga, "kornia-rs"),
        "image_480_vs_typical_opencv": against(vga, "opencv typical"),
        "image_1080_vs_best_opencv": against(hd, *best),
        "image_1080_vs_floor": 1 / floor if floor else None,
        "image_nv12_vs_opencv": against(nv12, *converted),
        "image_i420_vs_opencv": against(i420, *converted),
        "image_nv12_1080_vs_opencv": against(nv12_hd, *converted),
        "image_other_size_vs_own": 1 / (against(other, "a seat of its size") or float("nan")),
        "image_max_error_gray_levels": max(vga_error, hd_error, nv12_error, i420_error, nv12_hd_error),
    }
    rows = [vga, hd, nv12, i420, nv12_hd, other]
    return rows, {name: value for name, value in found.items() if value is not None}
