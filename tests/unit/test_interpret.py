"""Interpretation: calibrated, smoothed, abstaining."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

import mmedge
from mmedge.bundle import decode_manifest
from mmedge.bundle.manifest import Debounce, Ema, Hysteresis, Manifest, Task
from mmedge.bundle.references import check_label_count
from mmedge.errors import BundleError, EngineError
from mmedge.interpret import make_interpreter
from mmedge.types import Snapshot
from tests import tiny

LABELS = ("a", "b", "none")
MS = 1_000_000


def task(kind: str = "classification", **more: object) -> Task:
    return Task(kind=kind, output="s.y", labels="l.txt", **more)  # type: ignore[arg-type]


def at(t_ms: float = 0, image: bool = True, audio: bool = True) -> Snapshot:
    return Snapshot(t_ns=round(t_ms * MS), seq=0, present={"image": image, "audio": audio})


def logits(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_classification_scores_are_calibrated_probabilities() -> None:
    interpret = make_interpreter("t", task(temperature=2.0, top_k=2), LABELS)
    result = interpret(logits(4, 2, 0), at())
    exact = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert result.label == "a"
    assert result.score == pytest.approx(exact[0], abs=1e-4)
    assert [name for name, _ in result.top] == ["a", "b"]


def test_below_the_threshold_it_abstains_but_keeps_the_score() -> None:
    result = make_interpreter("t", task(threshold=0.9), LABELS)(logits(1, 0, 0), at())
    assert result.label is None
    assert result.score is not None
    assert 0.5 < result.score < 0.9


def test_smoothing_follows_capture_time_not_call_count() -> None:
    def after(steps: list[int]) -> float:
        interpret = make_interpreter("t", task(smoothing=Ema(tau_ms=200)), LABELS)
        interpret(logits(50, 0, 0), at())
        for t in steps:
            result = interpret(logits(0, 50, 0), at(t))
        return result.score if result.label == "b" else 1 - (result.score or 0)

    assert after([200]) == pytest.approx(1 - math.exp(-1), abs=1e-3)
    assert after([50, 100, 150, 200]) == pytest.approx(after([200]), abs=1e-3)


def test_verification_is_undefined_with_fewer_than_two_inputs() -> None:
    interpret = make_interpreter("t", task("verification", threshold=0.5), ("no", "yes"))
    assert interpret(logits(3), at()).label == "yes"
    assert interpret(logits(-3), at()).label == "no"
    alone = interpret(logits(3), at(audio=False))
    assert alone.label is None
    assert alone.score is None


@given(st.floats(-(2.0**99), 2.0**99, width=32))
def test_verification_score_is_a_probability(logit: float) -> None:
    result = make_interpreter("t", task("verification", threshold=0.5), ("no", "yes"))(logits(logit), at())
    assert result.score is not None
    assert 0 <= result.score <= 1


def test_a_wrong_output_names_the_task() -> None:
    with pytest.raises(EngineError, match="values, but there are") as caught:
        make_interpreter("digit", task(), LABELS)(logits(1, 2), at())
    assert caught.value.where == "task 'digit'"


def test_probabilities_are_taken_as_they_are() -> None:
    interpret = make_interpreter("t", task(scores="probabilities", top_k=9), LABELS)
    result = interpret(logits(0.2, 0.7, 0.1), at())
    assert (result.label, result.score) == ("b", 0.7)
    assert result.top == (("b", 0.7), ("a", 0.2), ("none", 0.1))
    same = make_interpreter("t", task("verification", scores="probabilities", threshold=0.5), ("no", "yes"))
    assert (same(logits(0.25), at()).label, same(logits(0.25), at()).score) == ("no", 0.25)


def test_huge_logits_at_a_small_temperature_are_probabilities() -> None:
    result = make_interpreter("t", task(temperature=1e-3, top_k=3), LABELS)(logits(3e38, -3e38, 3e38), at())
    assert result.top == (("a", 0.5), ("none", 0.5), ("b", 0.0))


@pytest.mark.parametrize("kind", ["classification", "verification"])
def test_what_is_no_probability_is_refused(kind: str) -> None:
    labels = LABELS if kind == "classification" else ("no", "yes")
    interpret = make_interpreter("t", task(kind, scores="probabilities"), labels)
    with pytest.raises(EngineError, match="probabilities must be 0 to 1") as caught:
        interpret(logits(*[7.5] * (3 if kind == "classification" else 1)), at())
    assert "softmax" in (caught.value.fix or "")


def test_what_is_read_moves_no_smoothing_before_it_is_told() -> None:
    smoothing = (Ema(tau_ms=200), Hysteresis(enter=0.5, leave=0.3), Debounce(hold_ms=100))
    once, again = (make_interpreter("t", task(smoothing=smoothing), LABELS) for _ in range(2))
    for t_ms, scores in ((0, (9, 0, 0)), (40, (0, 9, 0)), (160, (0, 9, 0)), (400, (0, 9, 0))):
        again.read(logits(0, 0, 99), at(t_ms))
        assert once(logits(*scores), at(t_ms)) == again(logits(*scores), at(t_ms))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_any_number_type_is_read(dtype: type) -> None:
    result = make_interpreter("t", task(), LABELS)(np.array([[[1], [4], [2]]], dtype), at())
    assert result.label == "b"


def test_a_thousand_classes_allocate_no_array() -> None:
    smoothing = (Ema(tau_ms=200), Hysteresis(enter=0.5, leave=0.3), Debounce(hold_ms=100))
    many = tuple(map(str, range(1000)))
    interpret = make_interpreter("t", task(smoothing=smoothing, top_k=5), many)
    output = np.random.default_rng(0).normal(size=(1, 1000)).astype(np.float32)
    interpret(output, at())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = interpret(output, at(40))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 4096
    assert [label for label, _ in result.top] == [str(i) for i in np.argsort(-output[0], kind="stable")[:5]]


def decoded(**changes: object) -> Manifest:
    files = tiny.members()
    scene = {**tiny.MANIFEST["tasks"]["scene"], **changes}
    return decode_manifest(json.dumps(tiny.manifest(files, tasks={"scene": scene})).encode())


@pytest.mark.parametrize(
    ("changes", "message", "where"),
    [
        (
            {"smoothing": [{"kind": "debounce", "hold_ms": 9}, {"kind": "ema", "tau_ms": 9}]},
            "debounce, ema",
            "tasks.scene.smoothing",
        ),
        ({"smoothing": [{"kind": "ema", "tau_ms": 9}] * 2}, "ema, ema", "tasks.scene.smoothing"),
        ({"smoothing": {"kind": "hysteresis", "enter": 0.3, "leave": 0.5}}, "leave 0.5", "smoothing"),
        ({"scores": "probabilities", "temperature": 2.0}, "calibrates logits", "tasks.scene.temperature"),
        (
            {
                "kind": "detection",
                "detection": {"layout": "yolo", "input": "image"},
                "smoothing": {"kind": "ema", "tau_ms": 9},
            },
            "boxes are not tracked",
            "tasks.scene.smoothing",
        ),
        (
            {"kind": "detection", "detection": {"layout": "yolo", "input": "image"}, "top_k": 3},
            "neither temperature nor top_k",
            "tasks.scene",
        ),
    ],
)
def test_a_task_that_cannot_work_is_refused(changes: dict[str, object], message: str, where: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        decoded(**changes)
    assert where in (caught.value.where or "")


@pytest.mark.parametrize(
    ("changes", "dims", "count", "message"),
    [
        ({}, ["batch", 2], 3, r"\[1, 2\] has 2 classes, there are 3 labels"),
        ({"kind": "verification"}, ["batch", 2], 2, r"\[1, 2\] is for one score"),
        ({"kind": "verification"}, ["batch", 1], 3, "one score and the labels .no, yes., there are 3 labels"),
        ({"layout": "yolo"}, ["batch", 84, 8400], 79, "has 80 classes, there are 79 labels"),
        ({"layout": "yolo"}, ["batch", 8400, 84], 80, "has 8396 classes, there are 80 labels"),
        ({"layout": "yolo-objectness"}, ["batch", 25200, 85], 81, "has 80 classes, there are 81 labels"),
        ({"layout": "boxes"}, ["batch", 300, 7], 2, "not of the layout 'boxes'"),
        ({"layout": "yolo"}, ["batch", 84], 80, "not of the layout 'yolo'"),
    ],
)
def test_labels_and_classes_are_as_many(changes: dict[str, str], dims: list[object], count: int, message: str) -> None:
    if "layout" in changes:
        changes = {"kind": "detection", "detection": {"input": "image", **changes}}  # type: ignore[dict-item]
    manifest = decoded(**changes)
    stage = structs.replace(manifest.stages["join"], outputs={"scene": tuple(dims), "same": ("batch", 1)})
    manifest = structs.replace(manifest, stages={**manifest.stages, "join": stage})
    with pytest.raises(BundleError, match=message) as caught:
        check_label_count(manifest, "scene", count)
    assert caught.value.where == "manifest.json: $.tasks.scene.labels"


def test_a_bundle_with_a_label_too_many_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny.members()
    files["labels/scene.txt"] += b"blinding\n"
    monkeypatch.setattr(tiny, "members", lambda: files)
    with pytest.raises(BundleError, match=r"join.scene \[1, 2\] has 2 classes, there are 3 labels"):
        mmedge.load(tiny.tiny_bundle(tmp_path / "wrong.mmedge"))
