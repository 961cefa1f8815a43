"""Image preprocessing with kornia-rs: its fused kernel."""

from __future__ import annotations

import os

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # asked when it is loaded

from kornia_rs import pipeline

from mmedge.bundle.manifest import ImageInput
from mmedge.types import ByteArray, FloatArray


class Fused:
    """RGB frame -> tensor [channels, height, width] in one pass; a new array at every call, as its interface has it."""

    def __init__(self, spec: ImageInput) -> None:
        self.size, self.mean, self.std = spec.size, list(spec.mean), list(spec.std)

    def __call__(self, rgb: ByteArray) -> FloatArray:
        made: FloatArray = pipeline.resize_normalize_to_tensor(rgb, self.size, self.mean, self.std)
        return made
