"""Stages that fail in a run: the run goes on without their inputs where the bundle says so, and stops where not."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mmedge
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.errors import EngineError
from mmedge.recording.reader import Recording
from mmedge.replay.replay import Replay
from tests.lines import replayed_line
from tests.tiny import MANIFEST, manifest, members, tiny_bundle

pytestmark = pytest.mark.parallel

HERE = "tests.integration.test_failures"
RATE = 8000


def ear(x: Any) -> Any:
    """Loudness; nothing sensible when it is loud."""
    loud = np.abs(x).mean(keepdims=True)
    if loud > 0.7:
        raise ValueError("too loud")
    return loud if loud < 0.3 else np.full((1, 1), np.nan)


def slow(x: Any) -> Any:
    time.sleep(0.5)
    return np.abs(x).mean(keepdims=True)


def dozing(x: Any) -> Any:
    """Loudness; it takes its time over what is loud."""
    loud = np.abs(x).mean(keepdims=True)
    time.sleep(0.15 if loud > 0.7 else 0.0)
    return loud


def asleep(x: Any) -> Any:
    """Loudness; it takes longer over what is loud than any machine is held up."""
    loud = np.abs(x).mean(keepdims=True)
    time.sleep(5.0 if loud > 0.7 else 0.0)
    return loud


def away(x: Any) -> Any:
    """It looks for a file whose name is no UTF-8."""
    raise ValueError("cannot read caf\udce9.npy")


def endless(x: Any) -> Any:
    """Loudness; it never comes back from what is loud."""
    loud = np.abs(x).mean(keepdims=True)
    if loud > 0.7:
        threading.Event().wait()
    return loud


def pair(x: Any) -> Any:
    """Two probabilities."""
    return np.array([[0.5, 0.5]])


def decide(bright: Any, loud: Any) -> Any:
    """Probabilities of dark and bright, unless it is loud; which of the two sides is brighter."""
    scene = np.array([[1.002 + float(loud[0, 0] > 0.7), 0.0]]) if loud > 0.3 else np.array([[1 - bright, bright]])
    return {"scene": scene.reshape(1, 2), "same": bright}


def tiny(path: Path, rule: str, *, mode: str = "sync", **changes: Any) -> Path:
    limit_ms = {"ear": 60_000, "asleep": 1000}.get(rule, 50)  # a busy machine may take long over what takes no time
    ear = {**MANIFEST["stages"]["ear"], "callable": f"{HERE}:{rule}", "timeout_ms": limit_ms, "mode": mode}
    return tiny_bundle(path, stages={**MANIFEST["stages"], "ear": ear}, **changes)


def clip_of(write_clip: Any) -> Path:
    """Quiet, middling, loud, quiet; 0.8 s each."""
    levels = np.repeat([0.1, 0.5, 0.9, 0.1], 8 * RATE // 10)
    sound = levels * np.sign(np.sin(np.arange(levels.size) * 0.7))
    return write_clip(
        times_s=tuple(0.2 + k / 25 for k in range(75)),
        picture=lambda t: 225 + round(25 * t) % 10,
        sound=sound[None].astype("f"),
    )  # type: ignore[no-any-return]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_run_goes_on_without_what_fails(
    tmp_path: Path, write_clip: Any, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, clip = tiny(tmp_path / "t.mmedge", "ear"), clip_of(write_clip)
    options: Any = {"latency": "offline", "isolation": isolation, "record": tmp_path / "r"}
    with (
        caplog.at_level(logging.WARNING),
        mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), **options) as pipe,
    ):
        results = list(pipe)
        statistics = pipe.statistics
    failed = [r for r in results if "stage 'ear' failed" in (r.reason or "")]
    assert 30 <= len(failed) == statistics.stage_errors["ear"] <= 50
    assert {r.present["audio"] for r in failed} == {False}
    assert {r.status for r in results} == {"ok"}
    assert {r.tasks["scene"].label for r in failed} == {"bright"}  # the picture alone says so
    assert results[-1].present == {"image": True, "audio": True}
    assert any("too loud" in (r.reason or "") for r in failed)
    assert any("not finite" in (r.reason or "") for r in failed)
    if isolation == "thread":
        assert caplog.text.count("only counted") == 1
    with mmedge.load(path) as bundle:
        again = Replay(tmp_path / "r", bundle)
        assert [replayed_line(r) for r in again] == [replayed_line(r) for r in results]
    assert again.differs == 0


def test_a_mask_that_remains_and_was_never_validated_has_no_label(tmp_path: Path, write_clip: Any) -> None:
    masks = [{"present": ["image", "audio"], "metric": "top1", "value": 1.0}]
    path, clip = tiny(tmp_path / "t.mmedge", "ear", validated_masks=masks), clip_of(write_clip)
    with mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), latency="offline") as pipe:
        results = list(pipe)
    failed = [r for r in results if "stage 'ear' failed" in (r.reason or "")]
    assert failed
    assert {(r.status, r.tasks["scene"].label) for r in failed} == {("unvalidated", None)}
    assert pipe.statistics.unvalidated >= len(failed)


def test_policy_skip_drops_the_triggers_at_which_a_stage_fails(tmp_path: Path, write_clip: Any) -> None:
    missing = {"audio": {"policy": "skip"}}
    path, clip = tiny(tmp_path / "t.mmedge", "ear", missing=missing), clip_of(write_clip)
    options: Any = {"latency": "offline", "record": tmp_path / "r"}
    with mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), **options) as pipe:
        results = list(pipe)
    statistics = pipe.statistics
    assert {(r.status, r.present["audio"]) for r in results} == {("ok", True)}
    assert statistics.drops["skipped"] == statistics.stage_errors["ear"] > 30
    assert statistics.unaccounted == 0
    with mmedge.load(path) as bundle:
        again = Replay(tmp_path / "r", bundle)
        assert [replayed_line(r) for r in again] == [replayed_line(r) for r in results]
    assert again.differs == 0
    assert again.statistics.drops["skipped"] == statistics.drops["skipped"]


def test_a_task_whose_stage_has_no_input_has_no_label(tmp_path: Path, write_clip: Any) -> None:
    stage = {"callable": f"{HERE}:pair", "inputs": {"x": "audio"}, "outputs": {"p": ["batch", 2]}}
    task = {**MANIFEST["tasks"]["scene"], "output": "loud.p", "scores": "probabilities", "threshold": 0.0}
    path = tiny_bundle(tmp_path / "t.mmedge", stages={**MANIFEST["stages"], "loud": stage}, tasks={"scene": task})
    with mmedge.Pipeline(path, {"image": str(clip_of(write_clip))}, latency="offline") as pipe:
        assert {(r.status, r.tasks["scene"].label, r.tasks["scene"].score) for r in pipe} == {("ok", None, None)}


@pytest.mark.parametrize("modes", [("sync", "sync"), ("async", "sync"), ("async", "async")])
def test_policy_fail_holds_for_a_stage_that_fails_beside_another(
    tmp_path: Path, write_clip: Any, modes: tuple[str, str]
) -> None:
    stages = dict(MANIFEST["stages"])
    for name, mode in zip(("eye", "ear"), modes, strict=True):
        stages[name] = {**stages[name], "callable": f"{HERE}:away", "mode": mode}
    masks = [{"present": ["image", "audio"], "metric": "top1", "value": 1.0}]
    missing = {"image": {"policy": "hold", "max_age_ms": 300}, "audio": {"policy": "fail"}}
    path = tiny_bundle(tmp_path / "t.mmedge", stages=stages, validated_masks=masks, missing=missing)
    results: list[Any] = []
    inputs = dict.fromkeys(("image", "audio"), str(clip_of(write_clip)))
    with (
        pytest.raises(EngineError, match=r"caf\\udce9") as caught,
        mmedge.Pipeline(path, inputs, latency="offline") as pipe,
    ):
        results += pipe
    assert "stage 'ear'" in (caught.value.where or "")
    assert not results
    assert pipe.statistics.stage_errors == {"eye": 1, "ear": 1}


def test_what_fails_beside_another_is_told_with_it(tmp_path: Path, write_clip: Any) -> None:
    stages = {name: {**stage, "callable": f"{HERE}:away"} for name, stage in MANIFEST["stages"].items()}
    stages["join"] = MANIFEST["stages"]["join"]
    masks = [{"present": ["image", "audio"], "metric": "top1", "value": 1.0}]
    path = tiny_bundle(tmp_path / "t.mmedge", stages=stages, validated_masks=masks)
    inputs = dict.fromkeys(("image", "audio"), str(clip_of(write_clip)))
    with mmedge.Pipeline(path, inputs, latency="offline", record=tmp_path / "r") as pipe:
        lines = [replayed_line(result) for result in pipe]
    assert len(lines) == 75
    assert pipe.statistics.stage_errors == {"eye": 75, "ear": 75}
    assert all(b"image: stage 'eye' failed" in line and b"audio: stage 'ear' failed" in line for line in lines)
    with mmedge.load(path) as bundle:
        assert [replayed_line(result) for result in Replay(tmp_path / "r", bundle)] == lines


@pytest.mark.parametrize(("rule", "mode"), [("dozing", "sync"), ("dozing", "async"), ("endless", "async")])
def test_a_callable_that_took_too_long_is_replayed_as_it_was(
    tmp_path: Path, write_clip: Any, rule: str, mode: str
) -> None:
    path, clip = tiny(tmp_path / "t.mmedge", rule, mode=mode), clip_of(write_clip)
    inputs = dict.fromkeys(("image", "audio"), str(clip))
    latency: Any = "offline" if mode == "sync" else "balanced"  # which gives the background its time
    with mmedge.Pipeline(path, inputs, latency=latency, record=tmp_path / "r") as pipe:
        lines = [replayed_line(result) for result in pipe]
        statistics = pipe.statistics
    failed = [line for line in lines if b"stage 'ear' failed: it " in line]
    assert len(failed) == statistics.stage_errors["ear"] > 1
    turns = Recording(tmp_path / "r").turns(media=False)
    told = [event.failed for turn in turns for event in turn.triggers.values() if event.failed]
    assert len(told) == len(failed)
    assert all(len(attempts) == 1 and "return" in attempts[0]["ear"] for attempts in told)
    log = (tmp_path / "r" / "events.jsonl").read_text()
    assert log.count('"failed":') == len(failed)
    with mmedge.load(path) as bundle:
        again = Replay(tmp_path / "r", bundle)
        assert [replayed_line(result) for result in again] == lines
    assert again.differs == 0
    assert again.statistics.stage_errors == statistics.stage_errors
    assert again.statistics.stage_errors["ear"] == len(failed)


def test_a_run_that_ended_since_a_callable_took_too_long_ends_so_again(tmp_path: Path, write_clip: Any) -> None:
    path, clip = tiny(tmp_path / "t.mmedge", "asleep", missing={"audio": {"policy": "fail"}}), clip_of(write_clip)
    lines: list[bytes] = []
    inputs = dict.fromkeys(("image", "audio"), str(clip))
    with (
        pytest.raises(EngineError, match="return within 1000 ms"),
        mmedge.Pipeline(path, inputs, latency="offline", record=tmp_path / "r") as pipe,
    ):
        lines += (replayed_line(result) for result in pipe)
    again: list[bytes] = []
    with mmedge.load(path) as bundle, pytest.raises(EngineError, match="return within 1000 ms"):
        again += (replayed_line(result) for result in Replay(tmp_path / "r", bundle))
    assert again == lines
    assert 10 < len(lines) < 70


def test_another_precision_is_asked_anew_what_failed(tmp_path: Path, write_clip: Any) -> None:
    files = members()
    ear = onnx.load_from_string(files["ear.onnx"])
    ear.graph.node[-1].output[0] = "loud"
    for operator, given, made in (  # no number above 0.7
        ("Sub", "limit loud", "left"),
        ("Sqrt", "left", "root"),
        ("Mul", "root none", "zero"),
        ("Add", "loud zero", "y"),
    ):
        ear.graph.node.append(helper.make_node(operator, given.split(), [made]))
    for name, value in (("limit", 0.7), ("none", 0.0)):
        ear.graph.initializer.append(numpy_helper.from_array(np.array([[value]], np.float32), name))
    files["ear-int8.onnx"] = ear.SerializeToString()
    document = manifest(files)
    for variant in list(document["variants"]):
        file = "ear-int8.onnx" if variant["stage"] == "ear" else variant["file"]
        document["variants"].append({**variant, "precision": "int8", "file": file})
    path = write_archive(tmp_path / "t.mmedge", msgspec.convert(document, Manifest), files)
    inputs = dict.fromkeys(("image", "audio"), str(clip_of(write_clip)))
    with mmedge.Pipeline(path, inputs, latency="offline", precision="int8", record=tmp_path / "r") as pipe:
        failed = sum("stage 'ear' failed" in (result.reason or "") for result in pipe)
    assert 10 < failed < 40
    with mmedge.load(path) as bundle:
        same = Replay(tmp_path / "r", bundle, precision="int8")
        assert sum("stage 'ear' failed" in (result.reason or "") for result in same) == failed
        other = Replay(tmp_path / "r", bundle, precision="fp32")
        assert not any("failed" in (result.reason or "") for result in other)
    assert (same.differs, dict(same.answers)) == (0, {"equal": 75})
    assert (other.differs, other.answers["other"]) == (0, failed)


def deciding(path: Path, policy: str) -> Path:
    join = {"bright": "eye.y", "loud": "ear.y"}
    rule = {"callable": f"{HERE}:decide", "inputs": join, "outputs": MANIFEST["stages"]["join"]["outputs"]}
    alone = {"kind": "verification", "output": "eye.y", "labels": "labels/same.txt"}
    return tiny_bundle(
        path,
        stages={**MANIFEST["stages"], "join": rule},
        tasks={"scene": {**MANIFEST["tasks"]["scene"], "scores": "probabilities"}, "alone": alone},
        missing={"audio": {"policy": policy}},
    )


def test_an_answer_that_means_nothing_is_a_failure_of_its_stage(tmp_path: Path, write_clip: Any) -> None:
    path, clip = deciding(tmp_path / "t.mmedge", "zero"), clip_of(write_clip)
    inputs = dict.fromkeys(("image", "audio"), str(clip))
    with mmedge.Pipeline(path, inputs, latency="offline", record=tmp_path / "r") as pipe:
        results = list(pipe)
    failed = [r for r in results if "stage 'join' failed: probabilities must be 0 to 1, got 0 to" in (r.reason or "")]
    assert 30 <= len(failed) == pipe.statistics.stage_errors["join"] <= 50
    assert {r.status for r in failed} == {"unvalidated"}  # nothing remains that it does not depend on
    assert {r.tasks["scene"].label for r in failed} == {None}
    assert len(results) == 75
    assert results[-1].present == {"image": True, "audio": True}
    with mmedge.load(path) as bundle:
        assert [replayed_line(r) for r in Replay(tmp_path / "r", bundle)] == [replayed_line(r) for r in results]


def test_policy_fail_ends_the_run_at_an_answer_that_means_nothing(tmp_path: Path, write_clip: Any) -> None:
    path, clip = deciding(tmp_path / "t.mmedge", "fail"), clip_of(write_clip)
    results: list[Any] = []
    with (
        pytest.raises(EngineError, match=r"probabilities must be 0 to 1, got 0 to 1\.002") as caught,
        mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), latency="offline") as pipe,
    ):
        results += pipe
    assert caught.value.exit_code == 5
    assert caught.value.where == "stage 'join': tensor 'scene', task 'scene'"
    assert 5 < len(results) < 40


def test_time_that_failed_is_the_stage_s_and_no_overhead(tmp_path: Path, write_clip: Any) -> None:
    masks = [{"present": ["image", "audio"], "metric": "top1", "value": 1.0}]
    path, clip = tiny(tmp_path / "t.mmedge", "dozing", validated_masks=masks), clip_of(write_clip)
    inputs = dict.fromkeys(("image", "audio"), str(clip))
    with mmedge.Pipeline(path, inputs, latency="offline", record=tmp_path / "r") as pipe:
        results = list(pipe)
    events = [event for turn in Recording(tmp_path / "r").turns(media=False) for event in turn.triggers.values()]
    assert [bool(event.failed) for event in events] == ["failed" in (result.reason or "") for result in results]
    late = [r for r in results if "did not return within" in (r.reason or "")]
    assert late
    took_ms = [result.latency_ms for result in late]
    assert min(each["inferred"] for each in took_ms) >= 45
    # Where this machine stands still in between, that is overhead.
    assert np.median([each["overhead"] + each["interpreted"] - each["inferred"] for each in took_ms]) < 0


@pytest.mark.parametrize(("rule", "message"), [("ear", "not finite"), ("slow", "return within 50 ms")])
def test_policy_fail_ends_the_run(tmp_path: Path, write_clip: Any, rule: str, message: str) -> None:
    path, clip = tiny(tmp_path / "t.mmedge", rule, missing={"audio": {"policy": "fail"}}), clip_of(write_clip)
    with (
        pytest.raises(EngineError, match=message) as caught,
        mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), latency="offline") as pipe,
    ):
        list(pipe)
    assert caught.value.exit_code == 5
    assert "stage 'ear'" in (caught.value.where or "")


def test_a_callable_that_blocks_holds_nothing(tmp_path: Path, write_clip: Any) -> None:
    path, clip = tiny(tmp_path / "t.mmedge", "slow"), clip_of(write_clip)
    begin = time.monotonic()
    with mmedge.Pipeline(path, dict.fromkeys(("image", "audio"), str(clip)), latency="offline") as pipe:
        results = list(pipe)
    assert time.monotonic() - begin < 150
    assert len(results) == 75
    assert {r.tasks["scene"].label for r in results[5:]} == {"bright"}
    assert pipe.statistics.stage_errors["ear"] > 60
