"""Stages that fail in a run: the run goes on without their inputs where the bundle says so, and stops where not."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import EngineError
from mmedge.pipeline.replay import Replay
from tests.tiny import MANIFEST, tiny_bundle

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
    return x


def tiny(path: Path, rule: str, **changes: Any) -> Path:
    stages = {
        **MANIFEST["stages"],
        "ear": {**MANIFEST["stages"]["ear"], "callable": f"{HERE}:{rule}", "timeout_ms": 50},
    }
    return tiny_bundle(path, stages=stages, **changes)


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
        assert [r.to_json() for r in again] == [r.to_json() for r in results]
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


@pytest.mark.parametrize(("rule", "message"), [("ear", "not finite"), ("slow", "longer than 50 ms")])
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
    assert time.monotonic() - begin < 15
    assert len(results) == 75
    assert {r.tasks["scene"].label for r in results[5:]} == {"bright"}
    assert pipe.statistics.stage_errors["ear"] > 60
