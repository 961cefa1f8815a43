"""How often two bundles give one answer to a task, and how far their numbers are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmedge.bundle.tasks import Task
from mmedge.interpret.nms import box_iou
from mmedge.types import Box, TaskResult

_IOU = 0.5  # from which on two boxes are of one thing
_VALUES = "mean absolute difference"
_METRICS = {"regression": _VALUES, "detection": f"boxes of one label that overlap by {_IOU:g} (F1)"}


class Agreement:
    """The answers of two bundles to one task, pair by pair.

    That a score is below the threshold is an answer, and so is a picture without boxes. Where one side alone is silent,
    labels do not agree, and numbers have no difference; where both are, there is nothing to compare.

    Args:
        task: What is answered.
    """

    def __init__(self, task: Task) -> None:
        self._kind = task.kind
        self._pairs, self._same, self._off, self._worst = 0, 0.0, 0.0, 0.0
        self._silent = {"a": 0, "b": 0, "both": 0}

    def add(self, a: TaskResult, b: TaskResult, *, told: tuple[bool, bool]) -> None:
        """Add the answers to one trigger; ``told`` is whether the output behind each was there."""
        silent = [not self._speaks(result, there) for result, there in zip((a, b), told, strict=True)]
        if any(silent):
            self._silent["both" if all(silent) else "a" if silent[0] else "b"] += 1
            return
        self._pairs += 1
        if a.value is not None and b.value is not None:
            self._off += abs(a.value - b.value)
            self._worst = max(self._worst, abs(a.value - b.value))
        elif self._kind == "detection":
            self._same += _matching(a.boxes, b.boxes) if a.boxes or b.boxes else 1.0
        else:
            self._same += a.label == b.label

    def _speaks(self, result: TaskResult, told: bool) -> bool:
        if self._kind == "detection":  # one that sees nothing looks as one that has not looked
            return told or bool(result.boxes)
        return result.score is not None or result.value is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the metric, how many pairs it is of, triggers with one silent side or two, and the figures."""
        metric = _METRICS.get(self._kind, "same label")
        figures: dict[str, Any] = {"metric": metric, "pairs": self._pairs}
        figures |= {f"silent_{side}": count for side, count in self._silent.items()}
        if metric == _VALUES:
            mean = round(self._off / self._pairs, 6) if self._pairs else None
            return figures | {"mean_abs": mean, "max_abs": round(self._worst, 6) if self._pairs else None}
        judged = self._pairs + self._silent["a"] + self._silent["b"]
        return figures | {"agreement": round(self._same / judged, 6) if judged else None}


def _matching(a: Sequence[Box], b: Sequence[Box]) -> float:
    """Return the F1 of two sets of boxes: each is matched once, the best first."""
    free, hits = list(b), 0
    for box in a:
        best = max((other for other in free if other.label == box.label), key=lambda o: box_iou(box, o), default=None)
        if best is not None and box_iou(box, best) >= _IOU:
            free.remove(best)
            hits += 1
    return 2 * hits / (len(a) + len(b))
