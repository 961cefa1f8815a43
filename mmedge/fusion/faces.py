"""The steps between the networks of a cascaded face detector (MTCNN): candidates, crops, boxes.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016
(arXiv 1604.02878). Sizes are fixed, so that the networks between the steps have static shapes: rows that are not
used are zero. Boxes are x1, y1, x2, y2 in pixels of the picture tensor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.extras import require
from mmedge.interpret.nms import suppress
from mmedge.types import FloatArray

CANDIDATES, CROP = 32, 24
FINALISTS, FINAL_CROP = 8, 48
# Probabilities that the three networks ask for, as published.
FIRST, SECOND, THIRD = 0.6, 0.7, 0.7
_Indices = npt.NDArray[np.intp]


def propose(image: FloatArray, cells: FloatArray) -> dict[str, FloatArray]:
    """Choose candidates among the cells of the first network.

    All are float32; boxes are corners in pixels of the image.

    Args:
        image: [1, 3, height, width].
        cells: [1, n, 10]: box, probability, offsets of its four sides in box widths and heights, pyramid level.

    Returns:
        ``boxes`` [32, 4], squares, and ``crops`` [32, 3, 24, 24], best first.
    """
    rows = cells[0][cells[0, :, 4] >= FIRST]
    rows = rows[suppress(rows[:, :4], rows[:, 4], 0.5, rows[:, 9])]
    rows = rows[suppress(rows[:, :4], rows[:, 4], 0.7)][:CANDIDATES]
    size = rows[:, 2:4] - rows[:, :2]
    boxes = _square(rows[:, :4] + rows[:, 5:9] * np.concatenate([size, size], 1))
    return {"boxes": _padded(boxes, CANDIDATES), "crops": _crops(image, boxes, CANDIDATES, CROP)}


def refine(image: FloatArray, boxes: FloatArray, probability: FloatArray, offsets: FloatArray) -> dict[str, FloatArray]:
    """Keep the candidates that the second network takes for faces.

    All are float32; boxes are corners in pixels of the image.

    Args:
        image: [1, 3, height, width].
        boxes: [32, 4], of ``propose``.
        probability: [32, 1], of the second network.
        offsets: [32, 4], in box widths and heights.

    Returns:
        ``boxes`` [8, 4], squares, and ``crops`` [8, 3, 48, 48], best first.
    """
    kept = np.flatnonzero((probability[:, 0] > SECOND) & _used(boxes))
    kept = kept[suppress(boxes[kept], probability[kept, 0], 0.7)][:FINALISTS]
    refined = _square(_moved(boxes[kept], offsets[kept]))
    return {"boxes": _padded(refined, FINALISTS), "crops": _crops(image, refined, FINALISTS, FINAL_CROP)}


def decide(boxes: FloatArray, probability: FloatArray, offsets: FloatArray) -> dict[str, FloatArray]:
    """Give the faces that the third network confirms.

    All are float32; boxes are corners in pixels of the image.

    Args:
        boxes: [8, 4], of ``refine``.
        probability: [8, 1], of the third network.
        offsets: [8, 4], in box widths and heights.

    Returns:
        ``faces`` [1, 8, 6]: box, probability, class 0, best first; and ``face`` [1, 1]: the probability that there
        is a face at all.
    """
    used = _used(boxes)
    best = float(probability[used, 0].max()) if used.any() else 0.0
    kept = np.flatnonzero((probability[:, 0] > THIRD) & used)
    moved = _moved(boxes[kept], offsets[kept])
    chosen = _suppress_inside(moved, probability[kept, 0], 0.7)
    found = np.zeros((len(chosen), 6), np.float32)
    found[:, :4], found[:, 4] = moved[chosen], probability[kept[chosen], 0]
    return {"faces": _padded(found, FINALISTS)[None], "face": np.array([[best]], np.float32)}


def _used(boxes: FloatArray) -> npt.NDArray[np.bool_]:
    used: npt.NDArray[np.bool_] = boxes[:, 2] > boxes[:, 0]
    return used


def _suppress_inside(boxes: FloatArray, scores: FloatArray, overlap: float) -> _Indices:
    """Return boxes, best first, leaving out what shares more than ``overlap`` of the smaller area with a better one."""
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        low = np.maximum(boxes[chosen, :2], boxes[index, :2])
        high = np.minimum(boxes[chosen, 2:4], boxes[index, 2:4])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        areas = np.prod(boxes[[*chosen, index], 2:4] - boxes[[*chosen, index], :2], axis=1)
        if not np.any(shared > overlap * np.minimum(areas[:-1], areas[-1])):
            chosen.append(index)
    return np.array(chosen, np.intp)


def _moved(boxes: FloatArray, offsets: FloatArray) -> FloatArray:
    # The networks were trained on boxes that count their last pixel.
    size = boxes[:, 2:4] - boxes[:, :2] + 1
    moved: FloatArray = boxes + offsets * np.concatenate([size, size], 1)
    return moved


def _square(boxes: FloatArray) -> FloatArray:
    size = boxes[:, 2:4] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    low = boxes[:, :2] + (size - side) / 2
    return np.concatenate([low, low + side], 1)


def _padded(rows: FloatArray, count: int) -> FloatArray:
    padded = np.zeros((count, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return padded


def _crops(image: FloatArray, boxes: FloatArray, count: int, side: int) -> FloatArray:
    cv2 = require("cv2", "cutting faces out")
    height, width = image.shape[2:]
    crops = np.zeros((count, 3, side, side), np.float32)
    for crop, (left, top, right, bottom) in zip(crops, np.trunc(boxes).astype(int).tolist(), strict=False):
        # One pixel is the origin in the networks' training: rows top-1..bottom.
        part = image[0, :, max(top, 1) - 1 : min(bottom, height), max(left, 1) - 1 : min(right, width)]
        if part.size:
            rule = cv2.INTER_AREA if part.shape[1] >= side and part.shape[2] >= side else cv2.INTER_LINEAR
            for plane, out in zip(part, crop, strict=True):
                cv2.resize(plane, (side, side), dst=out, interpolation=rule)
    return crops
