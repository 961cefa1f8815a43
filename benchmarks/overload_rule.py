"""A stage of a known time, for ``benchmarks/overload.py``."""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np

from mmedge.types import AnyArray

STAGE_MS = "MMEDGE_BENCHMARK_STAGE_MS"
HOLD = "MMEDGE_BENCHMARK_HOLD"


def sleep(image: AnyArray, audio: AnyArray) -> AnyArray:
    """Take as long as the environment says; the answer is always the same."""
    seconds = float(os.environ[STAGE_MS]) / 1e3
    if os.environ.get(HOLD) == "1":  # as an extension does that forgot to release the interpreter
        ctypes.PyDLL(None).usleep(round(seconds * 1e6))
    else:
        time.sleep(seconds)
    return np.zeros((1, 1), np.float32)
