"""Smoothing: from scores to the reported label, steady over capture time. It runs natively; here it is read."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmedge._native import core
from mmedge.bundle.manifest import Debounce, Ema, Hysteresis, Smoothing

Scores: TypeAlias = npt.NDArray[np.float64]
Parts: TypeAlias = tuple["float | None", float, float, "float | None"]


def parts(smoothing: Smoothing | tuple[Smoothing, ...] | None, threshold: float) -> Parts:
    """Return what the native core takes: ``tau_ms``, ``enter``, ``leave``, ``hold_ms``; None for what is not wanted.

    Args:
        smoothing: As the manifest has it.
        threshold: From which score a label is chosen, where no hysteresis says it.
    """
    tau_ms = hold_ms = None
    enter = leave = threshold  # without a gap between the two nothing is remembered
    for part in smoothing if isinstance(smoothing, tuple) else (smoothing,):
        if isinstance(part, Ema):
            tau_ms = part.tau_ms
        elif isinstance(part, Hysteresis):
            enter, leave = part.enter, part.leave
        elif isinstance(part, Debounce):
            hold_ms = part.hold_ms
    return tau_ms, enter, leave, hold_ms


class Smoother(core.Smoother):
    """The smoothing of one task: of its scores, of the choice of a label, and of the label.

    Args:
        smoothing: As the manifest has it.
        threshold: From which score a label is chosen, where no hysteresis says it.
        size: How many scores there are.

    Example:
        >>> smoother = Smoother(Hysteresis(enter=0.7, leave=0.4), 0.0, 2)
        >>> [smoother.choose(np.array(scores), 0) for scores in ([0.6, 0.1], [0.8, 0.1], [0.5, 0.5], [0.3, 0.6])]
        [None, 0, 0, None]
    """

    def __init__(self, smoothing: Smoothing | tuple[Smoothing, ...] | None, threshold: float, size: int) -> None:
        super().__init__(size, *parts(smoothing, threshold))
