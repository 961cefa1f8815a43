"""Where the pixels go: crop box and destination box of an image seat, in integers, shared by every executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mmedge.bundle.manifest import ImageInput, Input, Task
from mmedge.errors import ConfigError
from mmedge.types import AnyArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Rectangle:
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def reduced_size(spec: ImageInput) -> tuple[int, int]:
    """Return height and width of the frame after the area reduction.

    Args:
        spec: The image seat.

    Returns:
        Height and width; remainder rows and columns at the bottom and right are cropped.

    Raises:
        ConfigError: If the frame is smaller than one block.

    Example:
        >>> reduced_size(ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(9, 14), reduce=4))
        (2, 3)
    """
    height, width = spec.frame[0] // spec.reduce, spec.frame[1] // spec.reduce
    if height < 1 or width < 1:
        raise ConfigError(
            f"frame {spec.frame[0]}x{spec.frame[1]} is smaller than one block of reduce={spec.reduce}",
            where="reduce",
            fix="choose a smaller reduce or a larger frame",
        )
    return height, width


def _rounded(numerator: int, denominator: int, largest: int) -> int:
    """Half-up division, so that no executor depends on float or banker's rounding."""
    return min(max((2 * numerator + denominator) // (2 * denominator), 1), largest)


def crop_box(spec: ImageInput) -> Rectangle:
    """Return the part of the reduced frame that is resized: all of it, or for ``crop`` its centre."""
    rows, columns = reduced_size(spec)
    height, width = spec.size
    if spec.fit != "crop":
        return Rectangle(top=0, left=0, height=rows, width=columns)
    if columns * height > rows * width:
        box = (rows, _rounded(rows * width, height, columns))
    else:
        box = (_rounded(columns * height, width, rows), columns)
    return Rectangle(top=(rows - box[0]) // 2, left=(columns - box[1]) // 2, height=box[0], width=box[1])


def target_box(spec: ImageInput) -> Rectangle:
    """Return the part of the network's input that is filled: all of it, or for ``letterbox`` its centre."""
    rows, columns = reduced_size(spec)
    height, width = spec.size
    if spec.fit != "letterbox":
        return Rectangle(top=0, left=0, height=height, width=width)
    if columns * height > rows * width:
        box = (_rounded(rows * width, columns, height), width)
    else:
        box = (height, _rounded(columns * height, rows, width))
    return Rectangle(top=(height - box[0]) // 2, left=(width - box[1]) // 2, height=box[0], width=box[1])


def to_picture(spec: ImageInput, corners: AnyArray) -> None:
    """Map corners from the network's input back to the camera's picture, in place and without clipping.

    Args:
        spec: The image seat; its executors stretch a picture of any size to ``frame`` first.
        corners: float64 [n, 4], x1, y1, x2, y2 in pixels of the network's input; then in 0..1 of the picture.

    Example:
        >>> import numpy as np
        >>> spec = ImageInput(size=(8, 8), fit="letterbox", color="gray", mean=(0.0,), std=(1.0,), frame=(50, 100))
        >>> corners = np.array([[0.0, 2.0, 4.0, 6.0]])
        >>> to_picture(spec, corners)
        >>> corners
        array([[0. , 0. , 0.5, 1. ]])
    """
    crop, target = crop_box(spec), target_box(spec)
    height, width = spec.frame
    x, y = corners[:, 0::2], corners[:, 1::2]
    x[...] = ((x - target.left) * (crop.width / target.width) + crop.left) * (spec.reduce / width)
    y[...] = ((y - target.top) * (crop.height / target.height) + crop.top) * (spec.reduce / height)


def to_picture_of(inputs: Mapping[str, Input], task: Task) -> Callable[[AnyArray], None] | None:
    """Return ``to_picture`` for the seat of a detection, None for other tasks.

    It changes corners, float64 [n, 4], in place: from pixels of the network's input to 0..1 of the picture.
    """
    seat = None if task.detection is None else inputs[task.detection.input]
    return partial(to_picture, seat) if isinstance(seat, ImageInput) else None
