"""How each kind of task is read: from a stage's output to a result, calibrated, smoothed, decided or abstained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from mmedge.bundle.manifest import Ema as EmaSpec
from mmedge.bundle.manifest import Task
from mmedge.bundle.tasks import Regression as RegressionSpec
from mmedge.errors import EngineError
from mmedge.interpret.detection import Detector, ToPicture
from mmedge.interpret.smoothing import Ema, Scores, Smoother
from mmedge.interpret.task import UNDEFINED, Interpreter, check_probability, read_scores, softmax
from mmedge.types import AnyArray, Snapshot, TaskResult

Make: TypeAlias = Callable[[str, Task, tuple[str, ...], "ToPicture | None"], Interpreter]


class Classification(Interpreter):
    """Softmax at the calibrated temperature, smoothed; abstains below the threshold. Allocates no array per call."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        self._name, self._task, self._labels = name, task, labels
        self._scores = np.empty(len(labels))
        self._ranking = np.empty(min(task.top_k, 1) * len(labels))
        self._smoother = Smoother(task.smoothing, task.threshold, len(labels))

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up one score for each label."""
        read_scores(output, self._scores, self._name)
        if self._task.scores == "logits":
            softmax(self._scores, self._task.temperature)
        else:
            check_probability(self._scores, self._name)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the label and its score, or no label and the best score."""
        scores = self._scores
        chosen = self._smoother.choose(scores, snapshot.t_ns)
        told = self._smoother.tell(chosen, snapshot.t_ns)
        return TaskResult(
            label=None if told is None else self._labels[told],
            score=_rounded(scores.max() if told is None else scores[told]),
            top=self._top(scores),
        )

    def _top(self, scores: Scores) -> tuple[tuple[str, float], ...]:
        np.copyto(self._ranking, scores[: self._ranking.size])
        found = []
        for _ in range(min(self._task.top_k, self._ranking.size)):
            best = int(self._ranking.argmax())
            found.append((self._labels[best], _rounded(scores[best])))
            self._ranking[best] = -1.0
        return tuple(found)

    def reset(self) -> None:
        """Forget the past."""
        self._smoother.reset()


class Verification(Interpreter):
    """Do the inputs that are present agree? Undefined with fewer than two; labels are (no, yes)."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        if len(labels) != 2:
            raise EngineError(
                f"verification needs 2 labels, got {len(labels)}",
                where=f"task '{name}'",
                fix="use two labels: no, yes",
            )
        self._name, self._task, self._labels = name, task, labels
        self._score = np.empty(1)
        self._smoother = Smoother(task.smoothing, task.threshold, 1)

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up one score; what it is does not matter with fewer than two inputs."""
        score = self._score
        read_scores(output, score, self._name)
        if _pairless(snapshot):
            return
        if self._task.scores == "logits":
            score[0] = 1.0 / (1.0 + math.exp(-min(max(score[0] / self._task.temperature, -60.0), 60.0)))
        else:
            check_probability(score, self._name)

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return yes or no with the probability of yes."""
        if _pairless(snapshot):
            self.reset()
            return UNDEFINED
        score = self._score
        yes = self._smoother.choose(score, snapshot.t_ns) is not None
        told = self._smoother.tell(int(yes), snapshot.t_ns)
        return TaskResult(label=None if told is None else self._labels[told], score=_rounded(score[0]))

    def reset(self) -> None:
        """Forget the past."""
        self._smoother.reset()


class Regression(Interpreter):
    """One number, clamped, smoothed by an ema; it always answers. Allocates no array per call."""

    def __init__(self, name: str, task: Task) -> None:
        self._name, self._spec = name, task.regression or RegressionSpec()
        self._value = np.empty(1)
        taus = [part.tau_ms for part in task.smoothings if isinstance(part, EmaSpec)]
        self._ema = Ema(taus[0], 1) if taus else None

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up the number."""
        if output.size != 1:
            raise EngineError(
                f"the output has {output.size} values, but a regression needs one",
                where=f"task '{self._name}'",
                fix="choose another output",
            )
        self._value[0] = self._clamped(float(output.reshape(-1)[0]))

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return the number, to six digits, in its unit."""
        if self._ema is not None:
            self._ema(self._value, snapshot.t_ns)
        value = self._clamped(float(f"{self._value[0]:.6g}"))
        return TaskResult(label=None, score=None, value=value, unit=self._spec.unit)

    def _clamped(self, value: float) -> float:
        return value if self._spec.clamp is None else min(max(value, self._spec.clamp[0]), self._spec.clamp[1])

    def reset(self) -> None:
        """Forget the past."""
        if self._ema is not None:
            self._ema.reset()


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


def _pairless(snapshot: Snapshot) -> bool:
    return sum(snapshot.present.values()) < 2


def _rounded(score: float) -> float:
    return round(float(score), 4)
