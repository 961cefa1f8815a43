"""Errors of a stage that fails at a trigger, and the check of outputs for NaN and infinity."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge._native import core
from mmedge.errors import EngineError, MmedgeError
from mmedge.types import AnyArray

TOLD = 500  # characters of a message, which may be of any length


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


def recorded_faults(told: Mapping[str, str]) -> dict[str, EngineError]:
    """Return the errors that a recorded run had, of stage -> message."""
    where, fix = "the recorded run", "see the recorded run's own error"
    return {name: EngineError(message, where=where, fix=fix) for name, message in told.items()}


class FiniteCheck:
    """Looks for NaN and infinity in arrays that stay the same; allocates nothing per call.

    Arrays have any shape and dtype.
    """

    def __init__(self, arrays: Mapping[str, AnyArray]) -> None:
        floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        self._names = tuple(floats)
        self._first_bad = core.FiniteCheck(list(floats.values()))

    def __call__(self) -> None:
        """Raise EngineError naming the first tensor that is not finite."""
        bad = self._first_bad()
        if bad >= 0:
            raise _not_finite(self._names[bad])


def _not_finite(name: str) -> EngineError:
    return EngineError(
        "the output is not finite: it has NaN or infinite values",
        where=f"tensor '{name}'",
        fix="look at the input and at the network's precision",
    )
