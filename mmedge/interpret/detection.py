"""From a detector's output to boxes in the camera's picture: decode, map back, suppress duplicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret.task import UNDEFINED, Interpreter, not_probabilities
from mmedge.types import AnyArray, Box, Snapshot, TaskResult

Layout: TypeAlias = Literal["yolo", "yolo-objectness", "boxes"]
ToPicture: TypeAlias = Callable[[AnyArray], None]
MAX_CANDIDATES = 2048  # as in native/interpret/detector.hpp


class Detector(Interpreter):
    """Boxes above the threshold, the best first; those of one class that overlap more than ``iou`` are one.

    Args:
        name: Of the task.
        task: Its manifest entry; of each row the best class counts.
        labels: Of its classes.
        to_picture: Maps corners [n, 4] from pixels of the network's input to 0..1 of the camera's picture, in place.
    """

    def __init__(self, name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture) -> None:
        assert task.detection is not None, "the manifest was checked"
        self._name, self._labels = name, labels
        spec = self._spec = task.detection
        self._to_picture = to_picture
        self._reader = core.Detector(spec.layout, len(labels), spec.max_boxes, task.threshold, spec.iou)
        self._found = UNDEFINED

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up the boxes; without its picture there are none."""
        self._found = UNDEFINED
        rows, reader, labels = self._rows(output), self._reader, self._labels
        if not snapshot.present[self._spec.input]:
            return
        refused = reader.read(rows)
        if refused is not None:
            raise not_probabilities(*refused, self._name)
        if not reader.found:
            return
        picked = None
        if reader.found > MAX_CANDIDATES:
            picked = np.argpartition(-reader.found_scores(), MAX_CANDIDATES)[:MAX_CANDIDATES]
        wrong = reader.take(rows, picked)
        if wrong is not None:
            raise EngineError(
                f"a box has class {wrong:g}, but there are only {len(labels)} labels",
                where=f"task '{self._name}'",
                fix="match labels and output; the layout 'boxes' is x1, y1, x2, y2, score, class",
            )
        self._to_picture(reader.corners())
        boxes = tuple(
            Box(label=labels[kind], score=score, x1=x1, y1=y1, x2=x2, y2=y2)
            for kind, score, x1, y1, x2, y2 in reader.tell()
        )
        if boxes:
            self._found = TaskResult(label=boxes[0].label, score=boxes[0].score, boxes=boxes)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the boxes; label and score are those of the best one."""
        return self._found

    def reset(self) -> None:
        """Nothing is remembered."""

    def _rows(self, output: AnyArray) -> AnyArray:
        """Return ``output`` as [n, values], or [values, n] of the layout ``yolo``, checked, float32 or float64."""
        layout, want = self._spec.layout, self._reader.values
        own = output[0] if output.ndim == 3 and len(output) == 1 else output
        if own.ndim != 2 or own.shape[0 if layout == "yolo" else 1] != want:
            raise EngineError(
                f"{list(output.shape)} does not match the layout '{layout}' with {len(self._labels)} labels",
                where=f"task '{self._name}'",
                fix=f"it must be [1, {want}, n]" if layout == "yolo" else f"it is [1, n, {want}]",
            )
        return own if own.dtype == np.float32 and own.flags.c_contiguous else np.ascontiguousarray(own, np.float64)
