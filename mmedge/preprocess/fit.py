"""How a camera's picture fits a seat: from its displayed aspect, in one resampling, for tensors and for raw frames.

All of it is in the picture as it is shown: turned upright, rows before columns.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from mmedge.bundle.manifest import ImageInput
from mmedge.preprocess.geometry import Rectangle, crop_box, rounded, target_box
from mmedge.types import PLAIN, AnyArray, Description, Frame

_ROUNDING = 2  # pixels by which boxes of nearly one aspect may differ
_LARGEST_BLOCK = 128  # what the native kernel can sum
_APART = 2  # pixels of the frame for one of the network's input, from which on each is made from two of its own
_SAMPLED = 4  # times as many pixels as the seat's frame, of which one bilinear pass leaves most out


class Seen(NamedTuple):
    """The geometry of a camera's picture as it is stored, and what its stream says of it."""

    height: int
    width: int
    description: Description

    @classmethod
    def of(cls, frame: Frame) -> Seen:
        """Return the geometry of ``frame``."""
        return cls(frame.height, frame.width, frame.description)

    @property
    def swapped(self) -> bool:
        """Whether rows that are shown are stored columns."""
        return self.description.rotation in (90, 270)

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether the last row, and the last column, that is shown is stored first."""
        turned = self.description.rotation
        return turned in (180, 270), (turned in (90, 180)) != self.description.mirrored

    @property
    def shown(self) -> tuple[int, int]:
        """Rows and columns of the picture as it is shown."""
        return (self.width, self.height) if self.swapped else (self.height, self.width)

    @property
    def units(self) -> tuple[int, int]:
        """Rows and columns of the picture as it is shown, in one unit of length."""
        across, down = self.description.pixel_aspect
        return self.shown[0] * (across if self.swapped else down), self.shown[1] * (down if self.swapped else across)


class Axis(NamedTuple):
    """One axis of the map from a camera's picture, as it is shown, to an output.

    Pixel ``i`` of the ``length`` pixels from ``start`` on has its centre at ``(i + 0.5) * step + shift``, counted in
    blocks from block ``first`` on; ``window`` blocks may be read. With ``cell``, all pixels of a cell lie at its
    centre.

    Attributes:
        camera: Pixels of the camera's picture.
        block: Pixels that are averaged first.
        first: First block of the window.
        window: Blocks of the window.
        step: Blocks from one pixel of the output to the next.
        shift: Where the first pixel of the output begins in the window, in blocks.
        start: First pixel of the output that is filled.
        length: Pixels of the output that are filled.
        out: Pixels of the output.
        cell: Length of a cell in pixels of the output; 0 for none.
        cell_first: Where the first cell begins, counted from ``start``.
    """

    camera: int
    block: int
    first: int
    window: int
    step: float
    shift: float
    start: int
    length: int
    out: int
    cell: float = 0.0
    cell_first: float = 0.0

    def to_picture(self, place: AnyArray) -> AnyArray:
        """Return where ``place``, float64 [...] in pixels of the output, is in 0..1 of the picture."""
        seen: AnyArray = ((place - self.start) * self.step + (self.first + self.shift)) * (self.block / self.camera)
        return seen


class Fit(NamedTuple):
    """The map from a camera's picture, as it is shown, to an output.

    Attributes:
        rows: From top to bottom.
        columns: From left to right.
        free: False where the frame of a TensorRT variant has no room for the box that the seat asks for.
    """

    rows: Axis
    columns: Axis
    free: bool = True


def _same(spec: ImageInput, seen: Seen) -> bool:
    """Tell whether the picture as it is shown is the seat's ``frame``, pixel by pixel."""
    across, down = seen.description.pixel_aspect
    return seen.shown == spec.frame and across == down


def _boxes(spec: ImageInput, seen: Seen) -> tuple[tuple[tuple[float, float], ...], Rectangle]:
    """Return, for rows and columns, begin and length of what is used of the picture in 0..1; and what it fills."""
    down, across = seen.units
    height, width = spec.size
    used: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.0, 1.0))
    wide = across * height > down * width
    if spec.fit == "crop":
        share = (down * width) / (across * height) if wide else (across * height) / (down * width)
        part = ((1.0 - share) / 2.0, share)
        used = (used[0], part) if wide else (part, used[1])
    if spec.fit != "letterbox":
        return used, Rectangle(top=0, left=0, height=height, width=width)
    return used, _largest(down, across, Rectangle(top=0, left=0, height=height, width=width))


def _largest(down: int, across: int, room: Rectangle) -> Rectangle:
    """Return the largest box of this aspect within ``room``, in its centre."""
    if across * room.height > down * room.width:
        box = (rounded(down * room.width, across, room.height), room.width)
    else:
        box = (room.height, rounded(across * room.height, down, room.width))
    top, left = room.top + (room.height - box[0]) // 2, room.left + (room.width - box[1]) // 2
    return Rectangle(top=top, left=left, height=box[0], width=box[1])


def _one_pass(spec: ImageInput, axis: int, camera: int) -> bool:
    """Tell whether an axis is resampled from the camera to the network's input at once: without averages."""
    return spec.reduce == 1 and camera <= _SAMPLED * spec.frame[axis]


def _block(spec: ImageInput, axis: int, camera: int, used: float, length: int) -> int:
    """Return the side of the blocks: as many as the seat's frame has, but never too few for what they fill."""
    if _one_pass(spec, axis, camera):
        return 1
    wanted = rounded(spec.reduce * camera, spec.frame[axis], _LARGEST_BLOCK)
    if spec.frame[axis] // spec.reduce >= length:
        wanted = min(wanted, max(1, int(used * camera / length)))
    return wanted


