"""How each kind of task is trained, measured, and compared with another version of itself.

To add a kind, give it a ``TaskKind`` here; what its manifest entry may say is in ``mmedge/bundle/tasks.py``, how its
output is read in ``mmedge/interpret/kinds.py``. torch is imported when something is trained or measured, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmedge.errors import ConfigError
from mmedge.interpret.nms import box_iou
from mmedge.types import Box, TaskResult

if TYPE_CHECKING:
    from torch import Tensor

    from .recipe import Recipe, RecipeTask


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known of a batch of samples.

    Attributes:
        labels: int64 [batch, n_inputs], the class that each input shows, -1 for unknown.
        present: float32 [batch, n_inputs].
        none: Class that means nothing is shown.
        values: float32 [batch], what a task of ``valued_tasks`` should answer: a number, the number of a class, or of
            a verification 0 or 1; NaN for unknown.
    """

    labels: Tensor
    present: Tensor
    none: int | None = None
    values: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two versions of a task agree on some samples.

    Attributes:
        share: 1 where they give the same answers.
        score_difference: Largest difference of the score of the label.
        difference: Mean absolute difference of the values, in the task's unit; None where it tells none.
    """

    share: float
    score_difference: float = 0.0
    difference: float | None = None


class TaskKind:
    """What the host toolchain knows of a kind; this base is a kind that is brought along, and not trained.

    Attributes:
        metric: What ``judge`` averages to, as ``validated_masks`` name it.
        trained: Whether it has a target.
        calibrated: Whether its temperature is.
        valued: Whether its target is a number of the sample (``Sample.targets``) instead of its inputs' classes.
        counted: Whether an answer is right or wrong, so that few samples may differ by chance; else it has an error.
        agrees_by: How two versions of it are compared, where the recipe does not say.
        metrics: How else they may be.
        keys: What a starter recipe says of it.
    """

    metric = "accuracy"
    trained = calibrated = valued = False
    counted = True
    agrees_by = "label"
    metrics: tuple[str, ...] = ("label", "sqnr")
    keys: tuple[str, ...] = ("kind", "output", "labels", "scores", "threshold", "top_k")

    def target(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return what it should answer [batch, ...], and where that is defined, bool [batch].

        Args:
            task: The task.
            outputs: float32 [batch, ...], before any sigmoid or softmax.
            truth: Of the same samples.

        Raises:
            ConfigError: If this kind cannot be trained.
        """
        raise ConfigError(
            f"a {task.kind} cannot be trained here",
            where=f"'{task.output}'",
            fix="use a trained network of your own: onnx = FILE",
        )

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row [batch].

        ``outputs`` are float32 [batch, ...] as the network gives them, ``target`` has the dtype that the kind's data
        has.
        """
        raise TypeError(f"{type(self).__name__} does not implement losses")

    def certain(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        """Return which samples have one right answer, bool [batch]: those that ``judge`` judges."""
        return self.target(task, outputs, truth)[1]

    def judge(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        """Return 1 where an answer is right and 0 where not, or its error, float32 [certain]; only certain targets."""
        raise TypeError(f"{type(self).__name__} does not implement judge")

    def even(self, task: RecipeTask) -> float:
        """Return the output that a trained network would call 0."""
        return 0.0

    def span(self, task: RecipeTask, values: Sequence[float]) -> float:
        """Return the size of which errors are a share, where they are not counted."""
        return 1.0

    def agreement(self, task: RecipeTask, pairs: Sequence[tuple[TaskResult, TaskResult]]) -> Agreement:
        """Return how the answers of two versions agree: here on how many samples they give the same label."""
        return Agreement(
            share=sum(x.label == y.label for x, y in pairs) / len(pairs),
            score_difference=max(abs((x.score or 0.0) - (y.score or 0.0)) for x, y in pairs),
        )

    def sure(self, name: str, task: RecipeTask) -> str:
        """Return a Python expression for how sure the output ``name`` is that something was found, 0..1."""
        return f"float({name}.max())" if task.scores == "probabilities" else f"float(softmax({name}).max())"


class _Classification(TaskKind):
    metric = "top1"
    trained = calibrated = True
    metrics = ("label", "within", "cosine", "sqnr")

    def target(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        from .training.targets import classification_target

        labels = truth.labels
        if truth.values is not None:  # the sample's class is that of everything that is there
            labels = truth.values.nan_to_num(nan=-1).long()[:, None].expand_as(truth.present)
        target = classification_target(labels, truth.present, outputs.shape[1], truth.none)
        return target, target.sum(1) > 0

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, target, reduction="none")

    def certain(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        return self.target(task, outputs, truth)[0].amax(1) == 1

    def judge(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        best, answer = self.target(task, outputs, truth)[0].max(1)
        return (outputs.argmax(1) == answer)[best == 1].float()


class _Verification(TaskKind):
    trained = calibrated = True

    def target(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        from .training.targets import verification_target

        if truth.values is not None:
            enough = truth.present.sum(1) >= min(2, truth.present.shape[1])
            return truth.values.nan_to_num(), ~truth.values.isnan() & enough
        return verification_target(truth.labels, truth.present, truth.none)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs[:, 0], target, reduction="none")

    def judge(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        same, defined = self.target(task, outputs, truth)
        return ((outputs[:, 0] >= 0) == (same > 0))[defined].float()

    def even(self, task: RecipeTask) -> float:
        # A probability is even where a logit is zero.
        return 0.5 if task.scores == "probabilities" else 0.0


class _Detection(TaskKind):
    agrees_by = "map"
    metrics = ("map", "label", "cosine", "sqnr")
    keys = ("kind", "output", "labels", "threshold", "detection")

    def agreement(self, task: RecipeTask, pairs: Sequence[tuple[TaskResult, TaskResult]]) -> Agreement:
        """Return the mean average precision at an overlap of 0.5, the first version's boxes being right."""
        if task.metric == "label":
            return super().agreement(task, pairs)
        return Agreement(share=mean_average_precision([(x.boxes, y.boxes) for x, y in pairs], sure=task.threshold))

    def sure(self, name: str, task: RecipeTask) -> str:
        assert task.detection is not None
        best = {
            "yolo": f"{name}[0, 4:].max()",
            "yolo-objectness": f"({name}[0, :, 4:5] * {name}[0, :, 5:]).max()",
            "boxes": f"{name}[0, :, 4].max()",
        }[task.detection.layout]
        return f"min(max(float({best}), 0.0), 1.0)"


