"""From a detector's output to boxes in the camera's picture: decode, map back, suppress duplicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret.smoothing import Scores
from mmedge.interpret.task import read_and_tell, refuse, tell
from mmedge.types import AnyArray

Layout: TypeAlias = Literal["yolo", "yolo-objectness", "boxes"]
ToPicture: TypeAlias = Callable[[AnyArray], None]


class Detector(core.Detector):
    """Boxes above the threshold, the best first; those of one class that overlap more than ``iou`` are one.

    Label and score of its result are those of the best one.

    Args:
        name: Of the task.
        task: Its manifest entry; of each row the best class counts.
        labels: Of its classes.
        to_picture: Maps corners [n, 4] from pixels of the network's input to 0..1 of the camera's picture, in place.
    """

    __call__ = read_and_tell
    tell = tell

    def __init__(self, name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture) -> None:
        assert task.detection is not None, "the manifest was checked"
        spec = task.detection
        super().__init__(
            spec.layout,
            spec.max_boxes,
            task.threshold,
            spec.iou,
            labels=labels,
            seat=spec.input,
            rows=partial(_rows, name, spec.layout, len(labels)),
            few=_few,
            unknown=partial(_unknown, name, len(labels)),
            to_picture=to_picture,
            refuse=partial(refuse, name),
        )


def _rows(name: str, layout: Layout, labels: int, output: AnyArray) -> AnyArray:
    """Return an output as [n, values], or [values, n] of the layout ``yolo``, float64."""
    want = {"boxes": 6, "yolo": 4 + labels, "yolo-objectness": 5 + labels}[layout]
    own = output[0] if output.ndim == 3 and len(output) == 1 else output
    if own.ndim != 2 or own.shape[0 if layout == "yolo" else 1] != want:
        raise EngineError(
            f"{list(output.shape)} does not match the layout '{layout}' with {labels} labels",
            where=f"task '{name}'",
            fix=f"it must be [1, {want}, n]" if layout == "yolo" else f"it is [1, n, {want}]",
        )
    return np.ascontiguousarray(own, np.float64)


def _few(scores: Scores) -> Sequence[int]:
    """Return the places of the best of ``scores`` [n], as many as boxes are compared."""
    most = core.MAX_CANDIDATES
    return [int(place) for place in np.argpartition(-scores, most)[:most]]


def _unknown(name: str, labels: int, kind: float) -> None:
    raise EngineError(
        f"a box has class {kind:g}, but there are only {labels} labels",
        where=f"task '{name}'",
        fix="match labels and output; the layout 'boxes' is x1, y1, x2, y2, score, class",
    )
