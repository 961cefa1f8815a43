"""Arrays kept while they are needed, in bounded memory: what does not fit lies in an unnamed temporary file."""

from __future__ import annotations

import io
import tempfile
import weakref
from collections.abc import Mapping
from typing import IO

import numpy as np

from mmedge.errors import ConfigError
from mmedge.types import AnyArray

IN_MEMORY = 32 << 20  # bytes


class Spool:
    """Keeps named arrays in the order in which they came; each can be read again any number of times.

    Up to ``IN_MEMORY`` bytes stay in memory. More goes to a file in ``TMPDIR`` that has no name, so that nobody else
    can open it, and that is gone with the spool.

    Example:
        >>> spool = Spool()
        >>> place = spool.add({"x": np.zeros(3)})
        >>> spool[place]["x"].shape
        (3,)
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._end = 0
        self._index: list[dict[str, tuple[int, np.dtype[np.generic], tuple[int, ...]]]] = []

    def __len__(self) -> int:
        return len(self._index)

    def add(self, arrays: Mapping[str, AnyArray]) -> int:
        """Keep a copy of some arrays, of any shape and dtype of numbers, and return their place.

        Raises:
            ConfigError: If the disk is full.
        """
        places = {}
        try:
            if self._end + sum(a.nbytes for a in arrays.values()) > IN_MEMORY and isinstance(self._file, io.BytesIO):
                moved = tempfile.TemporaryFile()
                weakref.finalize(self, moved.close)
                moved.write(self._file.getbuffer())
                self._file = moved
            for name, array in arrays.items():
                self._file.seek(self._end)
                self._file.write(np.ascontiguousarray(array).tobytes())
                places[name] = (self._end, array.dtype, array.shape)
                self._end += array.nbytes
        except OSError as error:
            raise ConfigError(
                f"the samples do not fit on the disk: {error.strerror}",
                where=tempfile.gettempdir(),
                fix="set TMPDIR to a folder on a larger disk, or take fewer calibration.frames",
            ) from error
        self._index.append(places)
        return len(self._index) - 1

    def __getitem__(self, place: int) -> dict[str, AnyArray]:
        """Return the arrays of one place, copies with the shapes and dtypes that they had."""
        arrays: dict[str, AnyArray] = {}
        for name, (start, dtype, shape) in self._index[place].items():
            array = np.empty(shape, dtype)
            self._file.seek(start)
            self._file.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
            arrays[name] = array
        return arrays
