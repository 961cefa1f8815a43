"""Weights of a large network in a file of their own: mapped into memory, never copied, within the file's bounds."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from pathlib import Path

import numpy as np

from mmedge.bundle.container import CHUNK
from mmedge.bundle.onnx_file import Outside
from mmedge.files import open_plain
from mmedge.types import AnyArray

# Number of a type in ONNX -> the same in numpy, of those that weights beside a network may have.
TYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
ALIGNMENT = 64  # bytes at which the values of each tensor begin: what vector instructions like best


class Mapped:
    """A part of a plain file, hashed and mapped through one descriptor: what was hashed is what is mapped.

    Args:
        path: The file. Who changes it in place while it is mapped changes what is computed; who replaces it does not.
        offset: Where the part begins, in bytes.
        size: How many bytes it has.

    Raises:
        OSError: If it cannot be opened, is no plain file, or ends before the part does.
    """

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._offset, self.size = offset, size
        with open_plain(path) as file:
            self._file = os.dup(file.fileno())
        try:
            if offset < 0 or size < 1 or offset + size > os.fstat(self._file).st_size:
                raise OSError(f"{path} ends before byte {offset + size}")
            first = offset - offset % mmap.ALLOCATIONGRANULARITY
            self._map = mmap.mmap(self._file, offset + size - first, access=mmap.ACCESS_READ, offset=first)
            self._begin = offset - first
        except BaseException:
            os.close(self._file)
            raise

    def sha256(self) -> str:
        """Return the hash of the part in hexadecimal digits; it is read in pieces, which leaves no pages mapped."""
        digest, left, at = hashlib.sha256(), self.size, self._offset
        while left:
            piece = os.pread(self._file, min(left, CHUNK), at)
            if not piece:
                raise OSError("the file became shorter while it was read")
            digest.update(piece)
            left, at = left - len(piece), at + len(piece)
        return digest.hexdigest()

    def array(self, weight: Outside) -> AnyArray:
        """Return the values of a tensor, read-only [its shape] in its dtype; they keep the file mapped.

        Raises:
            ValueError: If they do not lie within the part, or the tensor is of another size than it says.
        """
        dtype = TYPES.get(weight.elem)
        if dtype is None:
            raise ValueError(f"weight '{weight.name}' is of type {weight.elem}, which no weight in a file may have")
        count = math.prod(weight.dims)
        size = count * np.dtype(dtype).itemsize
        if count < 1 or size != weight.length:
            raise ValueError(f"weight '{weight.name}' names {weight.length} bytes, its shape and type take {size}")
        if weight.offset < 0 or weight.offset + size > self.size:
            raise ValueError(f"weight '{weight.name}' ends at byte {weight.offset + size} of {self.size}")
        flat = np.frombuffer(self._map, dtype, count, self._begin + weight.offset)
        if not flat.flags.aligned:
            raise ValueError(f"weight '{weight.name}' begins at byte {weight.offset}, in the middle of a number")
        return flat.reshape(weight.dims)

    def close(self) -> None:
        """Close the file; arrays that were returned stay valid."""
        os.close(self._file)
