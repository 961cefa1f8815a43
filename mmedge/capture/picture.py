"""One stream of pictures: slots to write them into, and whether the camera is frozen."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from mmedge._native import core
from mmedge.ipc.frames import FramePool, Loan
from mmedge.types import ByteArray, PixelFormat

SLOTS = 16
_FPS, _SPARE = 40, 4


def slots_for(hold_ns: int) -> int:
    """Return how many slots a camera needs whose frames may be held for ``hold_ns``.

    Example:
        >>> slots_for(300_000_000), slots_for(1_800_000_000)
        (16, 76)
    """
    return max(SLOTS, math.ceil(hold_ns * _FPS / 1e9) + _SPARE)


class PictureTrack:
    """Lends slots of the right geometry and watches whether pictures change.

    Args:
        live: True: with all slots in use the picture is dropped and counted. False: wait for a slot.
        slots: Says how many frames may be in use at once; asked when the first one comes.
    """

    def __init__(self, *, live: bool, slots: Callable[[], int] = lambda: SLOTS) -> None:
        self.live = live
        self._slots = slots
        self._pool: FramePool | None = None
        self._fingerprint: int | None = None
        self._changed_ns = 0

    def slot(self, shape: tuple[int, ...], stop: threading.Event) -> tuple[ByteArray, Loan] | None:
        """Lend a slot of ``shape``; None if the picture is to be dropped (or ``stop`` is set).

        The slot is uint8 [...], as ``shape`` says.
        """
        if self._pool is None or self._pool.shape != shape:
            self._pool = FramePool(shape, slots=self._slots())  # the old one lives as long as its last frame
        if not self.live:
            while not stop.is_set():
                lent = self._pool.acquire(timeout_s=0.1)
                if lent is not None:
                    return lent
            return None
        return self._pool.acquire()

    def unchanged_ns(self, picture: ByteArray, capture_ns: int) -> int:
        """Return for how long ``picture`` (contiguous bytes) has been bit-identical.

        The picture is uint8 of any shape.
        """
        # A number of every byte costs 0.02 ms at 640x480 and needs no second copy of the picture.
        fingerprint = core.fingerprint(picture)
        if fingerprint != self._fingerprint:
            self._fingerprint, self._changed_ns = fingerprint, capture_ns
        return capture_ns - self._changed_ns


DEEP = ("p010le", "yuv420p10le")  # samples of 10 bits in two bytes


def planes_of(format: PixelFormat, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return rows and bytes a row of each plane of a packed picture; sides are even where chroma is shared.

    Example:
        >>> planes_of("yuv422p", 48, 64)
        ((48, 64), (48, 32), (48, 32))
    """
    match format:
        case "gray8":
            return ((height, width),)
        case "rgb24" | "bgr24":
            return ((height, 3 * width),)
        case "nv12":
            return (height, width), (height // 2, width)
        case "yuv420p":
            return (height, width), *2 * ((height // 2, width // 2),)
        case "yuyv422":
            return ((height, 2 * width),)
        case "p010le":
            return (height, 2 * width), (height // 2, 2 * width)
        case "yuv420p10le":
            return (height, 2 * width), *2 * ((height // 2, width),)
        case "yuv422p":
            return (height, width), *2 * ((height, width // 2),)
        case "yuv444p":
            return 3 * ((height, width),)


def frame_shape(format: PixelFormat, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of ``Frame.data``.

    Example:
        >>> frame_shape("yuv420p", 48, 64), frame_shape("rgb24", 48, 64)
        ((72, 64), (48, 64, 3))
    """
    if format in ("rgb24", "bgr24"):
        return height, width, 3
    if format == "yuyv422":
        return height, width, 2
    if format in DEEP:
        return height * 3 // 2, 2 * width
    return sum(rows * columns for rows, columns in planes_of(format, height, width)) // width, width


def sides_of(format: PixelFormat, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return height and width of a picture whose ``Frame.data`` has this shape; None if it cannot be one.

    Example:
        >>> sides_of("yuv420p", (72, 64)), sides_of("rgb24", (48, 64, 3)), sides_of("rgb24", (48, 64))
        ((48, 64), (48, 64), None)
    """
    if len(shape) < 2:
        return None
    one = 64  # pixels of a side, from which all formats have whole parts
    rows, columns, *_ = frame_shape(format, one, one)
    height, width = shape[0] * one // rows, shape[1] * one // columns
    fits = min(height, width) > 0 and even_sides(format, height, width) == (height, width)
    return (height, width) if fits and frame_shape(format, height, width) == shape else None


def even_sides(format: PixelFormat, height: int, width: int) -> tuple[int, int]:
    """Return the largest height and width that the format can have: shared chroma needs even ones."""
    quartered = format in ("yuv420p", "nv12", *DEEP)
    halved = quartered or format in ("yuv422p", "yuyv422")
    return height & ~1 if quartered else height, width & ~1 if halved else width


@lru_cache(maxsize=16)
def _narrowing(bits: int, *, full_range: bool, chroma: bool) -> ByteArray:
    """Return the 8 bits, rounded, of every value that ``bits`` can hold."""
    values = np.arange(1 << bits, dtype=np.float64)
    if not full_range:
        values /= 1 << (bits - 8)
    else:
        zero = (1 << (bits - 1), 128) if chroma else (0, 0)
        values = (values - zero[0]) * (255 / ((1 << bits) - 1)) + zero[1]
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


def copy_planes(
    frame: Any, slot: ByteArray, format: PixelFormat, height: int, width: int, *, full_range: bool = True
) -> None:
    """Copy the planes of a PyAV frame into a packed slot, rounded to 8 bits where they have more than the format.

    Args:
        frame: ``av.VideoFrame`` with the layout of ``format``, its samples of 8 bits or of up to 16, little-endian.
        slot: uint8, contiguous, of the shape [...] that ``frame_shape`` gives.
        format: Of the slot.
        height: Rows to take, as ``even_sides`` says.
        width: Columns to take.
        full_range: Of the picture; matters to more than 8 bits.
    """
    planes = zip(frame.planes, planes_of(format, height, width), strict=False)
    bits = frame.format.components[0].bits
    if bits <= 8 or format in DEEP:
        # Of a plane as it is the strides would be read, too: PyAV 18 leaves them to chance.
        told = [(memoryview(plane), plane.line_size, rows, columns) for plane, (rows, columns) in planes]
        core.copy_planes(told, slot)
        return
    flat, start = slot.reshape(-1), 0
    for number, (plane, (rows, columns)) in enumerate(planes):
        source = np.frombuffer(plane, np.uint8)[: rows * plane.line_size].reshape(rows, plane.line_size)
        target = flat[start : start + rows * columns].reshape(rows, columns)
        # swscale would add the pattern of a dither
        table = _narrowing(bits, full_range=full_range, chroma=number > 0)
        np.take(table, source.view("<u2")[:, :columns], out=target, mode="clip")
        start += rows * columns
