"""A rule in place of a network: ``"pkg.mod:func"`` behind the engine interface."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from mmedge.engine.base import EngineBase
from mmedge.errors import ConfigError, EngineError
from mmedge.types import AnyArray


class CallableEngine(EngineBase):
    """Calls ``func(**inputs)`` and checks what comes back.

    Args:
        target: ``"pkg.mod:func"``; it gets float32 arrays and returns one array, a tuple in the order
            of the outputs, or a dict by name.
        inputs: Tensor name -> shape.
        outputs: Tensor name -> shape.

    Raises:
        ConfigError: If the function cannot be imported.
    """

    def __init__(self, target: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> None:
        super().__init__("callable")
        module, colon, name = target.partition(":")
        try:
            self._function = getattr(import_module(module), name)
        except Exception as error:  # the user's module may raise anything while it is imported
            raise ConfigError(
                f"cannot import '{target}': {error}", where="callable", fix="name it 'package.module:function'"
            ) from error
        if not colon or not callable(self._function):
            raise ConfigError(
                f"'{target}' is not a function", where="callable", fix="name it 'package.module:function'"
            )
        self._target = target
        self.inputs = {n: np.zeros(shape, np.float32) for n, shape in inputs.items()}
        self.outputs = {n: np.zeros(shape, np.float32) for n, shape in outputs.items()}

    def _run_impl(self) -> None:
        try:
            got = self._function(**self.inputs)
        except Exception as error:  # the user's own code may raise anything
            raise self._error(f"{type(error).__name__}: {error}", "correct the function") from error
        values: dict[str, AnyArray]
        if isinstance(got, dict):
            values = got
        else:
            parts = got if isinstance(got, tuple) else (got,)
            if len(parts) != len(self.outputs):
                raise self._error(f"{len(parts)} outputs returned, {len(self.outputs)} declared", "return them all")
            values = dict(zip(self.outputs, parts, strict=True))
        for name, own in self.outputs.items():
            value = np.asarray(values.get(name))
            if value.shape != own.shape or value.dtype.kind not in "fiub":
                raise self._error(
                    f"output '{name}' is {value.dtype} {list(value.shape)}, declared float32 {list(own.shape)}",
                    "return the declared shape",
                )
            np.copyto(own, value, casting="unsafe")

    def _error(self, message: str, fix: str) -> EngineError:
        return EngineError(message, where=f"callable '{self._target}'", fix=fix)
