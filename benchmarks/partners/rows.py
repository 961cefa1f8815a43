"""The newest rows of streaming features, kept in numpy."""

from __future__ import annotations

import numpy as np

from mmedge.types import FloatArray


class Rows:
    """The newest rows always lie in one piece: they move to the front when the array is full, every seventh context.

    Args:
        shape: Of the context, [1, frames, n_mels].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, self._frames, width = shape
        self._rows: FloatArray = np.zeros((8 * self._frames, width), np.float32)
        self._end = self._frames

    def room(self, count: int) -> FloatArray:
        """Return the rows [count, n_mels] that come next, to be written."""
        if self._end + count > len(self._rows):
            self._rows[: self._frames] = self._rows[self._end - self._frames : self._end]
            self._end = self._frames
        self._end += count
        return self._rows[self._end - count : self._end]

    def copy(self, out: FloatArray) -> None:
        """Copy the newest rows into ``out`` [1, frames, n_mels]."""
        out[0] = self._rows[self._end - self._frames : self._end]
