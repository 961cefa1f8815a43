"""From a stage's output to a task's result: calibrate, smooth, decide or abstain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mmedge.bundle import manifest
from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret.smoothing import Ema, softmax
from mmedge.types import AnyArray, FloatArray, TaskResult

UNDEFINED = TaskResult(label=None, score=None)


class Interpreter(Protocol):
    """Turns one output into a result; keeps the smoothing of one run."""

    def __call__(self, output: AnyArray, t_ns: int, present: Mapping[str, bool]) -> TaskResult:
        """Interpret ``output`` [1, n] of the trigger at ``t_ns``."""

    def reset(self) -> None:
        """Forget the past."""


class Classification:
    """Softmax at the calibrated temperature, smoothed, abstaining below the threshold."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        self._name, self._task, self._labels = name, task, labels
        self._smooth = Ema(task.smoothing.tau_ms) if isinstance(task.smoothing, manifest.Ema) else None

    def __call__(self, output: AnyArray, t_ns: int, present: Mapping[str, bool]) -> TaskResult:
        """Return the best label and its score, or no label below the threshold."""
        logits = checked(output, len(self._labels), self._name)
        scores = softmax(logits, self._task.temperature)
        if self._smooth is not None:
            scores = self._smooth(scores, t_ns)
        best = int(scores.argmax())
        score = float(scores[best])
        top = np.argsort(-scores, kind="stable")[: self._task.top_k]
        return TaskResult(
            label=self._labels[best] if score >= self._task.threshold else None,
            score=round(score, 4),
            top=tuple((self._labels[i], round(float(scores[i]), 4)) for i in top),
        )

    def reset(self) -> None:
        """Forget the past."""
        if self._smooth is not None:
            self._smooth.reset()


class Verification:
    """Do the inputs that are present agree? Undefined with fewer than two; labels are (no, yes)."""

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        self._name, self._task, self._labels = name, task, labels
        self._smooth = Ema(task.smoothing.tau_ms) if isinstance(task.smoothing, manifest.Ema) else None

    def __call__(self, output: AnyArray, t_ns: int, present: Mapping[str, bool]) -> TaskResult:
        """Return yes or no with the probability of yes."""
        logit = checked(output, 1, self._name)
        if sum(present.values()) < 2:
            self.reset()
            return UNDEFINED
        scaled = float(np.clip(logit[0] / self._task.temperature, -60, 60))
        score = np.array([1.0 / (1.0 + math.exp(-scaled))], np.float32)
        if self._smooth is not None:
            score = self._smooth(score, t_ns)
        yes = float(score[0])
        return TaskResult(label=self._labels[yes >= self._task.threshold], score=round(yes, 4))

    def reset(self) -> None:
        """Forget the past."""
        if self._smooth is not None:
            self._smooth.reset()


def checked(output: AnyArray, size: int, name: str) -> FloatArray:
    """Return ``output`` as (size,) float32, or raise EngineError naming the task."""
    flat = np.asarray(output, np.float32).reshape(-1)
    if flat.size != size:
        raise EngineError(
            f"{flat.size} values for {size} labels", where=f"task '{name}'", fix="match labels and output"
        )
    if not np.isfinite(flat).all():
        raise EngineError("the output is not finite", where=f"task '{name}'", fix="look at the input and the precision")
    return flat


def make_interpreter(name: str, task: Task, labels: tuple[str, ...]) -> Interpreter:
    """Return the interpreter of a task's kind."""
    if task.kind == "classification":
        return Classification(name, task, labels)
    if len(labels) != 2:
        raise EngineError(f"verification has 2 labels, got {len(labels)}", where=f"task '{name}'")
    return Verification(name, task, labels)
