"""Memory that pictures are read into, used again when they are given back."""

from __future__ import annotations

from collections import deque

import numpy as np

from mmedge.types import ByteArray


class Reused:
    """A picture's memory; called, it goes back to where it came from, once. See ``Slot``.

    Args:
        home: Where it goes, for the next picture of its shape.
        picture: uint8 [...].
    """

    __slots__ = ("_home", "_picture")

    def __init__(self, home: deque[ByteArray], picture: ByteArray) -> None:
        self._home = home
        self._picture: ByteArray | None = picture

    def __call__(self) -> None:
        """Give the memory back; idempotent."""
        picture, self._picture = self._picture, None
        if picture is not None:
            self._home.append(picture)

    def copy(self, data: ByteArray, out: ByteArray) -> bool:
        """Copy ``data``, which lies in the memory, to ``out``; False if it was used again meanwhile.

        Both are uint8 of one shape, [...].
        """
        out[...] = data
        return self._picture is not None


class PictureMemory:
    """Lends memory for pictures, as much as is held at once; what was given back is lent again.

    New memory costs more than what is written into it: the system clears it first.

    Example:
        >>> memory = PictureMemory()
        >>> picture, release = memory.lend((720, 640))
        >>> release()
        >>> memory.lend((720, 640))[0] is picture
        True
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._free: deque[ByteArray] = deque()

    def lend(self, shape: tuple[int, ...]) -> tuple[ByteArray, Reused]:
        """Return memory for one picture, uint8 of ``shape`` [...], and what gives it back; yours until then.

        It may be given back from any thread; what never is, is not lent again.
        """
        if shape != self._shape:
            self._shape, self._free = shape, deque()
        try:
            picture = self._free.pop()  # the newest: most of it is still in the caches
        except IndexError:
            picture = np.empty(shape, np.uint8)
        return picture, Reused(self._free, picture)
