"""Frames as they are shown: upright full-range RGB or BGR at the camera's own size, by the native kernel."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np

from mmedge._native import core
from mmedge.preprocess.fit import Axis, Seen
from mmedge.preprocess.image import refused
from mmedge.types import ByteArray, Frame

Color = Literal["rgb", "bgr"]


def shown(frame: Frame, color: Color) -> ByteArray:
    """Return a frame as it is shown; the oracle is ``reference.upright(reference.pixels(...))``.

    Args:
        frame: Of any format and size.
        color: Order of the channels.

    Returns:
        uint8 [height, width, 3], a copy.

    Raises:
        ConfigError: If the frame contradicts itself.
    """
    said = frame.description
    try:
        if not (frame.height > 0 and frame.width > 0):
            raise ValueError("the frame is empty")
        seen = Seen.of(frame)
        kernel, plan = _kernel(*seen.shown, color), _plan(seen.shown, seen.swapped, *seen.flips)
        out: ByteArray = np.empty((*seen.shown, 3), np.uint8)
        kernel.raw(frame.data, frame.format, frame.width, frame.height, said.matrix, said.full_range, plan, out[None])
    except (ValueError, TypeError) as error:
        raise refused(error, frame) from error
    return out


@lru_cache(maxsize=4)  # a kernel keeps scratch memory for one size
def _kernel(height: int, width: int, color: Color) -> Any:
    return core.ImageKernel((height, width), color, (1, 1), (0.0,) * 3, (1.0,) * 3)


@lru_cache(maxsize=16)
def _plan(sides: tuple[int, int], swapped: bool, *flips: bool) -> Any:
    rows, columns = (Axis(side, 1, 0, side, 1.0, 0.0, 0, side, side) for side in sides)
    return core.ImagePlan(rows, columns, swapped, *flips)
