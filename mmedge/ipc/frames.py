"""A fixed set of image slots: what a camera writes into and a consumer gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np

from mmedge.types import ByteArray


class FramePool:
    """Preallocated uint8 slots of one geometry, lent and given back from any thread; it never grows.

    Args:
        shape: Shape of one slot, for example ``(720, 640)`` for a yuv420p frame of 640x480.
        slots: How many frames may be in use at once.

    Attributes:
        dropped: How often no slot was free and the caller did not wait.

    Example:
        >>> pool = FramePool((2, 2), slots=1)
        >>> slot, release = pool.acquire()
        >>> pool.acquire() is None, pool.dropped
        (True, 1)
        >>> release()
        >>> pool.free
        1
    """

    def __init__(self, shape: tuple[int, ...], *, slots: int) -> None:
        if slots < 1 or any(n < 1 for n in shape):
            raise ValueError(f"a pool needs at least one slot of at least one byte, got {slots} of {shape}")
        self.shape = shape
        self.dropped = 0
        self._slots: list[ByteArray] = [np.empty(shape, np.uint8) for _ in range(slots)]
        # The slot given back last is lent first: it is warm in the cache, and memory pages of slots
        # that are never needed are never touched.
        self._free = list(range(slots))
        self._lent = [0] * slots
        self._change = threading.Condition()

    @property
    def free(self) -> int:
        """Slots that can be acquired now."""
        return len(self._free)

    def acquire(self, *, timeout_s: float = 0.0) -> tuple[ByteArray, Callable[[], None]] | None:
        """Lend a slot.

        Args:
            timeout_s: How long to wait for one that is given back.

        Returns:
            The slot (a view, yours until released) and the callable that gives it back, which may be
            called from any thread and more than once; None if all are in use, counted unless you waited.
        """
        with self._change:
            if not self._free and timeout_s <= 0:
                self.dropped += 1
                return None
            if not self._change.wait_for(lambda: self._free, timeout_s):
                return None
            index = self._free.pop()
            self._lent[index] += 1
            return self._slots[index], partial(self._release, index, self._lent[index])

    def _release(self, index: int, loan: int) -> None:
        with self._change:
            # A second release of an old loan must not free the slot under its next holder.
            if self._lent[index] == loan and index not in self._free:
                self._free.append(index)
                self._change.notify()
