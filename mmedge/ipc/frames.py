"""A fixed set of image slots: what a camera writes into and a consumer gives back."""

from __future__ import annotations

import math
import threading

from mmedge._native import core
from mmedge.types import ByteArray


class Loan:
    """A slot that is in use; calling it gives the slot back, from any thread, once or more often."""

    __slots__ = ("_lent", "_number", "index", "pool")

    def __init__(self, pool: FramePool, index: int, number: int) -> None:
        self.pool = pool
        self.index = index
        self._number = number
        self._lent = True

    def __call__(self) -> None:
        """Give the slot back."""
        # A second release of an old loan must not free the slot under its next holder.
        lent, self._lent = self._lent, False
        if lent:
            self.pool.give_back(self.index)

    def copy(self, data: ByteArray, out: ByteArray) -> bool:
        """Copy ``data``, which lies in the slot, to ``out``; False if the slot was lent again meanwhile.

        Both are uint8 of one shape, [...].
        """
        out[...] = data
        return self.pool.loans[self.index] == self._number

    def hold(self) -> int:
        """Return the number by which another process may copy the slot, now that it is written; 0 if given back."""
        return int(self.pool.ring.hold(self.index)) if self._lent else 0

    def hand_over(self) -> None:
        """Leave the slot to the ring: from now on its reader gives it back."""
        self._lent = False


class FramePool:
    """Preallocated uint8 slots of one geometry, lent and given back from any thread; it never grows.

    They lie in memory that another process can map: a published slot travels as a number, not as a copy.

    Args:
        shape: Shape of one slot, for example ``(720, 640)`` for a yuv420p frame of 640x480.
        slots: How many frames may be in use at once.

    Attributes:
        ring: The slots themselves.
        loans: How often each slot was lent.

    Example:
        >>> pool = FramePool((2, 2), slots=1)
        >>> slot, release = pool.acquire()
        >>> pool.acquire() is None
        True
        >>> release()
        >>> pool.free
        1
    """

    def __init__(self, shape: tuple[int, ...], *, slots: int) -> None:
        if slots < 1 or any(n < 1 for n in shape):
            raise ValueError(f"a pool needs at least one slot of at least one byte, got {slots} of {shape}")
        self.shape = shape
        self.ring = core.SlotRing(slots, math.prod(shape))
        self.loans = [0] * slots
        size = math.prod(shape)
        self._slots = [self.ring.data(index)[:size].reshape(shape) for index in range(slots)]
        self._change = threading.Condition()

    @property
    def free(self) -> int:
        """Slots that can be acquired now."""
        return self.ring.free

    def acquire(self, *, timeout_s: float = 0.0) -> tuple[ByteArray, Loan] | None:
        """Lend a slot; one that was published and has not been taken yet is taken back if none is free.

        The slot is uint8 [...], of the pool's ``shape``.

        Args:
            timeout_s: How long to wait for one that is given back.

        Returns:
            The slot (a view, yours until released) and the callable that gives it back, which may be
            called from any thread and more than once; None if all are in use.
        """
        index = self.ring.acquire(steal=True)
        if index < 0 and timeout_s > 0:
            with self._change:
                self._change.wait_for(lambda: self.ring.free, timeout_s)
            index = self.ring.acquire(steal=True)
        if index < 0:
            return None
        self.loans[index] += 1
        return self._slots[index][...], Loan(self, index, self.loans[index])

    def give_back(self, index: int) -> None:
        """Free a slot (use the loan, which does it once)."""
        with self._change:
            self.ring.release(index)
            self._change.notify()
