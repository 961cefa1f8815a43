"""Sound for the page: its envelope and spectrum, in columns of 20 ms."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from mmedge.privacy import Privacy, heard
from mmedge.sound_cut import Sound
from mmedge.types import FloatArray

COLUMNS_PER_S = 50
BANDS = 40
KEPT_S = 12
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 8000.0
_FLOOR_DB = 85.0  # below a sine of full scale: black
_LOUDNESS = 5  # columns that have one loudness where no more may be told


class Column(NamedTuple):
    """20 ms of sound.

    Attributes:
        number: Running number.
        end_ns: When they ended.
        data: Least and greatest sample as int8, then the level of each band as uint8; or the loudness alone.
    """

    number: int
    end_ns: int
    data: bytes


class SoundTrack:
    """Makes the columns of one input's sound; the newest are kept.

    Args:
        rate_hz: Samples a second.
        privacy: ``none``: none are made; ``blur``: how loud it is, ten times a second, and nothing else.
    """

    def __init__(self, rate_hz: int, privacy: Privacy) -> None:
        self._rate_hz, self._privacy = rate_hz, privacy
        self.bands = BANDS if heard(privacy) else 0
        self.columns: deque[Column] = deque(maxlen=KEPT_S * COLUMNS_PER_S)
        self.end: int | None = None  # of what was taken
        self._n = 1 << max(7, int(rate_hz * 0.032).bit_length())
        self._window = np.hanning(self._n).astype(np.float32)
        self._edges = _band_edges(rate_hz, self._n)
        self._past: FloatArray = np.zeros(self._n, np.float32)
        self._rest: FloatArray = np.zeros(0, np.float32)
        self._number = 0

    def take(self, sound: Sound) -> None:
        """Add the columns that ``sound`` completes; it goes on where the last one ended."""
        if self._privacy == "none":
            return
        if self.end is not None and sound.end - len(sound.samples) != self.end:  # nobody looked, or it was overwritten
            self._rest, self._past = self._rest[:0], np.zeros_like(self._past)
        self.end = sound.end
        samples = np.concatenate((self._rest, sound.samples))
        hop = max(1, self._rate_hz // COLUMNS_PER_S) * (1 if self.bands else _LOUDNESS)
        first = sound.end - len(samples)
        whole = len(samples) // hop
        self._rest = samples[whole * hop :].copy()
        if not whole:
            return
        context = np.concatenate((self._past, samples[: whole * hop]))
        self._past = context[-self._n :].copy()
        for index in range(whole):
            piece = context[self._n + index * hop : self._n + (index + 1) * hop]
            end_ns = sound.end_ns - (sound.end - first - (index + 1) * hop) * 1_000_000_000 // self._rate_hz
            if self.bands:
                extent = np.clip(np.round(np.array([piece.min(), piece.max()]) * 127), -127, 127).astype(np.int8)
                stop = (index + 1) * hop + self._n
                data = extent.tobytes() + self._levels(context[stop - self._n : stop]).tobytes()
                self._add(end_ns, data)
            else:
                loud = min(127, round(float(np.sqrt(np.mean(np.square(piece)))) * 180))
                for part in range(_LOUDNESS):
                    back_ns = (_LOUDNESS - 1 - part) * 1_000_000_000 // COLUMNS_PER_S
                    self._add(end_ns - back_ns, bytes([256 - loud & 255, loud]))

    def _add(self, end_ns: int, data: bytes) -> None:
        self._number += 1
        self.columns.append(Column(self._number, end_ns, data))

    def _levels(self, samples: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        power = np.square(np.abs(np.fft.rfft(samples * self._window))) * (4.0 / np.square(self._window.sum()))
        bands = np.maximum.reduceat(power, self._edges)
        db = 10.0 * np.log10(np.maximum(bands, 1e-12))
        levels: np.ndarray[tuple[int], np.dtype[np.uint8]] = np.clip((db / _FLOOR_DB + 1.0) * 255, 0, 255).astype(
            np.uint8
        )
        return levels


def _band_edges(rate_hz: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the first bin of each band: even steps of pitch, at least one bin each."""
    highest_hz = min(_HIGHEST_HZ, rate_hz / 2)
    low, high = (1127.0 * np.log1p(f / 700.0) for f in (_LOWEST_HZ, highest_hz))
    edges_hz = 700.0 * np.expm1(np.linspace(low, high, BANDS + 1)[:-1] / 1127.0)
    edges = np.round(edges_hz * n / rate_hz).astype(np.intp)
    for band in range(1, BANDS):
        edges[band] = max(edges[band], edges[band - 1] + 1)
    last: np.ndarray[tuple[int], np.dtype[np.intp]] = np.minimum(edges, n // 2)
    return last
