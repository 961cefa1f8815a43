"""The native interpreters answer to the same bytes as those in plain Python that they took the place of."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import Debounce, Ema, Hysteresis, Task
from mmedge.bundle.tasks import Regression
from mmedge.errors import EngineError
from mmedge.interpret import Interpreter, make_interpreter
from mmedge.interpret.task import softmax
from mmedge.types import AnyArray, Snapshot
from tests.oracle import interpreters as oracle

DTYPES = (np.float32, np.float32, np.float16, np.float64, np.int32)
WILD = st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.0009, -0.0009, 2.5, 1e-30, 6e4, -6e4, np.inf, -np.inf, np.nan])
NUMBERS = st.one_of(st.floats(0, 1), st.floats(-20, 20), WILD)
MASKS = st.sampled_from([{"image": True, "audio": True}] * 3 + [{"image": True, "audio": False}])


@st.composite
def smoothings(draw: st.DrawFn) -> tuple[Ema | Hysteresis | Debounce, ...]:
    leave, enter = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    parts = (
        Ema(tau_ms=draw(st.floats(0.01, 1e4))),
        Hysteresis(enter=enter, leave=leave),
        Debounce(hold_ms=draw(st.floats(0.01, 300))),
    )
    return tuple(part for part in parts if draw(st.booleans()))


def answers(reader: Interpreter, outputs: list[tuple[int, dict[str, bool], AnyArray]]) -> list[bytes]:
    """Return what a reader makes of each output, as JSON or as its error; a mask of None resets it."""
    told, t_ns = [], 0
    for step_ns, present, output in outputs:
        t_ns += step_ns
        snapshot = Snapshot(t_ns=t_ns, seq=0, present=present)
        try:
            with np.errstate(all="ignore"):
                told.append(msgspec.json.encode(reader(output, snapshot)))
        except EngineError as error:
            told.append(str(error).encode())
            reader.reset()
    return told


@st.composite
def outputs(draw: st.DrawFn, size: int) -> list[tuple[int, dict[str, bool], AnyArray]]:
    dtype = draw(st.sampled_from(DTYPES))

    def array() -> AnyArray:
        values = np.array(draw(st.lists(NUMBERS, min_size=size, max_size=size)))
        with np.errstate(all="ignore"):
            return (np.nan_to_num(values) if dtype is np.int32 else values).astype(dtype)[None]

    count = draw(st.integers(1, 8))
    return [(draw(st.integers(-(10**8), 10**9)), draw(MASKS), array()) for _ in range(count)]


@given(st.data(), st.integers(1, 20), smoothings(), st.booleans())
def test_classification(data: st.DataObject, size: int, smoothing: Any, logits: bool) -> None:
    labels = tuple(f"label {i}" for i in range(size))
    task = Task(
        kind="classification",
        output="s.y",
        labels="l",
        scores="logits" if logits else "probabilities",
        temperature=data.draw(st.floats(1e-3, 50)) if logits else 1.0,
        threshold=data.draw(st.floats(0, 1)),
        top_k=data.draw(st.integers(0, 22)),
        smoothing=smoothing,
    )
    seen = data.draw(outputs(size))
    assert answers(make_interpreter("t", task, labels), seen) == answers(oracle.Classification("t", task, labels), seen)


@given(st.data(), smoothings(), st.booleans())
def test_verification(data: st.DataObject, smoothing: Any, logits: bool) -> None:
    task = Task(
        kind="verification",
        output="s.y",
        labels="l",
        scores="logits" if logits else "probabilities",
        temperature=data.draw(st.floats(1e-3, 50)) if logits else 1.0,
        threshold=data.draw(st.floats(0, 1)),
        smoothing=smoothing,
    )
    seen = data.draw(outputs(1))
    labels = ("no", "yes")
    assert answers(make_interpreter("t", task, labels), seen) == answers(oracle.Verification("t", task, labels), seen)


@given(st.data(), st.none() | st.tuples(st.floats(-30, 0), st.floats(0.1, 1e5)), st.none() | st.floats(0.01, 1e4))
def test_regression(data: st.DataObject, clamp: tuple[float, float] | None, tau_ms: float | None) -> None:
    smoothing = None if tau_ms is None else Ema(tau_ms=tau_ms)
    task = Task(kind="regression", output="s.y", regression=Regression(unit="m", clamp=clamp), smoothing=smoothing)
    seen = data.draw(outputs(1))
    assert answers(make_interpreter("t", task, ()), seen) == answers(oracle.Regression("t", task), seen)


@pytest.mark.arithmetic
@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 128, 129, 136, 257, 1000, 5000])
def test_probabilities_of_many_labels_have_the_same_bits(size: int) -> None:
    drawn = np.random.default_rng(size).normal(0, 6, (20, size))
    for logits in drawn:
        ours, theirs = logits.copy(), logits.copy()
        softmax(ours, 1.3)
        oracle.softmax(theirs, 1.3)
        assert ours.tobytes() == theirs.tobytes()
        by_numpy = np.exp((logits - logits.max()) / 1.3)
        by_numpy /= by_numpy.sum()
        np.testing.assert_array_max_ulp(ours, by_numpy, 8)


def test_an_output_that_is_not_in_one_piece_is_read() -> None:
    task = Task(kind="classification", output="s.y", labels="l")
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1]
    assert make_interpreter("t", task, ("a", "b", "c"))(wide, Snapshot(t_ns=0, seq=0, present={})).label == "c"
