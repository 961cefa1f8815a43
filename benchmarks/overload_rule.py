"""A stage of a known time, for ``benchmarks/overload.py``."""

from __future__ import annotations

import os
import time

import numpy as np

from mmedge.types import AnyArray

STAGE_MS = "MMEDGE_BENCHMARK_STAGE_MS"


def sleep(image: AnyArray, audio: AnyArray) -> AnyArray:
    """Take as long as the environment says; the answer is always the same."""
    time.sleep(float(os.environ[STAGE_MS]) / 1e3)
    return np.zeros((1, 1), np.float32)
