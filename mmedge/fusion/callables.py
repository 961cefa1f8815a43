"""A Python function in place of a network: ``"pkg.mod:func"`` behind the engine interface."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from traceback import walk_tb
from typing import Any, TypeAlias

import numpy as np

from mmedge.engine.base import EngineBase
from mmedge.errors import ConfigError, EngineError
from mmedge.fusion.consent import PROJECT_FILE, Consent
from mmedge.fusion.failures import CancelledError
from mmedge.types import AnyArray

_Answer: TypeAlias = dict[str, AnyArray] | BaseException
_FIRST_MS = 30_000.0  # for the first call, which may import and load


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
        stage: Name of the stage, for messages.
        consent: What the user allows; None where the function is the caller's own.

    Raises:
        ConfigError: If the function cannot be imported, is async, or has other parameters than ``inputs``.
    """

    def __init__(
        self,
        target: str,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        *,
        dtypes: Mapping[str, str] | None = None,
        timeout_ms: float | None = None,
        stage: str | None = None,
        consent: Consent | None = None,
    ) -> None:
        super().__init__("callable")
        self._target = target
        where = ("" if stage is None else f"stage '{stage}': ") + f"callable '{target}'"
        if consent is not None:
            consent.check(target, stage or "")
        self._function = _find(target, inputs, where, consent)
        self._file = _file_of(self._function)
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
        self._cancelled = False

    def cancel(self) -> None:
        """Let a call that waits for its function fail at once, and every later one; the function itself goes on."""
        self._cancelled = True
        if self._thread is not None:
            self._thread.wake()

    def _run_impl(self) -> None:
        answer = self._call() if self._timeout_ms is None else self._wait(self._timeout_ms)
        if isinstance(answer, EngineError):
            raise answer
        if isinstance(answer, BaseException):  # of a class that cannot even be described
            raise self._error("it raised an exception that cannot be printed", "correct the function") from answer
        for name, own in self.outputs.items():
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which is an error of its own
                np.copyto(own, answer[name], casting="unsafe")

    def _wait(self, timeout_ms: float) -> _Answer:
        if self._thread is None:
            self._thread = _Thread(self._call, self._target)
            timeout_ms = max(timeout_ms, _FIRST_MS)
        thread = self._thread
        if self._cancelled:  # looked at after there is a thread: who cancels either sees it or is seen here
            raise self._ended()
        if thread.blocked():
            raise self._error("it has not returned since an earlier trigger", "correct the function")
        for name, array in self._given.items():
            np.copyto(array, self.inputs[name])
        answer = thread.call(timeout_ms / 1000)
        if answer is not None:
            if self.on_ran is not None:  # the way to the thread and back is no time of the function's
                self.on_ran(*thread.ran_ns)
            return answer
        if self._cancelled:
            raise self._ended()
        raise self._error(
            f"it did not return within {timeout_ms:g} ms", "raise timeout_ms, or make the function faster"
        )

    def _call(self) -> _Answer:
        """Call the function and look at what it returns, which may run the user's code as well; errors are returned."""
        try:
            got = self._function(**self._arguments)
        except BaseException as error:  # the user's own code may raise anything
            return self._raised(error)
        try:
            return self._take(got)
        except EngineError as error:
            return error
        except BaseException as error:  # and so may an object of the user's own
            return self._raised(error)

    def _take(self, got: object) -> dict[str, AnyArray]:
        values: Mapping[Any, Any]
        if got is None:
            raise self._error("the function returned None", f"return {_listed(self.outputs)}")
        if isinstance(got, dict):
            values = got
            unknown = [key for key in got if key not in self.outputs]
            if unknown:
                raise self._error(
                    f"the function returned {_listed(unknown)}, but the stage declares {_listed(self.outputs)}",
                    "return what is declared, or declare the rest in the stage's outputs",
                )
        else:
            parts = got if isinstance(got, tuple) else (got,)
            if len(parts) != len(self.outputs):
                raise self._error(f"{len(parts)} outputs returned, {len(self.outputs)} declared", "return them all")
            values = dict(zip(self.outputs, parts, strict=True))
        taken: dict[str, AnyArray] = {}
        for name, own in self.outputs.items():
            if name not in values:
                raise self._error(f"output '{name}' is missing", "return every declared output")
            try:
                value: AnyArray = np.asarray(values[name])
            except BaseException as error:  # an object of the user's own may raise anything
                raise self._error(f"output '{name}' is not an array: {_text(error)}", "return an array") from error
            if value.shape != own.shape or value.dtype.kind not in "fiub":
                raise self._error(
                    f"output '{name}' is {value.dtype} {list(value.shape)}, declared float32 {list(own.shape)}",
                    "return the declared shape",
                )
            taken[name] = value
        return taken

    def _raised(self, error: BaseException) -> EngineError:
        if isinstance(error, KeyboardInterrupt) and self._timeout_ms is None:
            raise error  # of the user at the keyboard; on a thread of its own it is the function's
        told = f"{type(error).__name__}: {_text(error)}"
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == self._file]
        place = "" if self._file is None or not lines else f"line {lines[-1]} of {Path(self._file).name}"
        fault = (
            self._error(f"{told} ({place})", f"correct {place}", f", {self._file}:{lines[-1]}")
            if place
            else self._error(told, "correct the function")
        )
        fault.__cause__ = error
        return fault

    def _ended(self) -> EngineError:
        return CancelledError(
            "the run ended before the function returned",
            where=f"callable '{self._target}'",
            fix="let the run go on until the function returns",
        )

    def _error(self, message: str, fix: str, place: str = "") -> EngineError:
        return EngineError(message, where=f"callable '{self._target}'{place}", fix=fix)

    def _close_impl(self) -> None:
        self.cancel()
        if self._thread is not None:
            self._thread.close()


