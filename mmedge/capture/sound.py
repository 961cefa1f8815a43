"""Mono sound of one rate on one timeline: resampled without seams, every missing sample counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from mmedge.extras import require
from mmedge.types import NS_PER_S, FloatArray

GAP_NS = 20_000_000  # between the stamp and the end of the samples before: a gap or an overlap
PIECE_MS = 10  # of sound in one block, as microphones give it


class Piece(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Samples at the output rate, the time after the last of them, and how many are missing before them."""

    samples: FloatArray
    end_ns: int
    lost: int = 0


class MonoTrack:
    """Resamples one stream of sound and keeps its time exact.

    Output sample k stands for input time k / out_rate (soxr compensates its own delay), so the time of
    the output follows from counting samples from an anchor; the anchor is moved by what the time
    stamps say: slowly for drift, at once (with ``lost`` samples) for a gap. Pieces are at most 10 ms
    long, so that a reader can bring them into one order with frames.

    Args:
        in_rate_hz: Rate of what is fed.
        out_rate_hz: Rate of what comes out.
        grain_ns: How coarse the time stamps are: within that they say nothing about drift (Matroska's are whole ms).
        low_delay: Choose the filter by delay. soxr's HQ holds sound back for up to 155 ms (48 to 8 kHz), its
            variable-rate filter for 30 ms at 115 dB of stop band; the latter's output is 2 samples late.
    """

    def __init__(self, in_rate_hz: int, out_rate_hz: int, *, low_delay: bool = False, grain_ns: float = 0.0) -> None:
        self.in_rate_hz = in_rate_hz
        self.out_rate_hz = out_rate_hz
        self.low_delay = low_delay
        self.grain_ns = grain_ns
        self.lost = 0
        self.overlapped = 0
        self._resampler: Any = None
        self._anchor_ns: float | None = None
        self._in = 0
        self._out = 0
        self._end_ns: int | None = None  # after the last sample that came out

    def feed(self, samples: FloatArray, start_ns: int) -> Iterator[Piece]:
        """Take mono float32 samples whose first was sensed at ``start_ns``; yield what is ready.

        ``samples`` is [n], -1..1.
        """
        expected = self._end_ns if self._anchor_ns is None else self._anchor_ns + self._in * NS_PER_S / self.in_rate_hz
        if expected is not None:
            error = start_ns - expected
            if error > GAP_NS:
                yield from self.finish()
            elif error < -GAP_NS:
                overlap = min(len(samples), round(-error * self.in_rate_hz / NS_PER_S))
                self.overlapped += overlap
                samples, start_ns = samples[overlap:], start_ns + overlap * NS_PER_S // self.in_rate_hz
            elif self._anchor_ns is not None:
                beyond_ns = max(abs(error) - self.grain_ns, 0.0)
                self._anchor_ns += math.copysign(0.01 * beyond_ns, error)  # follows 100 ppm of drift
        if not len(samples):
            return
        if self._anchor_ns is None:
            self._anchor_ns = float(start_ns)
            if self.in_rate_hz != self.out_rate_hz:
                soxr = require("soxr", "resampling sound")
                self._resampler = soxr.ResampleStream(
                    self.in_rate_hz, self.out_rate_hz, 1, dtype="float32", vr=self.low_delay
                )
        self._in += len(samples)
        yield from self._give(samples if self._resampler is None else self._resampler.resample_chunk(samples))

    def hole(self, until_ns: int, start_ns: int | None = None) -> Iterator[Piece]:
        """Declare that there is no sound up to ``until_ns``; at the very beginning, from ``start_ns`` on."""
        yield from self.finish()
        if self._end_ns is None:
            self._end_ns = start_ns
        lost = self._missing(until_ns)
        if lost:
            self._end_ns = until_ns
            yield Piece(samples=np.empty(0, np.float32), end_ns=until_ns, lost=lost)

    def finish(self) -> Iterator[Piece]:
        """Yield what the resampler still holds; the next ``feed`` starts at its own time stamp."""
        if self._anchor_ns is not None:
            if self._resampler is not None:
                yield from self._give(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
            self._anchor_ns, self._resampler, self._in, self._out = None, None, 0, 0

    def restart(self) -> None:
        """Take what is fed next as the beginning of a new timeline: nothing is missing before it."""
        self._anchor_ns, self._resampler, self._in, self._out, self._end_ns = None, None, 0, 0, None

    def _give(self, samples: FloatArray) -> Iterator[Piece]:
        assert self._anchor_ns is not None
        step = max(1, self.out_rate_hz * PIECE_MS // 1000)
        for first in range(0, len(samples), step):
            piece = samples[first : first + step]
            lost = self._missing(round(self._anchor_ns)) if self._out == 0 else 0
            self._out += len(piece)
            self._end_ns = round(self._anchor_ns + self._out * NS_PER_S / self.out_rate_hz)
            yield Piece(samples=piece, end_ns=self._end_ns, lost=lost)

    def _missing(self, start_ns: int) -> int:
        lost = 0 if self._end_ns is None else max(0, round((start_ns - self._end_ns) * self.out_rate_hz / NS_PER_S))
        self.lost += lost
        return lost
