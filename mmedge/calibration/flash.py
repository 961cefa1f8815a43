"""Flashes and beeps: the instants at which a picture turns bright and a tone of 1 kHz sets in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmedge.types import NS_PER_S, Block, Frame

TONE_HZ = 1000
_SAMPLED = 64  # rows and columns of a picture that are looked at, about
_HOP_MS, _BOX_MS = 1, 4  # the box holds whole periods of the tone and of its double
_HOLD_NS = 300_000_000  # after a flash, in which there is no other
_NOISE = 8 * 1.4826  # times the median deviation


def brightness(frame: Frame) -> float:
    """Return the mean level of a picture, 0..255, from a grid of its pixels."""
    picture = frame.data[: frame.height]  # of what has planes, the luma
    down, across = max(1, frame.height // _SAMPLED), max(1, frame.width // _SAMPLED)
    return float(picture[::down, ::across].mean())


class ToneLevel:
    """The amplitude of the 1 kHz tone in a stream of blocks, once a millisecond.

    Args:
        rate_hz: Sample rate of the blocks, a multiple of 1000.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._hop, self._box = rate_hz * _HOP_MS // 1000, rate_hz * _BOX_MS // 1000
        self._tail = np.empty(0, np.float32)
        self._epoch = 0

    def feed(self, block: Block) -> Iterator[tuple[int, float]]:
        """Yield (time in ns, amplitude) of what is complete; the time is that of the middle of 4 ms."""
        if block.lost or block.epoch != self._epoch:
            self._tail, self._epoch = np.empty(0, np.float32), block.epoch
        samples = np.concatenate([self._tail, block.samples])
        steps = (len(samples) - self._box) // self._hop + 1
        if steps < 1:
            self._tail = samples
            return
        turned = samples * np.exp(-2j * np.pi * TONE_HZ / self._rate_hz * np.arange(len(samples)))
        total = np.concatenate([[0], np.cumsum(turned)])
        first = np.arange(steps) * self._hop
        levels = 2 / self._box * np.abs(total[first + self._box] - total[first])
        for start, level in zip(first.tolist(), levels.tolist(), strict=True):
            until_end = len(samples) - start - self._box / 2
            yield block.capture_ns - round(until_end * NS_PER_S / self._rate_hz), level
        self._tail = samples[steps * self._hop :]


@dataclass(frozen=True, slots=True)
class Rise:
    """A level passed half of its rise between two of its points.

    Attributes:
        before_ns: The last point below.
        after_ns: The first point above.
        at_ns: Where a straight line between them passes.
    """

    before_ns: int
    after_ns: int
    at_ns: int


class Rises:
    """Finds where a level suddenly rises and soon falls again, whatever it was before.

    Half of the rise is judged by its peak, so a first picture that was exposed for a part of the flash
    counts as bright only if it saw half of it: the time is that of the middle of the exposure.

    Args:
        window: How many points show what is usual.
        least: Rises of less are never seen.
    """

    def __init__(self, *, window: int, least: float) -> None:
        self._usual: deque[float] = deque(maxlen=window)
        self._least = least
        self._base = self._threshold = 0.0
        self._new = 0
        self._last = (0, 0.0)
        self._points: list[tuple[int, float]] = []

    def restart(self) -> None:
        """Forget everything: the times that follow are of another epoch."""
        self._usual.clear()
        self._points.clear()

    def feed(self, time_ns: int, level: float) -> Rise | None:
        """Take the next point; return a rise 0.3 s after it, when it is known that it was short."""
        last, self._last = self._last, (time_ns, level)
        if self._points:
            self._points.append(self._last)
            if time_ns - self._points[1][0] < _HOLD_NS:
                return None
            points, self._points = self._points, []
            return self._judge(points)
        if self._settled() and level > self._threshold:
            self._points = [last, self._last]
        else:
            self._usual.append(level)
            self._new += 1
        return None

    def _settled(self) -> bool:
        size = self._usual.maxlen or 0
        if len(self._usual) < size:
            self._new = size
            return False
        if self._new >= size // 8:
            levels = np.array(self._usual)
            self._base, self._new = float(np.median(levels)), 0
            spread = float(np.median(np.abs(levels - self._base)))
            self._threshold = self._base + max(self._least, _NOISE * spread)
        return True

    def _judge(self, points: list[tuple[int, float]]) -> Rise | None:
        half = (self._base + max(level for _, level in points)) / 2
        if points[-1][1] >= half:  # the light was switched on
            self._usual.clear()
            return None
        above = next(k for k, (_, level) in enumerate(points[1:], 1) if level >= half)
        (before_ns, low), (after_ns, high) = points[above - 1], points[above]
        share = min(1.0, max(0.0, (half - low) / (high - low))) if high > low else 1.0
        return Rise(before_ns, after_ns, before_ns + round(share * (after_ns - before_ns)))
