"""``mmedge bench`` refuses what it could not do before it measures anything."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmedge.bench import Report, bench
from mmedge.cli import run
from mmedge.errors import ConfigError
from mmedge.pipeline import Statistics
from tests.tiny import tiny_bundle


@pytest.mark.parametrize("name", ["x.pdf", "report", "x.html.gz", ".json"])
def test_a_report_of_another_kind_is_refused_before_measuring(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(importlib.import_module("mmedge.cli.bench"), "bench", measured)
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    assert run(["bench", str(bundle), "--save", str(tmp_path / name), "--json"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert document["where"] == str(tmp_path / name)
    assert document["fix"] == "end the name in .html or .json"
    assert not (tmp_path / name).exists()


def test_a_report_is_written_as_what_its_name_says(tmp_path: Path) -> None:
    report = Report(bundle="b", conditions={}, statistics=Statistics())
    assert json.loads(report.save(tmp_path / "x.json").read_text())["schema"] == "mmedge.bench/1"
    assert report.save(tmp_path / "x.html").read_text().startswith("<!doctype html>")
    with pytest.raises(ConfigError, match=r"cannot be written as '\.pdf'"):
        report.save(tmp_path / "x.pdf")
    assert not (tmp_path / "x.pdf").exists()


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan")])
def test_a_duration_of_nothing_is_told_so(tmp_path: Path, duration_s: float) -> None:
    with pytest.raises(ConfigError, match="it must be above 0") as caught:
        bench(tiny_bundle(tmp_path / "tiny.mmedge"), duration_s)
    assert caught.value.where == "duration_s"


def test_frames_that_never_come_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 frames a second: it must be above 0 and at most 1000"):
        bench(tiny_bundle(tmp_path / "tiny.mmedge"), 1.0, fps=0)
