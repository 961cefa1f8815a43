"""One stream of pictures: slots to write them into, and whether the camera is frozen."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmedge.ipc.frames import FramePool, Loan
from mmedge.types import ByteArray

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
        # A checksum of every byte costs 0.1 ms at 640x480 and needs no second copy of the picture.
        fingerprint = zlib.adler32(picture.data)
        if fingerprint != self._fingerprint:
            self._fingerprint, self._changed_ns = fingerprint, capture_ns
        return capture_ns - self._changed_ns


def copy_yuv420p(frame: Any, slot: ByteArray, width: int, height: int) -> None:
    """Copy the planes of a PyAV yuv420p frame into a packed (height * 3 / 2, width) slot.

    Args:
        frame: ``av.VideoFrame`` of format yuv420p or yuvj420p.
        slot: uint8 (height * 3 / 2, width), contiguous.
        width: Even number of columns to take.
        height: Even number of rows to take.
    """
    flat, start = slot.reshape(-1), 0
    for plane, (rows, columns) in zip(
        frame.planes, ((height, width), (height // 2, width // 2), (height // 2, width // 2)), strict=True
    ):
        source = np.frombuffer(plane, np.uint8)[: rows * plane.line_size].reshape(rows, plane.line_size)
        flat[start : start + rows * columns].reshape(rows, columns)[...] = source[:, :columns]
        start += rows * columns
