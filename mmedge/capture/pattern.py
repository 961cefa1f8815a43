"""The pictures and sound of a simulated device: pictures with their time burnt in, sound with time marks.

World time is CLOCK_MONOTONIC itself, so every simulated device of a machine sees and hears the same
world: at each whole second a flash, one frame long, and a beep of 1 kHz that begins at that instant.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.types import NS_PER_S, ByteArray, FloatArray

BEEP_S = 0.05
_BITS = 36  # of milliseconds: two years of uptime
_BLOCKS = _BITS + 4  # whole bytes
_STRIP = 12  # the time code takes this part of the height
_DARK, _BRIGHT = 96, 160
_SWEEP_NS = 2 * NS_PER_S
_AHEAD_S = 1.0  # of sound that is made at once: arithmetic on blocks of 10 ms is mostly calls


class Picture:
    """Paints the world as yuv420p of full range: a moving wave, the flash, the time code on top.

    Args:
        width: Even number of columns.
        height: Even number of rows.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        x, y = np.arange(width) / width, np.arange(height)[:, None] / height
        luma = (72 + 48 * np.sin(2 * np.pi * (4 * x + 2 * y))).astype(np.uint8)
        chroma = np.linspace(96, 160, height // 2).astype(np.uint8)[:, None].repeat(width, axis=1)
        # A picture is a window that slides over it, over rows of one colour as well: no arithmetic per frame, one copy.
        self._wave = np.hstack(2 * [np.vstack([luma, chroma])])
        self._blocks = np.bincount(np.arange(width) * _BLOCKS // width, minlength=_BLOCKS)

    def paint(self, slot: ByteArray, time_ns: int) -> None:
        """Write the world at ``time_ns`` into ``slot``, uint8 (height * 3 / 2, width), contiguous."""
        if time_ns % NS_PER_S:
            shift = time_ns % _SWEEP_NS * self.width // _SWEEP_NS
            slot[...] = self._wave[:, shift : shift + self.width]
        else:
            slot[: self.height], slot[self.height :] = 255, 128
        row, rows = _encode(time_ns // 1_000_000).repeat(self._blocks), self.height // _STRIP
        # As bytes: for so few, numpy would let go of the interpreter, which takes longer than the copy.
        slot.data.cast("B")[: rows * self.width] = row.tobytes() * rows


def _encode(time_ms: int) -> ByteArray:
    time_ms %= 1 << _BITS
    code = (time_ms << 4 | _check(time_ms)).to_bytes(_BLOCKS // 8, "big")
    bits: ByteArray = np.unpackbits(np.frombuffer(code, np.uint8))
    return np.negative(bits, out=bits)  # 1 becomes 255


def _check(time_ms: int) -> int:
    return time_ms % 15 + 1  # neither a black nor a white strip is a time


def read_time_code(picture: npt.NDArray[np.uint8]) -> int | None:
    """Read the time that a simulated device burnt into its picture.

    Args:
        picture: uint8 (height, width), or (height, width, 3) in any order of colours; may have been scaled.
            Of yuv420p and nv12 give the luma: ``frame.data[: frame.height]``.

    Returns:
        The true capture time in whole ms on CLOCK_MONOTONIC, None if no time code can be read.

    Example:
        >>> picture = Picture(160, 64)
        >>> slot = np.empty((96, 160), np.uint8)
        >>> picture.paint(slot, 1_234_567_890)
        >>> read_time_code(slot[:64])
        1234
    """
    height, width = picture.shape[:2]
    rows = picture[height // (4 * _STRIP) : max(1, 3 * height // (4 * _STRIP))]
    columns = (np.arange(_BLOCKS) + 0.5) * width / _BLOCKS
    level = rows.reshape(len(rows), width, -1).mean(axis=(0, 2))[columns.astype(int)]
    if width < _BLOCKS or not np.all((level < _DARK) | (level > _BRIGHT)):
        return None
    code = int("".join("1" if bright else "0" for bright in level > _BRIGHT), 2)
    return code >> 4 if _check(code >> 4) == code & 15 else None


def hear(start_ns: int, samples: int, rate_hz: float, noise: np.random.Generator) -> FloatArray:
    """Return what is heard: a quiet tone of 200 Hz, noise, and the beep of every whole second.

    Args:
        start_ns: World time of the first sample.
        samples: How many.
        rate_hz: True sample rate.
        noise: Where the noise comes from; no two blocks are the same.

    Returns:
        float32 (samples,), -1..1.
    """
    t = start_ns % NS_PER_S / NS_PER_S + np.arange(samples) / rate_hz
    sound = 0.01 * np.sin(2 * np.pi * 200 * t) + 0.001 * noise.standard_normal(samples)
    beep = t % 1.0 < BEEP_S
    if beep.any():
        sound += beep * 0.5 * np.sin(2 * np.pi * 1000 * t)
    return sound.astype(np.float32)


class Sound:
    """What one microphone hears, from when it is opened: ``hear``, made some time ahead.

    Args:
        rate_hz: True sample rate.
        noise: Where the noise comes from.
    """

    def __init__(self, rate_hz: float, noise: np.random.Generator) -> None:
        self._rate_hz, self._noise = rate_hz, noise
        self._samples: FloatArray = np.empty(0, np.float32)
        self._first = 0

    def take(self, first: int, samples: int, start_ns: int) -> FloatArray:
        """Return samples from number ``first`` on, which was sensed at ``start_ns``: float32 (samples,), -1..1.

        A view that nobody else writes; numbers rise from call to call.
        """
        begin = first - self._first
        if begin + samples > len(self._samples):
            count = max(samples, round(_AHEAD_S * self._rate_hz))
            self._samples, self._first, begin = hear(start_ns, count, self._rate_hz, self._noise), first, 0
        return self._samples[begin : begin + samples]
