"""A rule in place of a network: ``"pkg.mod:func"`` behind the engine interface."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from traceback import walk_tb
from typing import Any, TypeAlias

import numpy as np

from mmedge.engine.base import EngineBase
from mmedge.errors import ConfigError, EngineError
from mmedge.types import AnyArray

_Answer: TypeAlias = tuple[object, BaseException | None]
_FIRST_MS = 30_000.0


class CallableEngine(EngineBase):
    """Calls ``func(**inputs)`` and checks what comes back.

    Args:
        target: ``"pkg.mod:func"``; it gets arrays, to be read until it returns, and returns one array, a tuple in the
            order of the outputs, or a dict by name.
        inputs: Tensor name -> shape.
        outputs: Tensor name -> shape; they are float32.
        dtypes: Tensor name -> dtype of an input that is not float32.
        timeout_ms: A function that takes longer has failed; it then runs on a thread of its own. None waits for ever.
            Its first call may take half a minute, since it may import and load what it needs.

    Raises:
        ConfigError: If the function cannot be imported, or is async.
    """

    def __init__(
        self,
        target: str,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        *,
        dtypes: Mapping[str, str] | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        super().__init__("callable")
        module, colon, name = target.partition(":")
        try:
            self._function = getattr(import_module(module), name)
        except Exception as error:  # the user's module may raise anything while it is imported
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            raise ConfigError(
                f"cannot import '{target}': {error}",
                where=f"callable '{target}'",
                fix=f"put the folder of '{module}' on PYTHONPATH" if absent else f"correct '{module}'",
            ) from error
        if not colon or not callable(self._function):
            raise ConfigError(
                f"'{target}' is not a function", where=f"callable '{target}'", fix="name it 'package.module:function'"
            )
        if inspect.iscoroutinefunction(self._function):
            raise ConfigError(
                f"'{target}' is async",
                where=f"callable '{target}'",
                fix="leave 'async' out: triggers wait for it",
            )
        self._target = target
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        self._file = None if code is None else code.co_filename
        own = dtypes or {}
        self.inputs = {n: np.zeros(shape, own.get(n, "float32")) for n, shape in inputs.items()}
        self.outputs = {n: np.zeros(shape, np.float32) for n, shape in outputs.items()}
        self._timeout_ms = timeout_ms
        # A function that blocks may still read what it was given when the next trigger is fed.
        self._given = self.inputs if timeout_ms is None else {n: np.empty_like(a) for n, a in self.inputs.items()}
        self._arguments = {name: array.view() for name, array in self._given.items()}
        for view in self._arguments.values():
            view.flags.writeable = False
        self._thread: _Thread | None = None

    def _run_impl(self) -> None:
        if self._timeout_ms is None:
            try:
                got = self._function(**self._arguments)
            except Exception as error:  # the user's own code may raise anything
                raise self._raised(error) from error
        else:
            got = self._wait(self._timeout_ms)
        self._take(got)

    def _wait(self, timeout_ms: float) -> object:
        if self._thread is None:
            self._thread = _Thread(self._function, self._target)
            timeout_ms = max(timeout_ms, _FIRST_MS)
        thread = self._thread
        if thread.blocked():
            raise self._error("it still blocks since an earlier trigger", "correct the function")
        for name, array in self._given.items():
            np.copyto(array, self.inputs[name])
        answer = thread.call(self._arguments, timeout_ms / 1000)
        if answer is None:
            raise self._error(f"it blocks for longer than {timeout_ms:g} ms", "raise timeout_ms, or make it faster")
        got, error = answer
        if error is not None:
            raise self._raised(error) from error
        return got

    def _take(self, got: object) -> None:
        values: Mapping[Any, Any]
        if got is None:
            raise self._error("the function returned None", f"let it return {_listed(self.outputs)}")
        if isinstance(got, dict):
            values = got
            unknown = [key for key in got if key not in self.outputs]
            if unknown:
                raise self._error(
                    f"the function returned {_listed(unknown)}, declared is {_listed(self.outputs)}",
                    "return what is declared, or declare the rest in the stage's outputs",
                )
        else:
            parts = got if isinstance(got, tuple) else (got,)
            if len(parts) != len(self.outputs):
                raise self._error(f"{len(parts)} outputs returned, {len(self.outputs)} declared", "return them all")
            values = dict(zip(self.outputs, parts, strict=True))
        for name, own in self.outputs.items():
            if name not in values:
                raise self._error(f"output '{name}' is missing", "return every declared output")
            try:
                value: AnyArray = np.asarray(values[name])
            except BaseException as error:  # an object of the user's own may raise anything
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise self._error(f"output '{name}' is no array: {_text(error)}", "return an array") from error
            if value.shape != own.shape or value.dtype.kind not in "fiub":
                raise self._error(
                    f"output '{name}' is {value.dtype} {list(value.shape)}, declared float32 {list(own.shape)}",
                    "return the declared shape",
                )
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which is an error of its own
                np.copyto(own, value, casting="unsafe")

    def _raised(self, error: BaseException) -> EngineError:
        told = f"{type(error).__name__}: {_text(error)}"
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == self._file]
        if not lines or self._file is None:
            return self._error(told, "correct the function")
        place = f"line {lines[-1]} of {Path(self._file).name}"
        return self._error(f"{told} ({place})", f"correct {place}", f", {self._file}:{lines[-1]}")

    def _error(self, message: str, fix: str, place: str = "") -> EngineError:
        return EngineError(message, where=f"callable '{self._target}'{place}", fix=fix)

    def _close_impl(self) -> None:
        if self._thread is not None:
            self._thread.close()


def _listed(names: Iterable[object]) -> str:
    return ", ".join(repr(name) for name in names)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:  # of a class of the user's own
        return f"(and it cannot say why: {type(worse).__name__})"


class _Thread:
    """Runs a function that may never return; a daemon, so that nobody has to wait for its end."""

    def __init__(self, function: Any, name: str) -> None:
        self._function = function
        self._calls: SimpleQueue[dict[str, AnyArray] | None] = SimpleQueue()
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        self._owed = False
        self._thread = threading.Thread(target=self._main, name=f"mmedge-{name}", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        while (inputs := self._calls.get()) is not None:
            try:
                answer: _Answer = (self._function(**inputs), None)
            except BaseException as error:  # it is told to whoever waits, whatever it is
                answer = (None, error)
            self._answers.put(answer)
            del answer, inputs

    def call(self, inputs: dict[str, AnyArray], timeout_s: float) -> _Answer | None:
        """Return what the function returned and raised; None if it has not come back in time."""
        self._calls.put(inputs)
        self._owed = True
        return self._answer(timeout_s)

    def blocked(self) -> bool:
        """Tell whether an earlier call has still not come back; what it returns too late is thrown away."""
        return self._owed and self._answer(0) is None

    def _answer(self, timeout_s: float) -> _Answer | None:
        try:
            answer = self._answers.get(timeout=timeout_s)
        except Empty:
            return None
        self._owed = False
        return answer

    def close(self) -> None:
        """End the thread, unless it blocks: then it is left alone."""
        self._calls.put(None)
        if not self.blocked():
            self._thread.join()
