"""The tasks of a manifest, and the checks of each kind of task.

To add a kind: name it in ``Task.kind``, add its keys, and enter what it checks in ``TASK_KINDS``; then how its output
is read in ``mmedge/interpret/kinds.py``, and how it is trained and measured in ``export/tasks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod
from typing import Annotated, Any, Literal, NoReturn, Protocol, TypeAlias

import msgspec

from mmedge.bundle.seats import ImageInput, Input, Milliseconds, PositiveFloat, Share, Strict
from mmedge.bundle.source import Output, parse_output


class Ema(Strict, frozen=True, kw_only=True, tag_field="kind", tag="ema"):
    """Exponential smoothing of a task's scores over time: an old score weighs exp(-dt / tau)."""

    tau_ms: Milliseconds


class Hysteresis(Strict, frozen=True, kw_only=True, tag_field="kind", tag="hysteresis"):
    """A label is taken up at a score of ``enter`` and kept until its score falls below ``leave``."""

    enter: Share
    leave: Share

    def __post_init__(self) -> None:
        if self.leave > self.enter:
            raise ValueError(f"hysteresis needs leave <= enter, got leave {self.leave:g} and enter {self.enter:g}")


class Debounce(Strict, frozen=True, kw_only=True, tag_field="kind", tag="debounce"):
    """A label is reported only after it has been the same for ``hold_ms``; until then the one before it is."""

    hold_ms: Milliseconds


Smoothing: TypeAlias = Ema | Hysteresis | Debounce


class Detection(Strict, frozen=True, kw_only=True):
    """How boxes lie in a detector's output.

    Attributes:
        layout: ``yolo`` [1, 4 + classes, n]: centre, size, class scores (YOLOv8, 9, 11); ``yolo-objectness``
            [1, n, 5 + classes]: the same with objectness, n first (YOLOv5, 6, 7); ``boxes`` [1, n, 6]: corners,
            score, class (end-to-end networks). Coordinates are pixels of the network's input.
        input: The image input they refer to.
        iou: Boxes of one class that overlap more are one.
        max_boxes: At most this many boxes, the best ones.
    """

    layout: Literal["yolo", "yolo-objectness", "boxes"]
    input: str
    iou: Share = 0.45
    max_boxes: Annotated[int, msgspec.Meta(gt=0, le=1000)] = 100


class Regression(Strict, frozen=True, kw_only=True):
    """What the one number of an output is.

    Attributes:
        unit: Of the number, as it is told: ``m``, ``degrees``; empty where it has none.
        clamp: Least and greatest number that is told, in ``unit``; what the network gives beyond is told as these.
    """

    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    clamp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.clamp is not None and not -inf < self.clamp[0] < self.clamp[1] < inf:
            raise ValueError(f"clamp [{self.clamp[0]:g}, {self.clamp[1]:g}] is not [low, high] of two finite numbers")


class Task(Strict, frozen=True, kw_only=True):
    """What an output means.

    ``verification`` compares the inputs that are present, so it is undefined with fewer than two;
    its score is the sigmoid of one logit and its labels are (no, yes). ``classification`` is the softmax of logits;
    a task that says ``probabilities`` gives them itself. ``detection`` gives boxes, whose scores are probabilities.
    ``regression`` is one number in a unit; it has no labels and no scores.

    Attributes:
        kind: What is made of the output.
        output: ``STAGE.OUTPUT``.
        labels: Member of the bundle, one label a line, in the order of the output; None where the kind has no labels.
        temperature: By which logits are divided, calibrated on validation data.
        threshold: Score below which it abstains, says no, or sees no box; a hysteresis takes its place.
        smoothing: One, or several in this order: ema of the scores, hysteresis of the choice, debounce of the label.
        top_k: How many of the best labels are reported with their scores.
        scores: What the output gives.
        detection: How boxes lie in the output.
        regression: What the number is.
    """

    kind: Literal["classification", "verification", "detection", "regression"]
    output: str
    labels: str | None = None
    temperature: PositiveFloat = 1.0
    threshold: Share = 0.0
    smoothing: Smoothing | tuple[Smoothing, ...] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    scores: Literal["logits", "probabilities"] = "logits"
    detection: Detection | None = None
    regression: Regression | None = None

    def __post_init__(self) -> None:
        if TASK_KINDS[self.kind].labelled and not self.labels and not isinstance(self.labels, str):
            raise ValueError("Object missing required field `labels`")

    @property
    def tensor(self) -> Output:
        """``output``, parsed; ValueError if it is not ``STAGE.OUTPUT``."""
        return parse_output(self.output)

    @property
    def smoothings(self) -> tuple[Smoothing, ...]:
        """``smoothing`` as a tuple."""
        return self.smoothing if isinstance(self.smoothing, tuple) else (self.smoothing,) if self.smoothing else ()


class Fail(Protocol):
    """Raises BundleError at a key of the task."""

    def __call__(self, message: str, key: str, fix: str = ...) -> NoReturn:
        """Raise: what is wrong, at which key of the task, what to do."""


