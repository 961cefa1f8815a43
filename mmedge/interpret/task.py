"""From a stage's output to a task's result: calibrate, smooth, decide or abstain."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret.smoothing import Scores, Smoother
from mmedge.types import AnyArray, Snapshot, TaskResult

UNDEFINED = TaskResult(label=None, score=None)
_SLACK = 1e-3  # a softmax in half precision may end above 1


class Interpreter(Protocol):
    """Turns one output, which is finite, into a result; keeps the smoothing of one run."""

    def __call__(self, output: AnyArray, snapshot: Snapshot) -> TaskResult:
        """Interpret ``output``, what the stage answered to ``snapshot``: ``read`` and ``tell``."""
        self.read(output, snapshot)
        return self.tell(snapshot)

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up an output; what it took up before, and did not tell, is forgotten.

        Raises:
            EngineError: If the output has another shape than the task needs, or means nothing.
        """

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return what was read, smoothed; once, for the smoothing moves on."""

    def reset(self) -> None:
        """Forget the past."""


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


def softmax(logits: Scores, temperature: float) -> None:
    """Turn ``logits`` (n,) into probabilities, divided by ``temperature`` first, in place."""
    logits -= logits.max()  # first: a small temperature must not overflow
    logits /= temperature
    np.exp(logits, out=logits)
    logits /= logits.sum()


def read_scores(output: AnyArray, scores: Scores, name: str) -> None:
    """Copy ``output`` to ``scores``, or raise EngineError naming the task."""
    if output.size != scores.size:
        raise EngineError(
            f"the output has {output.size} values, but there are {scores.size} labels",
            where=f"task '{name}'",
            fix="match labels and output",
        )
    np.copyto(scores, output.reshape(-1), casting="unsafe")


def check_probability(scores: Scores, name: str) -> None:
    """Raise EngineError unless ``scores`` are in 0..1; clip what rounding left outside."""
    low, high = float(scores.min()), float(scores.max())
    if not (low >= -_SLACK and high <= 1.0 + _SLACK):
        raise EngineError(
            f"probabilities must be 0 to 1, got {low:g} to {high:g}",
            where=f"task '{name}'",
            fix="end the network with a softmax or sigmoid, or set the task's scores to 'logits'",
        )
    np.clip(scores, 0.0, 1.0, out=scores)


def _pairless(snapshot: Snapshot) -> bool:
    return sum(snapshot.present.values()) < 2


def _rounded(score: float) -> float:
    return round(float(score), 4)
