"""The digits bundle's work without mmedge: its networks by ONNX Runtime, its pictures by OpenCV, its sound by numpy.

What the hand-written loops share; how each gets its frames and its sound is in the loops themselves.
"""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

Floats = npt.NDArray[np.float32]
AUDIO_EVERY_NS = 100_000_000
cv2.setNumThreads(1)


def unpack(bundle: Path, folder: Path, precision: str) -> None:
    """Lay out what a loop needs of a bundle: ``manifest.json``, the labels, and each stage's network for the CPU."""
    with zipfile.ZipFile(bundle) as archive:
        (folder / "manifest.json").write_bytes(archive.read("manifest.json"))
        (folder / "labels.txt").write_bytes(archive.read("labels/digit.txt"))
        for stage in ("image_encoder", "audio_encoder", "fusion"):
            (folder / f"{stage}.onnx").write_bytes(archive.read(f"{stage}.cpu.{precision}.onnx"))


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open a network on one thread that does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Picture:
    """Luma, uint8 [480, 640] of limited range -> float32 [1, 1, 112, 112]: two resizes and a multiply-add."""

    def __init__(self, spec: dict[str, Any]) -> None:
        (height, width), (rows, columns) = spec["size"], spec["frame"]
        self._reduced = np.empty((rows // spec["reduce"], columns // spec["reduce"]), np.uint8)
        self._small = np.empty((height, width), np.uint8)
        self.out: Floats = np.empty((1, 1, height, width), np.float32)
        mean, std = spec["mean"][0], spec["std"][0]
        self._scale, self._bias = np.float32(1 / (219 * std)), np.float32(-(16 / 219 + mean) / std)

    def __call__(self, luma: npt.NDArray[np.uint8]) -> Floats:
        cv2.resize(luma, self._reduced.shape[::-1], dst=self._reduced, interpolation=cv2.INTER_AREA)
        cv2.resize(self._reduced, self._small.shape[::-1], dst=self._small)
        np.multiply(self._small, self._scale, out=self.out[0, 0])
        np.add(self.out[0, 0], self._bias, out=self.out[0, 0])
        return self.out


class LogMel:
    """float32 [samples] -> float32 [1, frames, n_mels]; only the frames that are new are computed, the rest moves up.

    Frames begin at multiples of the hop of the sound's own count: so a window begins up to one hop earlier than asked.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._features = features = spec["features"]
        self.rate_hz: int = spec["sample_rate_hz"]
        self.samples = round(spec["window_ms"] * self.rate_hz / 1000)
        self.hop: int = features["hop_samples"]
        self._width: int = features["window_samples"]
        frames = (self.samples - self._width) // self.hop + 1
        low, high = (2595 * np.log10(1 + features[key] / 700) for key in ("f_min_hz", "f_max_hz"))
        corners = 700 * (10 ** (np.linspace(low, high, features["n_mels"] + 2) / 2595) - 1)
        bins = np.arange(features["n_fft"] // 2 + 1)[:, None] * (self.rate_hz / features["n_fft"])
        left, peak, right = corners[:-2], corners[1:-1], corners[2:]
        rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
        self._filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
        self._hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._width) / self._width)).astype(np.float32)
        self.out: Floats = np.empty((1, frames, features["n_mels"]), np.float32)
        self._next = -1  # the frame after the last one that was computed

    def __call__(self, ring: Floats, written: int) -> Floats:
        """Return the features of the newest whole frames; ``ring`` [n] holds sample k at index k % n."""
        mel, count = self.out[0], self.out.shape[1]
        end = (written - self._width) // self.hop + 1
        new = count if self._next < 0 else min(end - self._next, count)
        if new > 0:
            mel[:-new] = mel[new:]
            starts = np.arange(end - new, end)[:, None] * self.hop + np.arange(self._width)
            pieces = np.where(starts < 0, 0, ring[starts % len(ring)]) * self._hann
            spectrum = np.fft.rfft(pieces, self._features["n_fft"])
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._filters
            np.log(np.maximum(power, self._features["floor"]), out=mel[-new:])
            mel[-new:] -= self._features["mean"]
            mel[-new:] /= self._features["std"]
            self._next = end
        return self.out


class Microphone:
    """PortAudio's callback copies into a ring; whoever answers reads where it ends."""

    def __init__(self, rate_hz: int, seconds: float = 4.0) -> None:
        import sounddevice

        self.ring: Floats = np.zeros(round(rate_hz * seconds), np.float32)
        self.written = 0
        self._stream = sounddevice.InputStream(
            device="pulse",
            samplerate=rate_hz,
            channels=1,
            blocksize=rate_hz // 100,
            latency="low",
            callback=self._take,
        )
        self._stream.start()

    def _take(self, data: Any, frames: int, time: Any, status: Any) -> None:
        at = self.written % len(self.ring)
        first = min(frames, len(self.ring) - at)
        self.ring[at : at + first] = data[:first, 0]
        self.ring[: frames - first] = data[first:, 0]
        self.written += frames

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()


class Digits:
    """The three networks and the reading of their answer.

    Args:
        folder: Made by ``unpack``.
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        self.picture, self.sound = Picture(manifest["inputs"]["image"]), LogMel(manifest["inputs"]["audio"])
        self._labels = (folder / "labels.txt").read_text().split()
        self._temperature = manifest["tasks"]["digit"]["temperature"]
        self._eye, self._ear, self._fuse = (
            session(folder / f"{name}.onnx") for name in ("image_encoder", "audio_encoder", "fusion")
        )
        self._heard: Floats | None = None
        self._heard_ns = 0
        self._text = np.zeros((1, 64), np.float32)  # nobody types
        self._present = np.array([[1, 1, 0]], np.float32)
        self._smooth: npt.NDArray[np.float64] | None = None
        self._answered_ns = 0

    def __call__(self, luma: npt.NDArray[np.uint8], ring: Floats, written: int) -> tuple[str, float]:
        """Answer a frame, with the newest sound: the sound's network runs ten times a second."""
        now_ns = time.monotonic_ns()
        if self._heard is None or now_ns - self._heard_ns >= AUDIO_EVERY_NS:
            self._heard = self._ear.run(["embedding"], {"x": self.sound(ring, written)})[0]
            self._heard_ns = now_ns
        seen = self._eye.run(["embedding"], {"x": self.picture(luma)})[0]
        given = {"image": seen, "audio": self._heard, "text": self._text, "present": self._present}
        logits = self._fuse.run(["digit"], given)[0].reshape(-1).astype(np.float64) / self._temperature
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        if self._smooth is not None:
            keep = np.exp((self._answered_ns - now_ns) / 200e6)
            scores = keep * self._smooth + (1 - keep) * scores
        self._smooth, self._answered_ns = scores, now_ns
        best = int(scores.argmax())
        return self._labels[best], float(scores[best])
