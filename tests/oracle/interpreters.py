"""The interpreters in plain Python, as they ran before they were native: what holds the native ones."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmedge.bundle import manifest
from mmedge.bundle.manifest import Ema as EmaSpec
from mmedge.bundle.manifest import Smoothing, Task
from mmedge.bundle.tasks import Regression as RegressionSpec
from mmedge.errors import EngineError
from mmedge.interpret.task import UNDEFINED, Interpreter
from mmedge.types import AnyArray, Snapshot, TaskResult

Scores: TypeAlias = npt.NDArray[np.float64]
_SLACK = 1e-3  # a softmax in half precision may end above 1


class Ema:
    """Exponential moving average in time: an old score weighs exp(-dt / tau).

    Args:
        tau_ms: Time constant.
        size: How many scores there are.
    """

    def __init__(self, tau_ms: float, size: int) -> None:
        self._tau_ns = tau_ms * 1e6
        self._value = np.zeros(size)
        self._t_ns: int | None = None

    def __call__(self, scores: Scores, t_ns: int) -> None:
        """Smooth ``scores`` of ``t_ns`` in place."""
        if self._t_ns is not None:
            keep = math.exp(-max(t_ns - self._t_ns, 0) / self._tau_ns)
            self._value *= keep
            scores *= 1.0 - keep
            scores += self._value
        np.copyto(self._value, scores)
        self._t_ns = t_ns

    def reset(self) -> None:
        """Forget the past."""
        self._t_ns = None


class Hysteresis:
    """A label is taken up at ``enter`` and kept until its score is below ``leave`` or another one reaches ``enter``.

    Args:
        enter: Score of the best label from which it is taken up.
        leave: Score below which a label that was taken up is dropped.
    """

    def __init__(self, enter: float, leave: float) -> None:
        self._enter, self._leave = enter, leave
        self._held: int | None = None

    def __call__(self, scores: Scores) -> int | None:
        """Return the index of the label, None to abstain."""
        best = int(scores.argmax())
        if scores[best] >= self._enter:
            self._held = best
        elif self._held is not None and scores[self._held] < self._leave:
            self._held = None
        return self._held

    def reset(self) -> None:
        """Forget the past."""
        self._held = None


class Debounce:
    """Tells a label only after it has been the same for ``hold_ms``, until then the one before it.

    To abstain is a label like any other; before the first one has lasted that long, no label is reported.

    Args:
        hold_ms: How long a label must last, in capture time.
    """

    def __init__(self, hold_ms: float) -> None:
        self._hold_ns = hold_ms * 1e6
        self._told: int | None = None
        self._new: int | None = None
        self._since_ns: int | None = None

    def __call__(self, label: int | None, t_ns: int) -> int | None:
        """Return the label to report at ``t_ns``."""
        if self._since_ns is None or label != self._new:
            self._new, self._since_ns = label, t_ns
        if t_ns - self._since_ns >= self._hold_ns:
            self._told = label
        return self._told

    def reset(self) -> None:
        """Forget the past."""
        self._told = self._new = self._since_ns = None


class Smoother:
    """The smoothing of one task: of its scores, of the choice of a label, and of the label.

    Args:
        smoothing: As the manifest has it.
        threshold: From which score a label is chosen, where no hysteresis says it.
        size: How many scores there are.
    """

    def __init__(self, smoothing: Smoothing | tuple[Smoothing, ...] | None, threshold: float, size: int) -> None:
        self._ema: Ema | None = None
        self._choose = Hysteresis(threshold, threshold)  # without a gap between the two it remembers nothing
        self._debounce: Debounce | None = None
        for part in smoothing if isinstance(smoothing, tuple) else (smoothing,):
            if isinstance(part, manifest.Ema):
                self._ema = Ema(part.tau_ms, size)
            elif isinstance(part, manifest.Hysteresis):
                self._choose = Hysteresis(part.enter, part.leave)
            elif isinstance(part, manifest.Debounce):
                self._debounce = Debounce(part.hold_ms)

    def choose(self, scores: Scores, t_ns: int) -> int | None:
        """Smooth ``scores`` of ``t_ns`` in place; return the index of the label they choose, or None."""
        if self._ema is not None:
            self._ema(scores, t_ns)
        return self._choose(scores)

    def tell(self, label: int | None, t_ns: int) -> int | None:
        """Return the label to report at ``t_ns``, after the one that was chosen."""
        return label if self._debounce is None else self._debounce(label, t_ns)

    def reset(self) -> None:
        """Forget the past, at a new epoch or after an undefined score."""
        for part in (self._ema, self._choose, self._debounce):
            if part is not None:
                part.reset()


def softmax(logits: Scores, temperature: float) -> None:
    """Turn ``logits`` (n,) into probabilities, divided by ``temperature`` first, in place."""
    logits -= logits.max()  # first: a small temperature must not overflow
    logits /= temperature
    logits[:] = [math.exp(logit) for logit in logits]  # np.exp has other last bits on each kind of CPU
    logits /= logits.sum()


def read_scores(output: AnyArray, scores: Scores, name: str) -> None:
    """Copy ``output`` to ``scores``, or raise EngineError naming the task.

    ``output`` has any shape and float dtype, ``scores`` is [labels].
    """
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
            f"probabilities must be 0 to 1, got {low + 0.0:g} to {high + 0.0:g}",
            where=f"task '{name}'",
            fix="end the network with a softmax or sigmoid, or set the task's scores to 'logits'",
        )
    np.clip(scores, 0.0, 1.0, out=scores)


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


def _pairless(snapshot: Snapshot) -> bool:
    return sum(snapshot.present.values()) < 2


def _rounded(score: float) -> float:
    return round(float(score), 4)
