"""``mmedge bench`` refuses what it could not do before it measures anything."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmedge.bench import Report, bench
from mmedge.bench.compare import read_baseline
from mmedge.bench.network import bench_network
from mmedge.bench.report import SCHEMA, Rate
from mmedge.bench.samples import Samples
from mmedge.bench.tally import Tally
from mmedge.cli import run
from mmedge.errors import CheckError, ConfigError
from mmedge.pipeline import Statistics
from tests.tiny import tiny_bundle


def report_of(rate: Rate) -> Report:
    return Report(bundle="b", conditions={}, statistics=Statistics(), tally=Tally(), rate=rate)


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
    assert document["fix"] == "use the suffix .html or .json"
    assert not (tmp_path / name).exists()


def test_a_report_is_written_as_what_its_name_says(tmp_path: Path) -> None:
    report = report_of(Rate(asked_hz=100.0, measured_s=1.0, due=100, answered=97))
    document = json.loads(report.save(tmp_path / "x.json").read_text())
    assert document["schema"] == "mmedge.bench/2"
    assert document["valid"] is False
    assert document["rate"]["achieved_hz"] == 97.0
    page = report.save(tmp_path / "x.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "NOT VALID: 97 of 100 triggers were answered" in page
    assert "nan" not in page
    with pytest.raises(ConfigError, match=r"cannot be written as '\.pdf'"):
        report.save(tmp_path / "x.pdf")
    assert not (tmp_path / "x.pdf").exists()


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan")])
def test_a_duration_of_nothing_is_told_so(tmp_path: Path, duration_s: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0") as caught:
        bench(tiny_bundle(tmp_path / "tiny.mmedge"), duration_s)
    assert caught.value.where == "duration_s"


def test_frames_that_never_come_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0 frames a second: it must be 0\.001 to 1000"):
        bench(tiny_bundle(tmp_path / "tiny.mmedge"), 1.0, fps=0)


def test_blocks_that_cannot_be_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"block_ms must be 1 to 1000, got 0"):
        bench(tiny_bundle(tmp_path / "tiny.mmedge"), 1.0, block_ms=0)


def test_a_run_that_missed_its_rate_is_refused() -> None:
    report_of(Rate(asked_hz=100.0, measured_s=1.0, due=100, answered=98)).raise_for_status()
    missed = report_of(Rate(asked_hz=100.0, measured_s=1.0, due=100, answered=97))
    with pytest.raises(CheckError, match=r"97 of 100 triggers were answered, 97\.0 a second of 100 asked") as told:
        missed.raise_for_status()
    assert "--fps" in str(told.value.fix)
    blocks = report_of(Rate(asked_hz=200.0, measured_s=1.0, due=200, answered=100, block_ms=9.8))
    with pytest.raises(CheckError) as told:
        blocks.raise_for_status()
    assert "--fps 102" in str(told.value.fix)
    assert "--block-ms 2.5" in str(told.value.fix)
    sources = report_of(Rate(asked_hz=None, measured_s=1.0, due=30, answered=20))
    with pytest.raises(CheckError) as told:
        sources.raise_for_status()
    assert "--fps" not in str(told.value.fix)


def test_a_generator_that_was_late_measured_itself() -> None:
    def of(late: int) -> Report:
        lateness = Samples()
        for number in range(100):
            lateness.add(12_000_000 if number < late else 200_000)
        rate = Rate(asked_hz=30.0, measured_s=1.0, due=30, answered=30, lateness=lateness, late_ns=10_000_000)
        return report_of(rate)

    assert of(2).valid
    with pytest.raises(CheckError, match=r"the generator itself was late: more than 2 % of its packets by over 10 ms"):
        of(3).raise_for_status()


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"duration_s": 0.0}, "duration_s"),
        ({"duration_s": float("inf")}, "duration_s"),
        ({"fps": 0.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": 1e-300}, "fps"),
        ({"seed": -1}, "seed"),
        ({"warm_up_s": 0.0}, "warm_up_s"),
    ],
)
def test_what_cannot_be_measured_is_told_of_bundle_and_network_alike(
    options: dict[str, Any], where: str, tmp_path: Path
) -> None:
    for measure, path in ((bench, tiny_bundle(tmp_path / "t.mmedge")), (bench_network, tmp_path / "model.onnx")):
        with pytest.raises(ConfigError) as caught:
            measure(path, **options)  # type: ignore[operator]
        assert caught.value.where == where


def test_what_is_of_generated_data_is_refused_with_sources(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "t.mmedge")
    for name, value in (("arrivals", "poisson"), ("delay_ms", 5.0)):
        with pytest.raises(ConfigError, match=f"{name} is of generated data"):
            bench(path, 1.0, inputs={"image": "test://"}, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="delay_ms must be 0 to 10000"):
        bench(path, 1.0, delay_ms=-1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-regress", "much"], "'much' is not a share"),
        (["--sweep", "10"], "'10' is not a range of rates"),
        (["--sweep", "10:20", "--trace", "x.json"], "a sweep has no trace"),
        (["--threads", "2"], "--threads is of single networks"),
        (["--compare", "nowhere.json"], "cannot read the baseline"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(tiny_bundle(tmp_path / "t.mmedge")), "--json", *options]) == 2
    assert told in json.loads(capfd.readouterr().out)["message"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"schema": "mmedge.bench/2"}', '{"schema": 1}', "[" * 100_000, "\xff"]
)
def test_a_damaged_baseline_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="the baseline"):
        read_baseline(tmp_path / "base.json")


def baseline(p50: float = 5.0, interval: dict[str, list[float | None]] | None = None, **changes: object) -> str:
    figures = {"p50": p50, "interval": {"p50": [4.9, 5.1]} if interval is None else interval}
    latencies = {"end_to_end": figures, "steps": {}}
    document = {"schema": SCHEMA, "latency_ms": latencies, "stages_ms": {}, "conditions": {}, "valid": True}
    return json.dumps({**document, "problem": None, **changes})


@pytest.mark.parametrize(
    "content",
    [
        baseline(float("nan")),
        baseline(float("inf")),
        baseline(-5.0),
        baseline(interval={}),  # a gate that compares nothing would let everything pass
        baseline(interval={"p50": [0.0, float("inf")]}),
        baseline(valid=False),
        baseline(problem="contended"),
    ],
)
def test_a_baseline_that_makes_everything_look_good_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(baseline())
    read_baseline(path)
    path.write_text(content)
    with pytest.raises(ConfigError, match="the baseline"):
        read_baseline(path)


@pytest.mark.parametrize("command", [["bench"], ["bench", "--sweep", "10:20"], ["attest"]])
def test_a_measurement_of_no_time_is_refused_by_the_command(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = str(tiny_bundle(tmp_path / "t.mmedge"))
    assert run([command[0], bundle, "--duration", "0", *command[1:]]) == 2
    assert run([command[0], bundle, "--duration", "nan", *command[1:]]) == 2
    assert not (tmp_path / "attestation.json").exists()
