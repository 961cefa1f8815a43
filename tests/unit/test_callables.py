"""Functions in place of networks: what is refused before the run, whatever they return or raise, and their end."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import ConfigError, EngineError
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.load import load_graph
from tests.tiny import imu_bundle

GATE = threading.Event()


def engine_of(name: str, timeout_ms: float | None = None, *, inputs: tuple[str, ...] = ("x",)) -> CallableEngine:
    shapes = dict.fromkeys(inputs, (1, 2))
    return CallableEngine(f"{__name__}:{name}", shapes, {"y": (1, 2)}, timeout_ms=timeout_ms)


# What is wrong before the run.


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise GeneratorExit('odd')", "GeneratorExit: odd"),
        ("class E(Exception):\n  def __str__(self): raise SystemExit\nraise E", "text cannot be printed: SystemExit"),
    ],
)
def test_a_module_that_ends_the_process_is_an_error_of_its_stage(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ending_rule.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with (
        mmedge.load(imu_bundle(tmp_path / "imu.mmedge", rule="ending_rule:f")) as bundle,
        pytest.raises(ConfigError, match=f"cannot import 'ending_rule:f': .*{said}") as caught,
    ):
        load_graph(bundle, allow=["ending_rule"])
    assert caught.value.where == "stage 'rule': callable 'ending_rule:f'"


def test_the_user_at_the_keyboard_ends_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_rule.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        CallableEngine("interrupted_rule:f", {}, {"y": (1, 2)})


def other(image: Any, *, present: Any = None) -> Any:
    return image


def positional(x: Any, /) -> Any:
    return x


def injected(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(**inputs: Any) -> Any:
        return function(scale=2, **inputs)

    return wrapper


@injected
def scaled(x: Any, scale: int) -> Any:
    return scale * x


class Caller:
    def __call__(self, x: Any) -> Any:
        return x

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else RuntimeError("odd")


caller = Caller()


@pytest.mark.parametrize(("name", "takes"), [("other", "'image', 'present'"), ("positional", "'x'")])
def test_parameters_that_are_not_the_inputs_are_refused(name: str, takes: str) -> None:
    with pytest.raises(ConfigError, match=f"takes {takes}, the stage's inputs are 'x'"):
        engine_of(name)


@pytest.mark.parametrize("name", ["scaled", "caller"])
def test_what_takes_the_inputs_somehow_is_called(name: str) -> None:
    engine = engine_of(name)
    assert engine({"x": np.ones((1, 2), np.float32)})["y"].tolist() in ([[1, 1]], [[2, 2]])


def test_what_has_no_signature_is_tried() -> None:
    CallableEngine("builtins:dict", {"x": (1, 2)}, {"x": (1, 2)}).run()


# Whatever comes back.


class BadKey:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __hash__(self) -> int:
        return 1


class EvilDict(dict):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise RuntimeError("evil iteration")


class Unsayable(Exception):  # noqa: N818
    def __str__(self) -> str:
        sys.exit(3)


class Meta(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=Meta):  # noqa: N818
    pass


class Lazy:
    def __array__(self, *_: Any, **__: Any) -> Any:
        GATE.wait(60)
        return np.full((1, 2), 5, np.float32)


class Leaver:
    def __array__(self, *_: Any, **__: Any) -> Any:
        sys.exit(0)


def odd_key(x: Any) -> Any:
    return {BadKey(): 1}


def evil_dict(x: Any) -> Any:
    return EvilDict(y=x)


def unsayable(x: Any) -> Any:
    raise Unsayable


def nameless(x: Any) -> Any:
    raise Nameless


def leaver(x: Any) -> Any:
    return Leaver()


def leaves(x: Any) -> Any:
    sys.exit(0)


def interrupts(x: Any) -> Any:
    raise KeyboardInterrupt


ODD = {
    "odd_key": "returned a BadKey that cannot be shown, but the stage declares 'y'",
    "evil_dict": "RuntimeError: evil iteration",
    "unsayable": "Unsayable: .its text cannot be printed: SystemExit.",
    "leaver": "output 'y' is not an array: 0",
    "leaves": "SystemExit: 0 .line",
}


@pytest.mark.parametrize("timeout_ms", [None, 5000.0])
@pytest.mark.parametrize(("name", "said"), ODD.items())
def test_whatever_a_function_returns_or_raises_is_an_error_of_the_engine(
    name: str, said: str, timeout_ms: float | None
) -> None:
    engine = engine_of(name, timeout_ms)
    for _ in range(2):  # its thread lives on
        with pytest.raises(EngineError, match=said):
            engine.run()
    engine.close()


@pytest.mark.parametrize(("name", "said"), [("nameless", "cannot be printed"), ("interrupts", "KeyboardInterrupt")])
def test_what_a_function_raises_on_its_own_thread_never_leaves_it(name: str, said: str) -> None:
    engine = engine_of(name, 5000)
    for _ in range(2):
        with pytest.raises(EngineError, match=said):
            engine.run()
    engine.close()


def lazy(x: Any) -> Any:
    return Lazy() if x[0, 0] else x


def test_what_is_returned_is_converted_within_the_timeout() -> None:
    GATE.clear()
    engine = engine_of("lazy", 50)
    engine.run()  # the first call has half a minute
    engine.inputs["x"].fill(1)
    with pytest.raises(EngineError, match="did not return within 50 ms"):
        engine.run()
    with pytest.raises(EngineError, match="has not returned"):
        engine.run()
    GATE.set()
    engine.close()


# The end.


def block(x: Any) -> Any:
    GATE.wait(60)
    return x


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_call_that_waits_ends_with_its_run(how: str) -> None:
    GATE.clear()
    engine = engine_of("block", 100_000)
    threading.Timer(0.2, getattr(engine, how)).start()
    begin = time.monotonic()
    with pytest.raises(EngineError, match="the run ended before the function returned"):
        engine.run()
    getattr(engine, how)()
    if how == "cancel":
        with pytest.raises(EngineError, match="the run ended"):
            engine.run()
    engine.close()
    assert time.monotonic() - begin < 50
    GATE.set()


def test_what_was_cancelled_before_its_first_run_does_not_begin() -> None:
    GATE.clear()
    engine = engine_of("block", 100_000)
    engine.cancel()
    engine.cancel()
    begin = time.monotonic()
    with pytest.raises(EngineError, match="the run ended"):
        engine.run()
    engine.close()
    assert time.monotonic() - begin < 50
