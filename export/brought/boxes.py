"""Whether an output that has the shape of a detector's holds decoded boxes, by what it gives on noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmedge.interpret.detection import Layout
from mmedge.types import AnyArray

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (8,), (16,), (32,))
_ALIKE = 0.9  # correlation from which numbers follow the grid
_COCO = 80
_LEFT = "or `--layout none`: its numbers come out as they are, for a callable of yours"


def unclear(layout: Layout, shape: Sequence[int], picture: tuple[int, int], classes: int | None) -> str | None:
    """Say what the shape of a detector's output leaves open; None where it is clear.

    Without the number of classes, a row of 4 + C values may be one of 5 + C: its fifth may be an objectness.

    Args:
        layout: What it is taken for.
        shape: Of the output, [1, rows, values].
        picture: Height and width of the network's picture.
        classes: How many classes the network names.
    """
    if layout == "boxes":
        return None if classes is not None else "the order of the six values of a box is not in the file"
    values, count = (shape[1], shape[2]) if layout == "yolo" else (shape[2], shape[1])
    cells = {sum(-(-picture[0] // s) * -(-picture[1] // s) for s in strides) for strides in _STRIDES}
    anchored = count not in cells and count % 3 == 0 and count // 3 in cells
    if classes is not None:
        return None
    if layout == "yolo":
        known = values == 5 or (values == 4 + _COCO and not anchored)
        return None if known else f"{values} values a box may be 4 + {values - 4} classes or 5 + {values - 5}"
    return None if values == 5 + _COCO else f"{values} values a box may be 5 + {values - 5} classes or 4 + {values - 4}"


def problem(
    layout: Layout, samples: Sequence[AnyArray], picture: tuple[int, int], *, sorted_out: bool = False
) -> tuple[str, str] | None:
    """Return what contradicts a layout, and what to do; None where nothing does.

    Args:
        layout: ``yolo``, ``yolo-objectness`` or ``boxes``.
        samples: What the network gave for some pictures, float32 [1, rows, values], in pixels and probabilities if
            the layout is right.
        picture: Height and width of the network's picture.
        sorted_out: Boxes that reached no threshold are left out, so that there may be none.
    """
    rows = np.concatenate([np.asarray(s[0].T if layout == "yolo" else s[0], np.float64) for s in samples])
    if not np.isfinite(rows).all():
        return None  # `new` says so of every output
    if layout == "boxes":
        return _listed(rows, picture, sorted_out)
    scores = rows[:, 4:]
    if scores.min() < -1e-3 or scores.max() > 1 + 1e-3:
        told = f"its scores are {scores.min():.3g}..{scores.max():.3g} on noise, so they are no probabilities"
        return told, f"export it with the sigmoid inside, {_LEFT}"
    return _decoded(rows[:, :4], len(rows) // len(samples), picture)


def _listed(rows: AnyArray, picture: tuple[int, int], sorted_out: bool) -> tuple[str, str] | None:
    """Judge rows of corners, score, class."""
    rows = rows[(rows != 0).any(axis=1)]
    if not len(rows):
        told = "it found nothing on noise, so nothing shows what its six values are"
        return None if sorted_out else (told, f"say `--layout boxes` if they are x1, y1, x2, y2, score, class, {_LEFT}")
    wholes = [bool((rows[:, column] == np.floor(rows[:, column])).all()) for column in (4, 5)]
    shares = [bool(((rows[:, column] >= 0) & (rows[:, column] <= 1)).all()) for column in (4, 5)]
    order = "write a callable that gives x1, y1, x2, y2, score, class in pixels"
    if not (wholes[1] and shares[0] and rows[:, 5].min() >= 0):
        if wholes[0] and shares[1]:
            return "its fifth value is the class and its sixth the score", f"{order}, {_LEFT}"
        return "its fifth and sixth value are no score and class", f"{order}, {_LEFT}"
    if np.mean((rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])) < 0.99:
        return "its first four values are no two corners: the second lies before the first", f"{order}, {_LEFT}"
    if np.abs(rows[:, :4]).max() <= 2:
        return "its corners are in 0..1, not in pixels", f"export it with corners in pixels, {_LEFT}"
    height, width = picture
    if rows[:, [0, 2]].max() > 1.5 * width + 32 or rows[:, [1, 3]].max() > 1.5 * height + 32:
        return f"its corners lie outside of {width}x{height}", f"{order}, {_LEFT}"
    return None


def _decoded(boxes: AnyArray, count: int, picture: tuple[int, int]) -> tuple[str, str] | None:
    """Judge centres and sizes [samples * count, 4]: do they follow the cells of a grid, or lie all over the picture?"""
    height, width = picture
    fix = f"export it with its decoding inside (YOLOX: --decode_in_inference), {_LEFT}"
    for cells, stride in _grids(count, picture):
        grid = np.tile(cells, (len(boxes) // count, 1))
        alike = _correlations(boxes, grid)
        if alike[0, 1] > _ALIKE and alike[1, 0] > _ALIKE and not (alike[0, 0] > _ALIKE and alike[1, 1] > _ALIKE):
            return "its boxes tell y before x", f"export it with x before y, {_LEFT}"
        if min(alike[0, 0], alike[1, 1]) <= _ALIKE:
            continue
        if min(alike[2, 0], alike[3, 1]) > _ALIKE:
            return "its boxes are two corners, not centre and size", f"export it with centre and size, {_LEFT}"
        for axis, side in enumerate((width, height)):
            slope = float(np.polyfit(grid[:, axis], boxes[:, axis], 1)[0])
            if not 0.8 < slope < 1.25:
                unit = "0..1" if 0.5 < slope * side < 2 else f"{slope:.3g} of a pixel"
                return f"its boxes are in units of {unit}, not in pixels", f"export it with boxes in pixels, {_LEFT}"
        off = [float(np.abs(boxes[:, :2] + share * boxes[:, 2:] - grid).mean()) for share in (0.0, 0.5)]
        if off[1] < 0.5 * off[0] and off[0] > 1.5 * stride:  # centres may lie anywhere in their cells
            return "its boxes tell a corner and a size, not the centre", f"export it with centre and size, {_LEFT}"
        return None if boxes[:, 2:].min() >= -1e-3 else ("its boxes have sizes below 0", fix)
    (low_x, low_y), (high_x, high_y) = boxes[:, :2].min(axis=0), boxes[:, :2].max(axis=0)
    told = f"its centres are {low_x:.3g}..{high_x:.3g} and {low_y:.3g}..{high_y:.3g} on noise"
    if np.ptp(boxes[:, :2], axis=0).max() < 1e-6:
        return f"{told}: all the same, so nothing shows what its numbers are", f"say `--layout` to trust you, {_LEFT}"
    if high_x < 0.5 * width or high_y < 0.5 * height or boxes[:, 2:].min() < -1e-3:
        raw = "in 0..1" if boxes.min() >= 0 and boxes.max() <= 1.05 else "offsets within their cells, not decoded"
        return f"{told} and its sizes {boxes[:, 2:].min():.3g}..{boxes[:, 2:].max():.3g}, so they are {raw}", fix
    if np.mean((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])) > 0.99:
        return "its boxes are two corners, not centre and size", f"export it with centre and size, {_LEFT}"
    outside = high_x > 1.5 * width or high_y > 1.5 * height or low_x < -0.5 * width or low_y < -0.5 * height
    return (f"{told}, outside of {width}x{height}", fix) if outside else None


def _correlations(boxes: AnyArray, grid: AnyArray) -> AnyArray:
    """Return how each of four values [n, 4] goes with the cells' x and y [n, 2]: [4, 2]; 0 for what never changes."""
    a, b = boxes - boxes.mean(axis=0), grid - grid.mean(axis=0)
    size = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)[None]
    alike: AnyArray = np.divide(a.T @ b, size, out=np.zeros_like(size), where=size > 1e-9)
    return alike


def _grids(count: int, picture: tuple[int, int]) -> Iterator[tuple[AnyArray, float]]:
    """Yield where the cells of ``count`` boxes are, [count, 2], and their mean side in pixels.

    Fine cells come first or last; each has one box or three.
    """
    for strides in _STRIDES:
        for ordered in (strides, strides[::-1]) if len(strides) > 1 else (strides,):
            parts = [_centres(stride, picture) for stride in ordered]
            side = float(np.repeat(ordered, [len(part) for part in parts]).mean())
            if sum(map(len, parts)) == count:
                yield np.concatenate(parts), side
            elif 3 * sum(map(len, parts)) == count:
                yield np.concatenate([np.tile(part, (3, 1)) for part in parts]), side
                yield np.concatenate([np.repeat(part, 3, axis=0) for part in parts]), side


def _centres(stride: int, picture: tuple[int, int]) -> AnyArray:
    height, width = (-(-side // stride) for side in picture)
    y, x = np.mgrid[:height, :width]
    return (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride
