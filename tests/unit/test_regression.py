"""Regression: what is told stays within its clamp and among what was seen; what the manifest may say of it."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from mmedge.bundle.decoding import decode_manifest
from mmedge.bundle.manifest import Ema, Task
from mmedge.bundle.references import check_label_count, check_references
from mmedge.bundle.tasks import TASK_KINDS, Regression
from mmedge.errors import BundleError, EngineError
from mmedge.interpret import kinds, make_interpreter
from mmedge.types import Snapshot, TaskResult

SEEN = Snapshot(t_ns=0, seq=0, present={"image": True})
NUMBERS = st.floats(-1e6, 1e6, width=32)


def task(**keys: Any) -> Task:
    return Task(kind="regression", output="net.y", **keys)


def tell(spec: Task, values: list[float], step_ns: int) -> list[float]:
    reader = make_interpreter("x", spec, ())
    told = []
    for number, value in enumerate(values):
        result = reader(np.array([[value]], np.float32), replace(SEEN, t_ns=number * step_ns))
        assert (result.label, result.score) == (None, None)
        assert result.value is not None
        told.append(result.value)
    return told


@given(
    st.lists(NUMBERS, min_size=1, max_size=20), st.tuples(NUMBERS, NUMBERS), st.floats(1, 1e4), st.integers(0, 10**9)
)
def test_what_is_told_is_within_the_clamp(
    values: list[float], ends: tuple[float, float], tau_ms: float, step_ns: int
) -> None:
    low, high = sorted(ends)
    assume(low < high)
    smooth = task(regression=Regression(clamp=(low, high)), smoothing=Ema(tau_ms=tau_ms))
    assert all(low <= value <= high for value in tell(smooth, values, step_ns))
    plain = tell(task(regression=Regression(clamp=(low, high))), values, step_ns)
    assert plain == pytest.approx([min(max(value, low), high) for value in values], rel=1e-5)


@given(st.lists(NUMBERS, min_size=2, max_size=20), st.floats(1, 1e4), st.integers(1, 10**9))
def test_a_smoothed_number_lies_between_those_seen_and_follows_the_last(
    values: list[float], tau_ms: float, step_ns: int
) -> None:
    told = tell(task(smoothing=Ema(tau_ms=tau_ms)), values, step_ns)
    slack = 1e-5 * max(map(abs, values))
    assert all(min(values[: k + 1]) - slack <= t <= max(values[: k + 1]) + slack for k, t in enumerate(told))
    keep, want = np.exp(-step_ns / (tau_ms * 1e6)), values[0]
    for value in values[1:]:
        want = keep * want + (1 - keep) * value
    assert told[-1] == pytest.approx(want, rel=1e-5, abs=slack + 1e-30)


def test_the_past_is_forgotten() -> None:
    reader = make_interpreter("x", task(smoothing=Ema(tau_ms=1000), regression=Regression(unit="m")), ())
    one = np.ones((1, 1), np.float32)
    assert reader(one, SEEN) == TaskResult(label=None, score=None, value=1.0, unit="m")
    reader.reset()
    assert reader(3 * one, replace(SEEN, t_ns=1)).value == 3.0
    with pytest.raises(EngineError, match="2 values, but a regression needs one"):
        reader.read(np.ones((1, 2), np.float32), SEEN)


def test_old_result_lines_keep_their_bytes() -> None:
    assert msgspec.json.encode(TaskResult(label="7", score=0.5)) == b'{"label":"7","score":0.5}'
    assert msgspec.json.encode(Task(kind="classification", output="a.b", labels="l")) == (
        b'{"kind":"classification","output":"a.b","labels":"l"}'
    )


def test_every_kind_is_known_in_its_three_places() -> None:
    tasks = pytest.importorskip("mmedge.export.tasks")
    named = set(get_args(get_type_hints(Task)["kind"]))
    assert named == set(TASK_KINDS) == set(kinds._READERS) == set(tasks.KINDS)


def manifest(entry: dict[str, Any], output: list[Any]) -> bytes:
    document = {
        "schema": "mmedge.bundle/1",
        "name": "t",
        "licence": "MIT",
        "inputs": {"imu": {"modality": "tensor", "shape": [1, 2]}},
        "stages": {"net": {"inputs": {"x": "imu"}, "outputs": {"y": output}, "callable": "a:b"}},
        "variants": [],
        "tasks": {"x": {"kind": "regression", "output": "net.y", **entry}},
        "sync": {"trigger": "imu"},
        "files": {"l": {"sha256": "0" * 64, "bytes": 0}},
    }
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    ("entry", "message", "key"),
    [
        ({"labels": "l"}, "a regression has no labels", "labels"),
        ({"threshold": 0.5}, "a regression has no threshold", "threshold"),
        ({"temperature": 2.0}, "a regression has no temperature", "temperature"),
        ({"top_k": 2}, "a regression has no top_k", "top_k"),
        ({"scores": "probabilities"}, "a regression has no scores", "scores"),
        ({"smoothing": {"kind": "debounce", "hold_ms": 5}}, "only an ema smooths a number", "smoothing"),
        ({"regression": {"clamp": [2, 1]}}, r"clamp \[2, 1\] is not", "regression"),
        (
            {"kind": "classification", "labels": "l", "regression": {}},
            "kind regression, and to no others",
            "regression",
        ),
        ({"kind": "classification"}, "missing required field `labels`", ""),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(entry: dict[str, Any], message: str, key: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        check_references(decode_manifest(manifest(entry, ["batch", 1])))
    assert f"tasks.x{'.' if key else ''}{key}" in str(caught.value.where)


def test_its_output_is_one_number() -> None:
    check_label_count(decode_manifest(manifest({}, ["batch", 1])), "x", 0)
    with pytest.raises(BundleError, match=r"net\.y \[1, 2\] is not one number") as caught:
        check_label_count(decode_manifest(manifest({}, ["batch", 2])), "x", 0)
    assert str(caught.value.where).endswith("$.tasks.x.output")
