"""``mmedge bench`` on systems whose speed is known: it says what was asked, what came, and what that did to latency."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.cli import run
from mmedge.errors import CheckError, ConfigError
from tests.tiny import MANIFEST, tiny_bundle

HERE = "tests.integration.test_bench"
STAGE_MS, STALL_MS, EVERY = 20, 300, 30
calls = count(1)


def steady(x: Any) -> Any:
    """Loudness, after 20 ms."""
    time.sleep(STAGE_MS / 1e3)
    return np.abs(x).mean(keepdims=True)


def stalling(x: Any) -> Any:
    """Loudness; every 30th time it takes 300 ms."""
    if next(calls) % EVERY == 0:
        time.sleep(STALL_MS / 1e3)
    return np.abs(x).mean(keepdims=True)


def tiny(path: Path, rule: str) -> Path:
    ear = {**MANIFEST["stages"]["ear"], "callable": f"{HERE}:{rule}"}
    return tiny_bundle(path, stages={**MANIFEST["stages"], "ear": ear})


def test_a_rate_that_is_kept_is_valid(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "t.mmedge")
    for _ in range(10):  # on a machine that is busy with something else a run may rightly be invalid
        if (report := mmedge.bench(path, 2.0)).valid:
            break
    assert report.valid, report.problem
    assert report.rate.due == 60
    assert report.conditions["isolation"] == "process"  # as a run on live devices
    found = report.latency_ms
    assert found["end_to_end"].n == 60
    assert found["answered"].n == report.rate.answered
    assert found["end_to_end"].p50 < 30
    # A picture waits for the end of the block in which its instant lies: from nothing to a whole block.
    ready = report.tally.latencies["ready"]
    assert ready.percentile_ms(10) < 6 < ready.percentile_ms(90) < 40
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["latency_ms"]["end_to_end"]["p90"] > 0
    assert document["latency_ms"]["end_to_end"]["p99"] is None  # 60 cannot tell it
    assert document["conditions"]["warm_up_s"] == 1.0
    assert report.statistics.triggers > 80  # the warm-up was run, and not measured


def test_a_rate_that_is_missed_is_invalid_and_never_looks_faster(tmp_path: Path) -> None:
    path = tiny(tmp_path / "t.mmedge", "steady")
    slow, fast = (mmedge.bench(path, 3.0, fps=fps) for fps in (30.0, 100.0))
    assert slow.rate.asked_hz == 30.0
    assert slow.latency_ms["end_to_end"].p50 >= STAGE_MS
    assert fast.rate.due == 300
    assert fast.rate.achieved_hz <= 1000 / STAGE_MS + 1
    assert not fast.valid
    with pytest.raises(CheckError, match=r"of 300 triggers were answered, .* a second of 100 asked") as told:
        fast.raise_for_status()
    assert "--fps" in str(told.value.fix)
    for percent in (50, 90, 99):
        at_30, at_100 = (r.tally.latencies["end_to_end"].percentile_ms(percent) for r in (slow, fast))
        if slow.valid:  # else the machine was busy with something else
            assert at_100 >= at_30


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_stall_shows_in_the_percentiles(tmp_path: Path, isolation: Any) -> None:
    report = mmedge.bench(tiny(tmp_path / "t.mmedge", "stalling"), 3.0, isolation=isolation)
    assert report.conditions["isolation"] == isolation
    assert not report.valid
    # Nine of every thirty-eight triggers fall into a stall, and wait for what is left of it, shed or not.
    assert report.latency_ms["end_to_end"].n == report.rate.due == 90
    assert report.latency_ms["end_to_end"].p90 > 0.4 * STALL_MS
    assert report.latency_ms["end_to_end"].max >= STALL_MS


def test_the_command_prints_and_saves_what_is_invalid_and_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(tiny(tmp_path / "t.mmedge", "steady")), "--duration", "1.5", "--fps", "100"]
    assert run([*command, "--save", str(tmp_path / "r.json"), "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["valid"] is False
    assert "a second of 100 asked" in document["problem"]
    assert json.loads((tmp_path / "r.json").read_text())["rate"] == document["rate"]
    assert run(command) == 1
    told = capfd.readouterr().err
    for part in ("asked 100 a second, achieved", "warm-up", "isolation: process", "the figures are not valid", "fix:"):
        assert part in told
    assert "nan" not in told


def test_sources_of_ones_own_are_read_as_a_run_reads_them(tmp_path: Path) -> None:
    source = "test://?fps=25&width=160&height=64"
    path = tiny_bundle(tmp_path / "t.mmedge")
    report = mmedge.bench(path, 2.0, inputs={"image": source, "audio": source})
    assert report.conditions["isolation"] == "process"
    assert report.rate.asked_hz is None
    assert report.rate.lateness is None
    assert 1 <= report.latency_ms["end_to_end"].n <= 60
    assert "answered" not in report.latency_ms


def test_a_clip_within_the_warm_up_measures_nothing(tmp_path: Path, write_clip: Any) -> None:
    clip = write_clip(size=(64, 64), times_s=[k / 25 for k in range(12)])
    with pytest.raises(ConfigError, match="no results after the warm-up of 1 s"):
        mmedge.bench(tiny_bundle(tmp_path / "t.mmedge"), 2.0, inputs={"image": str(clip)})
