"""How each kind of task is read: from a stage's output to a result, calibrated, smoothed, decided or abstained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Task
from mmedge.bundle.tasks import Regression as RegressionSpec
from mmedge.errors import EngineError
from mmedge.interpret.detection import Detector, ToPicture
from mmedge.interpret.smoothing import parts
from mmedge.interpret.task import UNDEFINED, Interpreter, check_size, not_probabilities
from mmedge.types import AnyArray, Snapshot, TaskResult

Make: TypeAlias = Callable[[str, Task, tuple[str, ...], "ToPicture | None"], Interpreter]


class Classification(Interpreter):
    """Softmax at the calibrated temperature, smoothed; abstains below the threshold. Allocates no array per call."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        self._name, self._labels, self._ranks = name, labels, task.top_k > 0
        temperature, smoothing = _temperature(task), parts(task.smoothing, task.threshold)
        self._reader = core.Classifier(len(labels), temperature, task.top_k, *smoothing)

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up one score for each label."""
        try:
            refused = self._reader.read(output)
        except ValueError:  # another number of values, another type than float32 or float64, or not in one piece
            check_size(output, len(self._labels), self._name)
            refused = self._reader.read(np.ascontiguousarray(output, np.float64))
        if refused is not None:
            raise not_probabilities(*refused, self._name)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the label and its score, or no label and the best score."""
        labels = self._labels
        told, score = self._reader.tell(snapshot.t_ns)
        label = None if told < 0 else labels[told]
        if not self._ranks:
            return TaskResult(label=label, score=score)
        return TaskResult(label=label, score=score, top=tuple((labels[i], share) for i, share in self._reader.top()))

    def reset(self) -> None:
        """Forget the past."""
        self._reader.reset()


class Verification(Interpreter):
    """Do the inputs that are present agree? Undefined with fewer than two; labels are (no, yes)."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        if len(labels) != 2:
            raise EngineError(
                f"verification needs 2 labels, got {len(labels)}",
                where=f"task '{name}'",
                fix="use two labels: no, yes",
            )
        self._name, self._labels = name, labels
        self._reader = core.Verifier(_temperature(task), *parts(task.smoothing, task.threshold))

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up one score; what it is does not matter with fewer than two inputs."""
        check_size(output, 1, self._name)
        if _pairless(snapshot):
            return
        refused = self._reader.read(float(output.item()))
        if refused is not None:
            raise not_probabilities(*refused, self._name)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return yes or no with the probability of yes."""
        if _pairless(snapshot):
            self.reset()
            return UNDEFINED
        told, score = self._reader.tell(snapshot.t_ns)
        return TaskResult(label=None if told < 0 else self._labels[told], score=score)

    def reset(self) -> None:
        """Forget the past."""
        self._reader.reset()


class Regression(Interpreter):
    """One number, clamped, smoothed by an ema; it always answers. Allocates no array per call."""

    def __init__(self, name: str, task: Task) -> None:
        spec = task.regression or RegressionSpec()
        self._name, self._unit = name, spec.unit
        self._reader = core.Regressor(parts(task.smoothing, 0.0)[0], spec.clamp)

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up the number."""
        if output.size != 1:
            raise EngineError(
                f"the output has {output.size} values, but a regression needs one",
                where=f"task '{self._name}'",
                fix="choose another output",
            )
        self._reader.read(float(output.item()))

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the number, to six digits, in its unit."""
        return TaskResult(label=None, score=None, value=self._reader.tell(snapshot.t_ns), unit=self._unit)

    def reset(self) -> None:
        """Forget the past."""
        self._reader.reset()


def _detector(name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture | None) -> Interpreter:
    if to_picture is None:
        raise EngineError(
            "a detection needs the geometry of its image input",
            where=f"task '{name}'",
            fix="pass to_picture, of its image input",
        )
    return Detector(name, task, labels, to_picture)


_READERS: Mapping[str, Make] = {
    "classification": lambda name, task, labels, _: Classification(name, task, labels),
    "verification": lambda name, task, labels, _: Verification(name, task, labels),
    "detection": _detector,
    "regression": lambda name, task, labels, _: Regression(name, task),
}


def make_interpreter(
    name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture | None = None
) -> Interpreter:
    """Return the interpreter of a task's kind.

    Args:
        name: Of the task, for messages.
        task: Its manifest entry.
        labels: What its scores are of.
        to_picture: Of a detection: maps corners [n, 4] from pixels of the network's input to 0..1 of the camera's
            picture, in place.

    Raises:
        EngineError: If a verification has other than two labels, or a detection no picture.

    Example:
        >>> import numpy as np
        >>> from mmedge.types import Snapshot
        >>> task = Task(kind="classification", output="net.y", labels="labels.txt", threshold=0.5)
        >>> seen = Snapshot(t_ns=0, seq=0, present={"image": True})
        >>> print(make_interpreter("pet", task, ("cat", "dog"))(np.array([[3.0, 1.0]], np.float32), seen))
        cat 0.88
    """
    return _READERS[task.kind](name, task, labels, to_picture)


def _temperature(task: Task) -> float | None:
    return task.temperature if task.scores == "logits" else None


def _pairless(snapshot: Snapshot) -> bool:
    return sum(snapshot.present.values()) < 2