class _Regression(TaskKind):
    metric = "mae"
    trained = valued = True
    counted = False
    agrees_by = "value"
    metrics = ("value", "sqnr")
    keys = ("kind", "output", "regression")

    def target(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        assert truth.values is not None, "collate gives the targets of a task with 'valued'"
        known = ~truth.values.isnan() & (truth.present.sum(1) > 0)
        return truth.values.nan_to_num(), known

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.smooth_l1_loss(outputs.reshape(-1), target, reduction="none")

    def judge(self, task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
        target, known = self.target(task, outputs, truth)
        told, clamp = outputs.reshape(-1), task.regression and task.regression.clamp
        return ((told.clamp(*clamp) if clamp else told) - target)[known].abs()

    def span(self, task: RecipeTask, values: Sequence[float]) -> float:
        """Return the width of the clamp; without one, that of ``values``, or how large they are if all are equal."""
        if task.regression is not None and task.regression.clamp is not None:
            return task.regression.clamp[1] - task.regression.clamp[0]
        known = [value for value in values if value == value]
        return (max(known) - min(known)) or abs(known[0]) or 1.0

    def agreement(self, task: RecipeTask, pairs: Sequence[tuple[TaskResult, TaskResult]]) -> Agreement:
        """Return by how much the numbers differ on average, as a share of ``span``."""
        told = [(x.value, y.value) for x, y in pairs if x.value is not None and y.value is not None]
        difference = sum(abs(x - y) for x, y in told) / len(told)
        share = 1.0 - difference / self.span(task, [x for x, _ in told])
        return Agreement(share=share, score_difference=0.0, difference=difference)


KINDS: Mapping[str, TaskKind] = {
    "classification": _Classification(),
    "verification": _Verification(),
    "detection": _Detection(),
    "regression": _Regression(),
}


def mean_average_precision(
    pairs: Sequence[tuple[Sequence[Box], Sequence[Box]]], overlap: float = 0.5, sure: float = 0.0
) -> float:
    """Return the mean over the labels of the area under precision against recall; 1 where there is no box at all.

    Args:
        pairs: Right boxes and found boxes of each picture.
        overlap: Intersection over union from which a found box is one that is right.
        sure: Score from which a box of a label that nothing right has is a mistake.
    """
    labels = {box.label for right, found in pairs for box in (*right, *found)}
    precisions = [_average_precision(pairs, label, overlap, sure) for label in sorted(labels)]
    known = [value for value in precisions if value is not None]
    return sum(known) / len(known) if known else 1.0


def _average_precision(
    pairs: Sequence[tuple[Sequence[Box], Sequence[Box]]], label: str, overlap: float, sure: float
) -> float | None:
    """Return the average precision of one label; None where nothing that is right has it, and nothing sure is found."""
    right = [[box for box in boxes if box.label == label] for boxes, _ in pairs]
    total = sum(map(len, right))
    found = sorted(
        ((box.score, k, box) for k, (_, boxes) in enumerate(pairs) for box in boxes if box.label == label),
        key=lambda one: -one[0],
    )
    if not total:
        return 0.0 if found and found[0][0] >= sure else None
    matched = [[False] * len(boxes) for boxes in right]
    hits, area, precisions = 0, 0.0, []
    for rank, (_, picture, box) in enumerate(found, 1):
        overlaps = [box_iou(other, box) for other in right[picture]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if best is not None and not matched[picture][best] and overlaps[best] >= overlap:
            matched[picture][best] = True
            hits += 1
            precisions.append(hits / rank)
    for index in range(len(precisions) - 1, -1, -1):  # precision never rises with recall
        if index + 1 < len(precisions):
            precisions[index] = max(precisions[index], precisions[index + 1])
        area += precisions[index] / total
    return area


def task_loss(task: RecipeTask, outputs: Tensor, truth: Truth) -> Tensor:
    """Return the mean loss of one task over the rows where its target is defined; 0 where none is.

    Args:
        task: The task.
        outputs: float32 [batch, classes] or [batch, 1].
        truth: Of the same samples.

    Raises:
        ConfigError: If its kind cannot be trained.
    """
    kind = KINDS[task.kind]
    target, defined = kind.target(task, outputs, truth)
    return (kind.losses(outputs, target) * defined).sum() / defined.sum().clamp_min(1)


def check_metrics(recipe: Recipe) -> None:
    """See that each task is judged by what its kind can be judged by: one number is always within a place of another.

    Raises:
        ConfigError: Names the task whose metric says nothing of it, or a quantile that the rule does not take.
    """
    for name, task in recipe.tasks.items():
        known = KINDS[task.kind].metrics
        if task.metric is not None and task.metric not in known:
            raise ConfigError(
                f"a {task.kind} is not judged by '{task.metric}'",
                where=recipe.at(f"tasks.{name}.metric"),
                fix=f"one of {', '.join(known)}; without this key it is '{KINDS[task.kind].agrees_by}'",
            )
    calibration = recipe.calibration
    if calibration.quantile is not None and calibration.rule not in ("auto", "frame-quantile", "percentile"):
        raise ConfigError(
            f"rule '{calibration.rule}' takes no quantile",
            where=recipe.at("calibration.quantile"),
            fix='remove this key, or choose rule = "frame-quantile" or "percentile"',
        )


def boxed_tasks(recipe: Recipe) -> tuple[str, ...]:
    """Return the detections that are trained, those with a ``column``: ``Sample.boxes`` has boxes for each."""
    return tuple(name for name, task in recipe.tasks.items() if task.kind == "detection" and task.column is not None)


def valued_tasks(recipe: Recipe) -> tuple[str, ...]:
    """Return the tasks whose targets are of the sample, not of its inputs: ``Sample.targets`` has one for each."""
    kinds = ((name, task, KINDS[task.kind]) for name, task in recipe.tasks.items())
    return tuple(name for name, task, kind in kinds if kind.valued or (kind.trained and task.column is not None))
