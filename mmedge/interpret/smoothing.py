"""Smoothing: from scores to the reported label, steady over capture time."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmedge.bundle import manifest
from mmedge.bundle.manifest import Smoothing

Scores: TypeAlias = npt.NDArray[np.float64]


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
