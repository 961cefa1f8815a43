"""What native code writes of an answer is, byte for byte of its values, the result that plain Python would make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret import UNDEFINED, make_interpreter
from mmedge.interpret.kinds import NativeInterpreter
from mmedge.pipeline.statistics import Statistics
from mmedge.types import Box, Result, Snapshot, TaskResult

LABELS = ("null", "eins", "zwei", "dräi", "\u2028 𝟜")
TEXTS = st.text(max_size=70000) | st.text(max_size=40)
TIMES = st.integers(0, 2**62)
WHOLE = st.integers(-(2**63), 2**63 - 1)
MS = st.floats(-1e9, 1e9)


def stage(name: str, values: Any, *, shown: bool) -> Any:
    """A stage as ``core.Answers`` has it: with outputs, and whether it has run."""
    memory = core.Stage(
        depends=1, direct=1, masks=1, watches=[], follows=False, every_ns=None, differs=False, stream=False,
        background=False, seats=1, producers=[],
    )  # fmt: skip
    memory.life = core.Life.WARM if shown else core.Life.COLD
    return SimpleNamespace(name=name, memory=memory, outputs={"y": np.asarray(values, np.float32)})


def reader(kind: str, **rules: Any) -> NativeInterpreter:
    labels = ("no", "yes") if kind == "verification" else LABELS
    return make_interpreter("t", Task(kind=kind, output="s.y", labels="l", threshold=0.0, **rules), labels)  # type: ignore[arg-type]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    names = draw(st.lists(TEXTS, max_size=20, unique=True))
    return Snapshot(
        t_ns=draw(TIMES),
        seq=0,
        present={name: draw(st.booleans()) for name in names},
        age_ms={name: draw(MS) for name in names if draw(st.booleans())},
        epoch={name: draw(WHOLE) for name in names if draw(st.booleans())},
        skew_ms=draw(MS),
        uncertainty_ms=draw(st.floats(0, 1e9)),
        stamp_uncertainty_ns=draw(st.integers(0, 2**40)),
        deliver_ns=draw(TIMES),
        wait_ns=draw(TIMES),
        reason=draw(st.none() | TEXTS),
    )


KINDS = st.sampled_from(["classification", "verification", "regression"])
TASKS = st.dictionaries(TEXTS, st.tuples(KINDS, st.booleans()), max_size=20)


@given(snapshots(), TASKS, st.booleans(), WHOLE)
def test_a_result_says_what_its_snapshot_and_its_tasks_say(
    snapshot: Snapshot, tasks: dict[str, tuple[str, bool]], valid: bool, wall_ns: int
) -> None:
    wall_ns %= 2**60
    values = {"classification": [0.5, 3.0, -1.0, 0.0, 2.0], "verification": [1.5], "regression": [2.75]}
    made = {name: (reader(kind, top_k=3), stage(name, values[kind], shown=on)) for name, (kind, on) in tasks.items()}
    same = {name: reader(kind, top_k=3) for name, (kind, _) in tasks.items()}
    questions = [(name, task, its, "y", None) for name, (task, its) in made.items()]
    statistics = Statistics()
    answers = core.Answers(questions, statistics.times("capture"), wall_ns)
    answers.read(snapshot)
    message, from_ns, done_ns = answers.tell(snapshot, valid, 0, 0, 0, 0)
    found = msgspec.msgpack.decode(message, type=Result)

    def told(name: str) -> TaskResult:
        kind, on = tasks[name]
        return same[name](np.array(values[kind], np.float32), snapshot) if on and valid else UNDEFINED

    assert found == Result(
        t_ns=snapshot.t_ns,
        unix_ns=snapshot.t_ns + wall_ns,
        status="ok" if valid else "unvalidated",
        tasks={name: told(name) for name in tasks},
        present=snapshot.present,
        age_ms={name: round(age, 3) for name, age in snapshot.age_ms.items()},
        skew_ms=round(snapshot.skew_ms, 3),
        uncertainty_ms=round(snapshot.uncertainty_ms, 3),
        latency_ms=found.latency_ms,
        epoch=snapshot.epoch,
        reason=snapshot.reason,
    )
    assert from_ns == snapshot.t_ns
    assert found.latency_ms["end_to_end"] == round(max(done_ns - from_ns, 0) / 1e6, 3)
    assert statistics.end_to_end.n == 1
    assert list(found.tasks) == list(tasks)  # in the manifest's order


def test_boxes_are_told() -> None:
    task = Task(
        kind="detection", output="s.y", labels="l", threshold=0.3,
        detection={"layout": "boxes", "input": "image"},  # type: ignore[arg-type]
    )  # fmt: skip
    task = msgspec.convert(msgspec.to_builtins(task), Task)
    rows = [[[0.1, 0.2, 0.5, 0.6, 0.9, 3], [0.1, 0.2, 0.4, 0.6, 0.5, 1], [0, 0, 1, 1, 0.1, 0]]]
    found = make_interpreter("t", task, LABELS, lambda corners: None)
    result = found(np.array(rows, np.float32), Snapshot(t_ns=0, seq=0, present={"image": True}))
    assert result.boxes[0] == Box(label="dräi", score=0.9, x1=0.1, y1=0.2, x2=0.5, y2=0.6)
    assert (result.label, result.score, [box.label for box in result.boxes]) == ("dräi", 0.9, ["dräi", "eins"])
    assert found.tell(Snapshot(t_ns=0, seq=0, present={})) == result
    found.read(np.array(rows, np.float32), Snapshot(t_ns=1, seq=1, present={"image": False}))
    assert found.tell(Snapshot(t_ns=1, seq=1, present={})) == UNDEFINED


def test_of_a_task_that_cannot_be_read_the_number_is_told_and_nothing_is_smoothed() -> None:
    good, bad = stage("a", [0.5], shown=True), stage("b", [0.5, 0.5], shown=True)
    first, second = reader("regression"), reader("regression")
    answers = core.Answers(
        [("a", first, good, "y", None), ("b", second, bad, "y", None)], Statistics().times("call"), 0
    )
    snapshot = Snapshot(t_ns=5, seq=0, present={})
    with pytest.raises(EngineError, match="2 values, but a regression needs one"):
        answers.read(snapshot)
    assert answers.at == 1
    bad.outputs = {"y": np.array([7.0], np.float32)}  # another engine has other arrays
    answers.read(snapshot)
    message, *_ = answers.tell(snapshot, True, 0, 0, 0, 0)
    assert {n: t.value for n, t in msgspec.msgpack.decode(message, type=Result).tasks.items()} == {"a": 0.5, "b": 7.0}


def test_what_is_asked_for_an_output_may_say_that_there_is_none_any_more() -> None:
    there: list[Any] = [np.array([2.0], np.float32)]
    asked: Any = stage("a", [1.0], shown=False)
    answers = core.Answers(
        [("a", reader("regression"), asked, "y", lambda snapshot: there[0])], Statistics().times("call"), 0
    )
    snapshot = Snapshot(t_ns=5, seq=0, present={})
    for gone, value in ((False, 2.0), (True, None)):
        answers.read(snapshot)
        if gone:
            there[0] = None
        answers.look(snapshot)
        message, *_ = answers.tell(snapshot, True, 0, 0, 0, 0)
        assert msgspec.msgpack.decode(message, type=Result).tasks["a"].value == value


def test_a_text_that_is_no_unicode_is_refused() -> None:
    answers = core.Answers([], Statistics().times("call"), 0)
    with pytest.raises(UnicodeEncodeError):
        answers.tell(Snapshot(t_ns=0, seq=0, present={}, reason="\ud800"), True, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="finite"):
        answers.tell(Snapshot(t_ns=0, seq=0, present={}, skew_ms=cast("float", np.nan)), True, 0, 0, 0, 0)
