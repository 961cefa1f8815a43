"""The time that reading the rows of a picture and writing a tensor takes by itself: no kernel can be faster."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmedge.types import AnyArray, ByteArray, FloatArray

SOURCE = Path(__file__).with_suffix(".cpp")


def build(folder: Path) -> Callable[[ByteArray, AnyArray, FloatArray], None] | None:
    """Build it into a folder; None where there is no C++ compiler.

    Returns:
        A function of a frame uint8 [height, bytes of a row], the numbers of the rows, uint32 [n], and the output.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    library = folder / "read_floor.so"
    flags = ["-O3", "-march=native", "-std=c++17", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, SOURCE], check=True)
    function = ctypes.CDLL(str(library)).read_floor

    def read(frame: ByteArray, rows: AnyArray, out: FloatArray) -> None:
        assert rows.dtype == np.uint32
        function(
            ctypes.c_void_p(frame.ctypes.data),
            ctypes.c_size_t(frame.nbytes // frame.shape[0]),
            ctypes.c_void_p(rows.ctypes.data),
            ctypes.c_size_t(len(rows)),
            ctypes.c_void_p(out.ctypes.data),
            ctypes.c_size_t(out.size),
        )

    return read
