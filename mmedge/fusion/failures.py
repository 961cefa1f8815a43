"""Errors of a stage that fails at a trigger, and the check of outputs for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mmedge.errors import EngineError, MmedgeError
from mmedge.types import AnyArray

TOLD = 500  # characters of a message, which may be of any length
_SMALL = 32  # values that are summed up one by one faster than by an array operation


class CancelledError(EngineError):
    """The run was ended while it waited for a function of the user's: nothing is wrong with the function."""


class StageError(EngineError):
    """A stage that failed at one trigger.

    Args:
        stage: Its name.
        depends: The inputs it was answering to; they count as absent for this trigger.
        error: What happened; says which tensor.
        again: Whether it has no output since it failed at an earlier trigger, or since its inputs came back.

    Attributes:
        cancelled: Whether it did not fail but was given up at the end of the run.
    """

    def __init__(self, stage: str, depends: tuple[str, ...], error: MmedgeError, *, again: bool = False) -> None:
        where = f"stage '{stage}'" + (f": {error.where}" if error.where else "")
        super().__init__(error.message, where=where, fix=error.fix)
        self.stage = stage
        self.depends = depends
        self.again = again
        self.cancelled = isinstance(error, CancelledError)


class FiniteCheck:
    """Looks for NaN and infinity in arrays that stay the same; allocates no array per call.

    Arrays have any shape and dtype.
    """

    def __init__(self, arrays: Mapping[str, AnyArray]) -> None:
        floats = {name: array.reshape(-1) for name, array in arrays.items() if array.dtype.kind == "f"}
        # A double may be finite and its sum with another not.
        small = {name for name, flat in floats.items() if flat.size <= _SMALL and flat.dtype != np.float64}
        self._small = tuple((name, floats[name]) for name in floats if name in small)
        self._large = tuple(
            (name, flat, np.empty(flat.size, np.bool_)) for name, flat in floats.items() if name not in small
        )

    def __call__(self) -> None:
        """Raise EngineError naming the first tensor that is not finite."""
        for name, flat in self._small:
            if not math.isfinite(sum(flat.tolist())):
                raise _not_finite(name)
        for name, flat, finite in self._large:
            if not np.isfinite(flat, out=finite).all():
                raise _not_finite(name)


def _not_finite(name: str) -> EngineError:
    return EngineError(
        "the output is not finite: it has NaN or infinite values",
        where=f"tensor '{name}'",
        fix="look at the input and at the network's precision",
    )
