"""The base of all engines: arrays that the engine owns, ``run``, a checked call, ``close``."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import numpy as np

from mmedge._native import core
from mmedge.errors import EngineError
from mmedge.types import AnyArray, Tensors


class Engine(Protocol):
    """One network compiled for one backend on this device.

    ``inputs`` and ``outputs`` are arrays the engine owns: write into the former, call ``run``, read
    the latter. They are views, valid until the next ``run``. ``native`` is what C++ calls instead of ``run``, without
    Python; None where there is no such thing. ``on_ran`` is told when the newest run began and ended (ns on
    CLOCK_MONOTONIC) by an engine that works on a thread of its own, before ``run`` returns.
    """

    backend: str
    inputs: dict[str, AnyArray]
    outputs: dict[str, AnyArray]
    native: core.NativeRun | None
    on_ran: Callable[[int, int], object] | None

    def run(self) -> None:
        """Compute ``outputs`` from ``inputs``."""

    def __call__(self, tensors: Tensors) -> dict[str, AnyArray]:
        """Check and copy ``tensors`` in, run, and return copies of the outputs.

        Arrays have exactly the shapes [...] and dtypes of ``inputs`` and ``outputs``.
        """

    def cancel(self) -> None:
        """Let a run that waits for the user's own code fail at once, since its outputs are no longer wanted."""

    def close(self) -> None:
        """Free everything; idempotent."""


class EngineBase:
    """The checks and the life-cycle every backend shares; backends override the ``_impl`` methods."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.inputs: dict[str, AnyArray] = {}
        self.outputs: dict[str, AnyArray] = {}
        self.native: core.NativeRun | None = None
        self.on_ran: Callable[[int, int], object] | None = None
        self._closed = False

    def run(self) -> None:
        """Compute ``outputs`` from ``inputs``.

        Raises:
            EngineError: If the engine is closed or the backend fails.
        """
        if self._closed:
            raise EngineError("the engine is closed", where=self.backend, fix="load it again")
        self._run_impl()

    def __call__(self, tensors: Tensors) -> dict[str, AnyArray]:
        """Check and copy ``tensors`` in, run, and return copies of the outputs.

        Args:
            tensors: One array per input, of exactly its shape and dtype.

        Returns:
            Output name -> a copy.

        Raises:
            EngineError: Names the tensor that is missing, unknown, of the wrong shape or dtype.

        Example:
            >>> engine = mmedge.load_engine("model.onnx")  # doctest: +SKIP
            >>> engine({"x": np.zeros((1, 3, 224, 224), np.float32)})["y"].shape  # doctest: +SKIP
            (1, 1000)
        """
        if set(tensors) != set(self.inputs):
            raise EngineError(
                f"expected the inputs {sorted(self.inputs)}, got {sorted(tensors)}",
                where=self.backend,
                fix="use these names",
            )
        for name, value in tensors.items():
            own, value = self.inputs[name], np.asarray(value)
            if own.dtype == np.object_ and value.dtype.kind == "U":
                value = value.astype(object)  # texts: numpy has a type for each length, networks have one
            if value.shape != own.shape or value.dtype != own.dtype:
                raise EngineError(
                    f"expected {own.dtype} {list(own.shape)}, got {value.dtype} {list(value.shape)}",
                    where=f"tensor '{name}'",
                    fix="convert it first: engines do not cast",
                )
            np.copyto(own, value)
        self.run()
        return {name: value.copy() for name, value in self.outputs.items()}

    def cancel(self) -> None:  # a network always comes back
        """Let a run that waits for the user's own code fail at once with EngineError, and every later one.

        Called from any thread at the end of a run, before ``close``; idempotent. Where nothing can block it does
        nothing.
        """

    def close(self) -> None:
        """Free everything; idempotent."""
        if not self._closed:
            self._closed = True
            self._close_impl()

    def _run_impl(self) -> None:
        raise TypeError(f"{type(self).__name__} does not implement _run_impl")

    def _close_impl(self) -> None:
        pass

    def __enter__(self) -> EngineBase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
