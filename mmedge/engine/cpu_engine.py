"""What the back ends for CPUs share: tensors made once, shapes of open inputs, runs that are ended in time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmedge.engine.base import EngineBase
from mmedge.engine.shapes import fix_shapes
from mmedge.engine.watch import PERIOD_S, WATCH
from mmedge.errors import EngineError
from mmedge.types import AnyArray

if TYPE_CHECKING:
    from mmedge.engine.prepared import PreparedKey

_IDLE = -1
_T = TypeVar("_T")


class CpuEngine(EngineBase):
    """An engine that runs on the CPU; back ends override ``_end_run`` and what ``EngineBase`` asks for.

    Args:
        backend: Its name.
        name: For messages.

    Attributes:
        prepared: The entry of the cache that it was loaded from; None if it was loaded from its own file.
    """

    def __init__(self, backend: str, name: str) -> None:
        super().__init__(backend)
        self._name = name
        self.prepared: PreparedKey | None = None
        self._turn = threading.Lock()
        self._looks = _IDLE  # at the run that is under way
        self._late = False
        self._limit_ms = math.inf

    def limit(self, limit_ms: float) -> None:
        """From now on, end a run that takes longer: it fails. One operator of a network is not interrupted."""
        self._limit_ms = limit_ms
        WATCH.add(self)

    def look(self) -> None:
        """Count a look at the run that is under way, and end it after too many: called every ``PERIOD_S``.

        Looks are counted, not time: while this process was stopped, no run took longer.
        """
        with self._turn:
            if self._looks != _IDLE:
                self._looks += 1
                if self._looks * PERIOD_S * 1000 > self._limit_ms:
                    self._late = True
                    self._end_run(True)

    def _end_run(self, end: bool) -> None:
        """End the run that is under way; with False, let the next one begin. Called while no run starts or ends."""
        raise TypeError(f"{type(self).__name__} does not implement _end_run")

    def _watched(self, run: Callable[[], _T]) -> _T:
        """Return what a run gives, unless it was ended."""
        with self._turn:
            self._looks = 0
        try:
            return run()
        finally:
            with self._turn:
                self._looks, late = _IDLE, self._late
                if late:
                    self._late = False
                    self._end_run(False)
            if late:  # whatever the run itself has raised
                raise EngineError(
                    f"the network did not finish within {self._limit_ms:.0f} ms and was ended",
                    where=self._name,
                    fix="raise the stage's timeout_ms, or use a faster network",
                )

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> AnyArray:
        """Return a new array of zeros [*shape], of empty texts where its dtype is object."""
        try:
            return np.full(shape, "", object) if dtype is np.object_ else np.zeros(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise EngineError(
                f"tensor '{name}' of shape {list(shape)} does not fit into memory: {error}",
                where=self._name,
                fix="export a smaller shape",
            ) from error

    def _changed(self, name: str, own: AnyArray, value: AnyArray) -> EngineError:
        return EngineError(
            f"output '{name}' changed its shape from {list(own.shape)} to {list(value.shape)}",
            where=f"{self._name}: tensor '{name}'",
            fix="export a network with constant output shapes",
        )


def input_sizes(
    dims: Mapping[str, Sequence[int | str | None]],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, float],
    *,
    exact: bool,
    where: str,
) -> dict[str, tuple[int, ...]]:
    """Return input -> its shape, by the rule of ``mmedge.engine.shapes``.

    Args:
        dims: Input -> its dimensions in the network: a number, or a name or None where one is open.
        shapes: Input -> the shape that was given.
        constants: Inputs that one number fills: their open dimensions are 1.
        exact: Refuse shapes that the network cannot take; otherwise its own sizes hold, and the caller compares.
        where: For messages.

    Raises:
        ConfigError: If an open dimension is not given, or a shape does not fit; names it.

    Example:
        >>> input_sizes({"x": ["batch", 3, None]}, {"x": (1, 3, 8)}, {}, exact=False, where="net")
        {'x': (1, 3, 8)}
    """
    if exact:
        return fix_shapes(dims, shapes, where=where)
    given: dict[str, tuple[int, ...] | None] = {**dict.fromkeys(constants), **shapes}
    return fix_shapes(dims, {n: _static(dims[n], wanted) for n, wanted in given.items() if n in dims}, where=where)


def _static(dims: Sequence[int | str | None], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of an input: as wanted, where the network leaves it open."""
    own = tuple(d if isinstance(d, int) else None for d in dims)
    if wanted is not None and len(wanted) == len(own) and all(o in (None, w) for o, w in zip(own, wanted, strict=True)):
        return wanted
    return tuple(1 if o is None else o for o in own)
