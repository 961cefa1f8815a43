"""How each kind of task is read: from a stage's output to a result, calibrated, smoothed, decided or abstained.

They are native (native/interpret, native/bindings/interpreters.hpp); here they get what the manifest says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Task
from mmedge.bundle.tasks import Regression as RegressionSpec
from mmedge.errors import EngineError
from mmedge.interpret.detection import Detector, ToPicture
from mmedge.interpret.smoothing import Scores, parts
from mmedge.interpret.task import check_size, read_and_tell, refuse, tell
from mmedge.types import AnyArray

Make: TypeAlias = Callable[[str, Task, tuple[str, ...], "ToPicture | None"], "NativeInterpreter"]


class Classification(core.Classifier):
    """Softmax at the calibrated temperature, smoothed; abstains below the threshold. Allocates no array per call."""

    __call__ = read_and_tell
    tell = tell

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        super().__init__(
            _temperature(task),
            task.top_k,
            *parts(task.smoothing, task.threshold),
            labels=labels,
            convert=partial(_scores, name, len(labels)),
            refuse=partial(refuse, name),
        )


class Verification(core.Verifier):
    """Do the inputs that are present agree? Undefined with fewer than two; labels are (no, yes)."""

    __call__ = read_and_tell
    tell = tell

    def __init__(self, name: str, task: Task, labels: tuple[str, ...]) -> None:
        if len(labels) != 2:
            raise EngineError(
                f"verification needs 2 labels, got {len(labels)}",
                where=f"task '{name}'",
                fix="use two labels: no, yes",
            )
        super().__init__(
            _temperature(task),
            *parts(task.smoothing, task.threshold),
            labels=labels,
            convert=partial(_scores, name, 1),
            refuse=partial(refuse, name),
        )


def _scores(name: str, count: int, output: AnyArray) -> Scores:
    """Return an output as float64 [...], or raise EngineError naming the task unless it has ``count`` values."""
    check_size(output, count, name)
    return np.ascontiguousarray(output, np.float64)


class Regression(core.Regressor):
    """One number, clamped, smoothed by an ema, to six digits; it always answers. Allocates no array per call."""

    __call__ = read_and_tell
    tell = tell

    def __init__(self, name: str, task: Task) -> None:
        spec = task.regression or RegressionSpec()
        tau_ms = parts(task.smoothing, 0.0)[0]
        super().__init__(tau_ms, spec.clamp, unit=spec.unit, convert=partial(_number, name))


def _number(name: str, output: AnyArray) -> Scores:
    """Return an output as float64 [...], or raise EngineError naming the task unless it is one number."""
    if output.size != 1:
        raise EngineError(
            f"the output has {output.size} values, but a regression needs one",
            where=f"task '{name}'",
            fix="choose another output",
        )
    return np.ascontiguousarray(output, np.float64)


def _detector(name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture | None) -> Detector:
    if to_picture is None:
        raise EngineError(
            "a detection needs the geometry of its image input",
            where=f"task '{name}'",
            fix="pass to_picture, of its image input",
        )
    return Detector(name, task, labels, to_picture)


NativeInterpreter: TypeAlias = Classification | Verification | Detector | Regression

_READERS: Mapping[str, Make] = {
    "classification": lambda name, task, labels, _: Classification(name, task, labels),
    "verification": lambda name, task, labels, _: Verification(name, task, labels),
    "detection": _detector,
    "regression": lambda name, task, labels, _: Regression(name, task),
}


def make_interpreter(
    name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture | None = None
) -> NativeInterpreter:
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
