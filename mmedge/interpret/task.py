"""What every kind of task is read by, and what their readers share."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import EngineError
from mmedge.interpret.smoothing import Scores
from mmedge.learn import learn
from mmedge.types import AnyArray, Snapshot, TaskResult

UNDEFINED = TaskResult(label=None, score=None)
_SLACK = 1e-3  # a softmax in half precision may end above 1


class Interpreter(Protocol):
    """Turns one output, which is finite, into a result; keeps the smoothing of one run."""

    def __call__(self, output: AnyArray, snapshot: Snapshot) -> TaskResult:
        """Interpret ``output``, what the stage answered to ``snapshot``: ``read`` and ``tell``.

        ``output`` has the shape [...] and dtype of the stage's output.
        """
        self.read(output, snapshot)
        return self.tell(snapshot)

    def read(self, output: AnyArray, snapshot: Snapshot) -> None:
        """Take up an output; what it took up before, and did not report, is forgotten.

        ``output`` has the shape [...] and dtype of the stage's output.

        Raises:
            EngineError: If the output has another shape than the task needs, or means nothing.
        """

    def tell(self, snapshot: Snapshot) -> TaskResult:
        """Return what was read, smoothed; once, for the smoothing moves on."""

    def reset(self) -> None:
        """Forget the past."""


def tell(reader: core.TaskReader, snapshot: Snapshot) -> TaskResult:
    """Return what a native interpreter has read, smoothed; once, for the smoothing moves on."""
    return msgspec.msgpack.decode(reader.told(snapshot), type=learn(TaskResult))


def read_and_tell(reader: core.TaskReader, output: AnyArray, snapshot: Snapshot) -> TaskResult:
    """Return what a native interpreter makes of ``output``, [...] in the dtype of the stage's output."""
    reader.read(output, snapshot)
    return tell(reader, snapshot)


def softmax(logits: Scores, temperature: float) -> None:
    """Turn ``logits`` (n,) into probabilities, divided by ``temperature`` first, in place."""
    core.softmax(logits, temperature)


def check_size(output: AnyArray, count: int, name: str) -> None:
    """Raise EngineError naming the task unless ``output``, [...] of any dtype, has ``count`` values, one a label."""
    if output.size != count:
        raise EngineError(
            f"the output has {output.size} values, but there are {count} labels",
            where=f"task '{name}'",
            fix="match labels and output",
        )


def read_scores(output: AnyArray, scores: Scores, name: str) -> None:
    """Copy ``output`` to ``scores``, or raise EngineError naming the task.

    ``output`` has any shape and float dtype, ``scores`` is [labels].
    """
    check_size(output, scores.size, name)
    np.copyto(scores, output.reshape(-1), casting="unsafe")


def not_probabilities(low: float, high: float, name: str) -> EngineError:
    """Return the error of a task whose scores lie between ``low`` and ``high``."""
    return EngineError(
        f"probabilities must be 0 to 1, got {low + 0.0:g} to {high + 0.0:g}",  # no -0
        where=f"task '{name}'",
        fix="end the network with a softmax or sigmoid, or set the task's scores to 'logits'",
    )


def refuse(name: str, low: float, high: float) -> None:
    """Raise EngineError of a task whose scores lie between ``low`` and ``high``."""
    raise not_probabilities(low, high, name)


def check_probability(scores: Scores, name: str) -> None:
    """Raise EngineError unless ``scores`` are in 0..1; clip what rounding left outside."""
    low, high = float(scores.min()), float(scores.max())
    if not (low >= -_SLACK and high <= 1.0 + _SLACK):
        raise not_probabilities(low, high, name)
    np.clip(scores, 0.0, 1.0, out=scores)
