"""Boxes that overlap: by how much, and which of them stay (non-maximum suppression)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge._native import core
from mmedge.types import AnyArray, Box


def suppress(corners: AnyArray, scores: AnyArray, iou: float, classes: AnyArray | None = None) -> npt.NDArray[np.intp]:
    """Return the boxes that overlap no better one (of the same class) by more than ``iou``, best first.

    Corners and scores are of any float dtype.

    Args:
        corners: [n, 4]: x1, y1, x2, y2, in any unit.
        scores: [n].
        iou: Largest area of the intersection over that of the union.
        classes: [n], whole numbers; None takes all boxes for one class.

    Returns:
        Indices of the boxes that stay, int [k].

    Example:
        >>> suppress(np.array([[0, 0, 4, 4], [0, 0, 4, 3], [8, 8, 9, 9]]), np.array([0.8, 0.9, 0.7]), 0.5).tolist()
        [1, 2]
    """
    kinds = None if classes is None else np.ascontiguousarray(classes, np.int32)
    boxes, marks = np.ascontiguousarray(corners[:, :4], np.float64), np.ascontiguousarray(scores, np.float32)
    return np.array(core.suppress(boxes, marks, iou, kinds), np.intp)


def box_iou(a: Box, b: Box) -> float:
    """Return the area that two boxes share over that which they cover, 0..1."""
    wide, high = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    return both / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - both)