@lru_cache(maxsize=256)
def tensor_fit(spec: ImageInput, seen: Seen) -> Fit:
    """Return the map from a camera's picture to the network's input.

    A picture of the seat's own ``frame`` is reduced by ``reduce`` and cut at whole blocks, as the graphs do. Of any
    other the box is exact; where the seat has ``reduce``, or the picture is much larger than ``frame``, blocks have
    about the size that they would have in a picture stretched to ``frame``.

    Args:
        spec: The image seat.
        seen: The camera's picture.

    Example:
        >>> spec = ImageInput(size=(64, 64), color="gray", mean=(0.0,), std=(1.0,), fit="letterbox")
        >>> fit = tensor_fit(spec, Seen(90, 160, PLAIN))
        >>> fit.rows.start, fit.rows.length, fit.columns.length
        (14, 36, 64)
    """
    if _same(spec, seen):
        crop, target, block = crop_box(spec), target_box(spec), spec.reduce
        return Fit(
            Axis(
                seen.shown[0], block, crop.top, crop.height, crop.height / target.height, 0.0,
                target.top, target.height, spec.size[0],
            ),
            Axis(
                seen.shown[1], block, crop.left, crop.width, crop.width / target.width, 0.0,
                target.left, target.width, spec.size[1],
            ),
        )  # fmt: skip
    used, target = _boxes(spec, seen)
    places = ((target.top, target.height), (target.left, target.width))
    axes = []
    for axis, camera in enumerate(seen.shown):
        (begin, share), (start, length) = used[axis], places[axis]
        block = _block(spec, axis, camera, share, length)
        step = share * camera / length / block
        axes.append(
            Axis(camera, block, 0, camera // block, step, begin * camera / block, start, length, spec.size[axis])
        )
    return Fit(axes[0], axes[1])


@lru_cache(maxsize=256)
def frame_fit(spec: ImageInput, seen: Seen) -> Fit:
    """Return the map from a camera's picture to the raw frame of a TensorRT variant.

    The graph in the engine maps ``frame`` to the network's input by boxes that never change. The picture is laid into
    the frame so that the graph gives what ``tensor_fit`` does; where its letterbox has no room for that, the
    largest box of the same aspect is taken. Where the graph makes every pixel from two that no other one is made from,
    both are what ``tensor_fit`` has there, so that the graph does not blur what was resampled once.

    Args:
        spec: The image seat.
        seen: The camera's picture.
    """
    if _same(spec, seen):
        rows, columns = (Axis(side, 1, 0, side, 1.0, 0.0, 0, side, side) for side in seen.shown)
        return Fit(rows, columns)
    used, target = _boxes(spec, seen)
    crop, room = crop_box(spec), target_box(spec)
    fits = (
        room.top <= target.top
        and room.left <= target.left
        and target.top + target.height <= room.top + room.height
        and target.left + target.width <= room.left + room.width
    )
    own = target if fits else _largest(*seen.units, room)
    free = target.height - own.height <= _ROUNDING and target.width - own.width <= _ROUNDING
    target = own
    axes = []
    for axis, camera in enumerate(seen.shown):
        begin, share = used[axis]
        side = spec.frame[axis]
        from_, size, to, length, place, extent = (
            (crop.top, crop.height, room.top, room.height, target.top, target.height)
            if axis == 0
            else (crop.left, crop.width, room.left, room.width, target.left, target.width)
        )
        scale = spec.reduce * size / length  # pixels of the frame for one of the network's input
        low = (place - to) * scale + from_ * spec.reduce
        span = extent * scale
        # The pixels whose centres lie inside; one at least.
        start = min(max(math.ceil(low - 0.5), 0), side - 1)
        end = min(max(math.ceil(low + span - 0.5), start + 1), side)
        step = share * camera / span
        once = _one_pass(spec, axis, camera)
        block = 1 if once else min(rounded(camera, side, _LARGEST_BLOCK), max(1, int(step)))
        shift = (begin * camera + (start - low) * step) / block
        cell = scale if once and scale >= _APART else 0.0
        axes.append(
            Axis(camera, block, 0, camera // block, step / block, shift, start, end - start, side, cell, from_ - start)
        )
    return Fit(axes[0], axes[1], free)


def to_picture(spec: ImageInput, corners: AnyArray, seen: Seen | None = None, *, raw: bool = False) -> None:
    """Map corners from the network's input back to the camera's picture as it is shown, in place and without clipping.

    Args:
        spec: The image seat.
        corners: float64 [n, 4], x1, y1, x2, y2 in pixels of the network's input; then in 0..1 of the picture.
        seen: The camera's picture; by default one of the seat's own ``frame``.
        raw: Whether the network's variant takes raw frames.

    Example:
        >>> import numpy as np
        >>> spec = ImageInput(size=(8, 8), fit="letterbox", color="gray", mean=(0.0,), std=(1.0,), frame=(50, 100))
        >>> corners = np.array([[0.0, 2.0, 4.0, 6.0]])
        >>> to_picture(spec, corners)
        >>> corners
        array([[0. , 0. , 0.5, 1. ]])
    """
    own = Seen(*spec.frame, PLAIN)
    seen = own if seen is None else seen
    fit = tensor_fit(spec, seen)
    through = raw and not _same(spec, seen)
    if through:  # the graph sees the frame, and the frame the picture
        graph, fit = tensor_fit(spec, own), frame_fit(spec, seen)
    for axis, places in ((0, corners[:, 1::2]), (1, corners[:, 0::2])):
        place = places
        if through:
            place = graph[axis].to_picture(place) * spec.frame[axis]  # type: ignore[union-attr]
        places[...] = fit[axis].to_picture(place)  # type: ignore[union-attr]