def _find(target: str, inputs: Iterable[str], where: str, consent: Consent | None) -> Callable[..., object]:
    module, colon, name = target.partition(":")
    try:
        load = import_module if consent is None else consent.load
        function: Callable[..., object] = getattr(load(module), name)
    except ConfigError:
        raise
    except BaseException as error:  # the user's module may raise anything while it is imported, even the end of all
        if isinstance(error, KeyboardInterrupt):
            raise
        absent = isinstance(error, ModuleNotFoundError) and error.name == module
        kind = "" if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: "
        raise ConfigError(
            f"cannot import '{target}': {kind}{_text(error)}",
            where=where,
            fix=f"install '{module}', or name its project: --allow-callable PROJECT/{PROJECT_FILE}"
            if absent
            else f"correct '{module}'",
        ) from error
    if not colon or not callable(function):
        raise ConfigError(f"'{target}' is not a function", where=where, fix="name it 'package.module:function'")
    if consent is not None and not consent.owns(function, module):
        home = getattr(function, "__module__", None)
        raise ConfigError(
            f"'{target}' is not of '{module}' but of '{home}', which was not allowed",
            where=where,
            fix=f"name it '{home}:{name}' and allow '{home}', if it is meant",
        )
    if inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"'{target}' is async", where=where, fix="make it a plain function: triggers wait for its result"
        )
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a wrapper may add what its function needs
    except Exception:  # what was compiled, or is odd, may have none
        return function
    try:
        signature.bind(**dict.fromkeys(inputs))
    except TypeError as error:
        raise ConfigError(
            f"'{target}' takes {_listed(signature.parameters)}, the stage's inputs are {_listed(inputs)}",
            where=where,
            fix="give the function's parameters the names of the stage's inputs",
        ) from error
    return function


def _file_of(function: Any) -> str | None:
    try:
        return str(inspect.unwrap(function).__code__.co_filename)
    except Exception:  # an object with __call__, or one whose attributes raise
        return None


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(_shown, names)) or "none"


def _shown(name: object) -> str:
    try:
        return repr(name)
    except Exception:  # of a class of the user's own
        return f"a {type(name).__name__} that cannot be shown"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except (Exception, SystemExit) as worse:  # of a class of the user's own
        return f"(its text cannot be printed: {type(worse).__name__})"


class _Thread:
    """Runs a function that may never return, on a daemon thread, so that the process can end without it.

    Attributes:
        ran_ns: When the newest call that has come back began and ended, on CLOCK_MONOTONIC.
    """

    def __init__(self, call: Callable[[], _Answer], name: str) -> None:
        self._call = call
        self._orders: SimpleQueue[bool] = SimpleQueue()  # whether to call or to end
        self._answers: SimpleQueue[_Answer | None] = SimpleQueue()  # None: wait no longer
        self._owed = False
        self.ran_ns = 0, 0
        self._thread = threading.Thread(target=self._main, name=f"mmedge-{name}", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        while self._orders.get():
            begin_ns = time.monotonic_ns()
            try:
                answer = self._call()
            except BaseException as error:  # it is told to whoever waits, whatever it is
                answer = error
            self.ran_ns = begin_ns, time.monotonic_ns()
            self._answers.put(answer)
            del answer

    def call(self, timeout_s: float) -> _Answer | None:
        """Return what came of a call; None if it has not come back in time, or ``wake`` was called."""
        self._orders.put(True)
        self._owed = True
        return self._answer(timeout_s)

    def blocked(self) -> bool:
        """Return whether an earlier call has not returned yet; what it returns too late is discarded."""
        return self._owed and self._answer(0) is None

    def wake(self) -> None:
        """End the wait for an answer; from any thread."""
        self._answers.put(None)

    def _answer(self, timeout_s: float) -> _Answer | None:
        try:
            answer = self._answers.get(timeout=timeout_s)
        except Empty:
            return None
        self._owed = self._owed and answer is None
        return answer

    def close(self) -> None:
        """End the thread; one that has not come back is left alone."""
        self._orders.put(False)
        if not self._owed:
            self._thread.join()