class TaskKind:
    """What a kind asks of its manifest entry, and how ``mmedge inspect`` shows it; this base is right for any.

    Attributes:
        labelled: Whether it has labels.
    """

    labelled = True

    def check(self, task: Task, inputs: Mapping[str, Input], fail: Fail) -> None:
        """Refuse keys that this kind cannot have."""

    def check_output(self, task: Task, dims: Sequence[int], labels: int, fail: Fail) -> None:
        """Refuse an output of shape ``dims`` that is not of ``labels`` labels."""

    def describe(self, task: Task, labels: Sequence[str]) -> list[str]:
        """Return lines for people, behind the one that names the kind."""
        names = f"{labels[0]} .. {labels[-1]}" if len(labels) > 3 else ", ".join(labels)
        return [f"{len(labels)} labels ({names})", f"threshold {task.threshold:g}"]


class _Classification(TaskKind):
    def check_output(self, task: Task, dims: Sequence[int], labels: int, fail: Fail) -> None:
        _need_classes(prod(dims), labels, fail)


class _Verification(TaskKind):
    def check_output(self, task: Task, dims: Sequence[int], labels: int, fail: Fail) -> None:
        if (prod(dims), labels) != (1, 2):
            fail("is for one score and the labels (no, yes)", "labels")


class _Detection(TaskKind):
    def check(self, task: Task, inputs: Mapping[str, Input], fail: Fail) -> None:
        if task.detection is not None and not isinstance(inputs.get(task.detection.input), ImageInput):
            fail(f"'{task.detection.input}' is not an image input", "detection.input")
        if task.smoothing:
            fail("boxes are not tracked between frames, so they cannot be smoothed", "smoothing", "leave it out")
        if task.top_k or task.temperature != 1.0:
            limit = "leave them out; 'max_boxes' limits boxes"
            fail("a detection takes neither temperature nor top_k", "temperature", limit)

    def check_output(self, task: Task, dims: Sequence[int], labels: int, fail: Fail) -> None:
        layout = None if task.detection is None else task.detection.layout
        if len(dims) != 3 or dims[0] != 1 or (layout == "boxes" and dims[2] != 6):
            fail(f"is not of the layout '{layout}'", "labels")
        if layout != "boxes":
            _need_classes(dims[1] - 4 if layout == "yolo" else dims[2] - 5, labels, fail)

    def describe(self, task: Task, labels: Sequence[str]) -> list[str]:
        spec = task.detection
        boxes = [] if spec is None else [f"{spec.layout} of {spec.input}, iou {spec.iou:g}"]
        return [*super().describe(task, labels), *boxes]


class _Regression(TaskKind):
    labelled = False

    def check(self, task: Task, inputs: Mapping[str, Input], fail: Fail) -> None:
        if task.labels:
            fail("a regression has no labels", "labels", "leave them out")
        for key in ("temperature", "threshold", "top_k", "scores"):
            if getattr(task, key) != _DEFAULTS[key]:
                fail(f"a regression has no {key}", key, "leave it out; 'regression.clamp' limits the value")
        if not all(isinstance(part, Ema) for part in task.smoothings):
            fail("only an ema smooths a number", "smoothing", 'write { kind = "ema", tau_ms = 200 }')

    def check_output(self, task: Task, dims: Sequence[int], labels: int, fail: Fail) -> None:
        if prod(dims) != 1:
            fail("is not one number", "output", "give each number an output of its own, or choose another output")

    def describe(self, task: Task, labels: Sequence[str]) -> list[str]:
        spec = task.regression or Regression()
        unit = [f"in {spec.unit}"] if spec.unit else []
        return [*unit, *([] if spec.clamp is None else [f"{spec.clamp[0]:g} .. {spec.clamp[1]:g}"])]


_DEFAULTS = dict(zip(Task.__struct_fields__[-len(Task.__struct_defaults__) :], Task.__struct_defaults__, strict=True))
TASK_KINDS: Mapping[str, TaskKind] = {
    "classification": _Classification(),
    "verification": _Verification(),
    "detection": _Detection(),
    "regression": _Regression(),
}


def check_task(task: Task, inputs: Mapping[str, Input], fail: Fail) -> None:
    """Refuse, by ``fail``, what a task of its kind cannot have."""
    if (task.detection is not None) != (task.kind == "detection"):
        fail("'detection' belongs to tasks of kind detection, and to no others", "detection")
    if task.regression is not None and task.kind != "regression":
        fail("'regression' belongs to tasks of kind regression, and to no others", "regression", "leave it out")
    TASK_KINDS[task.kind].check(task, inputs, fail)
    if task.scores == "probabilities" and task.temperature != 1.0:
        fail("a temperature calibrates logits, not probabilities", "temperature", "leave one of the two out")
    kinds = [type(part).__name__ for part in task.smoothings]
    if kinds != sorted(set(kinds), key=("Ema", "Hysteresis", "Debounce").index):
        fail(
            f"smoothing by {', '.join(kinds).lower()} is not possible",
            "smoothing",
            "use each at most once, in this order: ema of scores, hysteresis of the choice, debounce of the label",
        )


def _need_classes(classes: int, labels: int, fail: Fail) -> None:
    if classes != labels:
        fail("has 1 class" if classes == 1 else f"has {max(classes, 0)} classes", "labels")


def task_of(other: Task, **changes: Any) -> Task:
    """Return a task as the manifest has it, of one that may know more, as a recipe's does."""
    return Task(**{name: getattr(other, name) for name in Task.__struct_fields__} | changes)
