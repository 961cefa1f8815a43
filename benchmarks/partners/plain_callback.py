"""What one writes by hand: sounddevice's callback computes the features, in the user's own process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from mmedge.bundle.manifest import AudioInput
from mmedge.preprocess import AudioPreprocessor


class PlainCallback:
    """Keeps a window of sound and computes its features in each callback.

    Args:
        spec: The audio seat.
        block_ms: Length of a block.

    Attributes:
        delays_ms: From the arrival that the fastest callback shows to be possible, to finished features.
    """

    def __init__(self, spec: AudioInput, *, block_ms: int = 10) -> None:
        import sounddevice

        self._preprocess = AudioPreprocessor(spec)
        self._window = np.zeros(spec.samples, np.float32)
        self._out = np.empty(spec.tensor_shape, np.float32)
        self._rate_hz = spec.sample_rate_hz
        self._n = 0
        self._entries: list[tuple[int, int, int]] = []
        self.overflows = 0
        self._stream = sounddevice.InputStream(
            device="pulse",
            samplerate=spec.sample_rate_hz,
            channels=1,
            blocksize=spec.sample_rate_hz * block_ms // 1000,
            latency="low",
            callback=self._callback,
        )

    def _callback(self, data: Any, frames: int, _: Any, status: Any) -> None:
        entry_ns = time.monotonic_ns()
        self.overflows += bool(status.input_overflow)
        self._n += frames
        self._window = np.roll(self._window, -frames)
        self._window[-frames:] = data[:, 0]
        self._preprocess.tensor(self._window, self._out)
        self._entries.append((self._n, entry_ns, time.monotonic_ns()))

    def __enter__(self) -> PlainCallback:
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def delays_ms(self) -> list[float]:
        # Counting samples gives each block's due time; the least delayed callback anchors it.
        late = [(n * 1_000_000_000 // self._rate_hz, entry, done) for n, entry, done in self._entries]
        anchor = min(entry - due for due, entry, _ in late)
        return [(done - due - anchor) / 1e6 for due, _, done in late]
