"""Where the pixels of a frame go: crop box and target box of an image seat, in integers, shared by every executor."""

from __future__ import annotations

import msgspec

from mmedge.bundle.manifest import ImageInput
from mmedge.errors import ConfigError


class Rectangle(msgspec.Struct, frozen=True, kw_only=True):
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


def rounded(numerator: int, denominator: int, largest: int) -> int:
    """Return the half-up quotient in 1..largest: no executor depends on float or banker's rounding."""
    return min(max((2 * numerator + denominator) // (2 * denominator), 1), largest)


def crop_box(spec: ImageInput) -> Rectangle:
    """Return the part of the reduced frame that is resized: all of it, or for ``crop`` its centre."""
    rows, columns = reduced_size(spec)
    height, width = spec.size
    if spec.fit != "crop":
        return Rectangle(top=0, left=0, height=rows, width=columns)
    if columns * height > rows * width:
        box = (rows, rounded(rows * width, height, columns))
    else:
        box = (rounded(columns * height, width, rows), columns)
    return Rectangle(top=(rows - box[0]) // 2, left=(columns - box[1]) // 2, height=box[0], width=box[1])


def target_box(spec: ImageInput) -> Rectangle:
    """Return the part of the network's input that is filled: all of it, or for ``letterbox`` its centre."""
    rows, columns = reduced_size(spec)
    height, width = spec.size
    if spec.fit != "letterbox":
        return Rectangle(top=0, left=0, height=height, width=width)
    if columns * height > rows * width:
        box = (rounded(rows * width, columns, height), width)
    else:
        box = (height, rounded(columns * height, rows, width))
    return Rectangle(top=(height - box[0]) // 2, left=(width - box[1]) // 2, height=box[0], width=box[1])
