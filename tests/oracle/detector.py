"""The detector in plain Python and OpenCV, as it ran before it was native: what holds the native one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import Detection, Task
from mmedge.errors import EngineError
from mmedge.extras import require
from mmedge.interpret.task import UNDEFINED, Interpreter
from mmedge.types import AnyArray, Box, Snapshot, TaskResult
from tests.oracle.interpreters import check_probability

Layout: TypeAlias = Literal["yolo", "yolo-objectness", "boxes"]
ToPicture: TypeAlias = Callable[[AnyArray], None]
# Suppression compares every box with every one that was kept: 2,048 cost 20 ms at worst, 100,000 a minute.
MAX_CANDIDATES = 2048
_BEFORE_CLASSES = {"yolo": 4, "yolo-objectness": 5}


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

    Raises:
        MissingDependencyError: If OpenCV is not installed.

    Example:
        >>> suppress(np.array([[0, 0, 4, 4], [0, 0, 4, 3], [8, 8, 9, 9]]), np.array([0.8, 0.9, 0.7]), 0.5).tolist()
        [1, 2]
    """
    dnn = require("cv2", "choosing among boxes").dnn
    if not len(corners):
        return np.zeros(0, np.intp)
    rects = np.concatenate([corners[:, :2], corners[:, 2:4] - corners[:, :2]], axis=1).astype(np.float64)
    marks = np.asarray(scores, np.float32)
    if classes is None:
        kept = dnn.NMSBoxes(rects, marks, 0.0, iou)
    else:
        kept = dnn.NMSBoxesBatched(rects, marks, classes.astype(np.int32), 0.0, iou)
    indices = np.asarray(kept, np.intp).reshape(-1)
    return indices[np.argsort(-marks[indices], kind="stable")]


class Detector(Interpreter):
    """Boxes above the threshold, the best first; those of one class that overlap more than ``iou`` are one.

    Args:
        name: Of the task.
        task: Its manifest entry; of each row the best class counts.
        labels: Of its classes.
        to_picture: Maps corners [n, 4] from pixels of the network's input to 0..1 of the camera's picture, in place.

    Raises:
        MissingDependencyError: If OpenCV is not installed.
    """

    def __init__(self, name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture) -> None:
        assert task.detection is not None, "the manifest was checked"
        self._name, self._labels = name, labels
        self._spec: Detection = task.detection
        self._threshold = task.threshold
        self._to_picture = to_picture
        require("cv2", "detection")
        self._found = UNDEFINED

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up the boxes; without its picture there are none."""
        self._found = UNDEFINED
        rows = self._rows(output)
        if not snapshot.present[self._spec.input]:
            return
        corners, scores, classes = self._decode(rows)
        self._to_picture(corners)
        np.clip(corners, 0.0, 1.0, out=corners)
        # Rounded before they are compared, so that the reported boxes keep the promise about overlaps.
        np.round(corners, 5, out=corners)
        solid = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        corners, scores, classes = corners[solid], scores[solid], classes[solid]
        kept = suppress(corners, scores, self._spec.iou, classes)
        if not len(kept):
            return
        boxes = tuple(
            Box(label=self._labels[classes[i]], score=round(float(scores[i]), 4), **_named(corners[i]))
            for i in kept[: self._spec.max_boxes]
        )
        self._found = TaskResult(label=boxes[0].label, score=boxes[0].score, boxes=boxes)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the boxes; label and score are those of the best one."""
        return self._found

    def reset(self) -> None:
        """Nothing is remembered."""

    def _rows(self, output: AnyArray) -> AnyArray:
        """Return a view [n, values] of ``output``, checked."""
        layout, classes = self._spec.layout, len(self._labels)
        want = _BEFORE_CLASSES.get(layout, 0) + classes if layout in _BEFORE_CLASSES else 6
        own = output[0] if output.ndim == 3 and len(output) == 1 else output
        rows = own.T if layout == "yolo" else own
        if rows.ndim != 2 or rows.shape[1] != want:
            raise EngineError(
                f"{list(output.shape)} does not match the layout '{layout}' with {classes} labels",
                where=f"task '{self._name}'",
                fix=f"it must be [1, {want}, n]" if layout == "yolo" else f"it is [1, n, {want}]",
            )
        return rows

    def _decode(self, rows: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Return corners [k, 4] in pixels of the network's input, scores and classes [k], of the best candidates."""
        first = _BEFORE_CLASSES.get(self._spec.layout)
        scores = (rows[:, 4] if first is None else rows[:, first:].max(axis=1)).astype(np.float64)
        if first == 5:
            scores *= rows[:, 4]
        # What is below 0 is below any threshold; what is above 1 was never a score.
        check_probability(np.maximum(scores, 0.0), self._name)
        found = np.flatnonzero((scores >= self._threshold) & (scores > 0.0))
        if len(found) > MAX_CANDIDATES:
            found = found[np.argpartition(-scores[found], MAX_CANDIDATES)[:MAX_CANDIDATES]]
        picked, scores = rows[found].astype(np.float64), np.minimum(scores[found], 1.0)
        if first is None:
            return picked[:, :4], scores, self._classes(picked[:, 5])
        half = picked[:, 2:4] / 2.0
        corners = np.concatenate([picked[:, :2] - half, picked[:, :2] + half], axis=1)
        return corners, scores, picked[:, first:].argmax(axis=1)

    def _classes(self, numbers: AnyArray) -> AnyArray:
        wrong = (numbers < 0) | (numbers >= len(self._labels)) | (numbers != np.floor(numbers))
        if wrong.any():
            raise EngineError(
                f"a box has class {numbers[wrong][0]:g}, but there are only {len(self._labels)} labels",
                where=f"task '{self._name}'",
                fix="match labels and output; the layout 'boxes' is x1, y1, x2, y2, score, class",
            )
        return numbers.astype(np.int64)


def _named(corners: AnyArray) -> dict[str, float]:
    return dict(zip(("x1", "y1", "x2", "y2"), corners.tolist(), strict=True))
