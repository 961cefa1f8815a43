"""A sealed forecast cannot be changed afterwards, and is scored figure by figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.bench.attestation import seal
from mmedge.cli import run
from mmedge.errors import CheckError, ConfigError
from mmedge.export.forecasts import forecasts
from mmedge.export.run_report import RunReport
from mmedge.forecast import Sources, expect
from mmedge.forecast.seal import digest, read_sealed, scored, sealed
from tests.unit.test_attestation import attestation, write

DIGITS = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with mmedge.load(DIGITS) as bundle:
        gmacs = dict.fromkeys(("image_encoder", "audio_encoder", "text_encoder"), 0.01) | {"fusion": 10.0}
        return sealed([expect(bundle, Sources(gmacs=gmacs), device=name) for name in ("orin-nano", "thor")])


def measured(engine_ms: float, asked_hz: float = 30.0) -> dict[str, Any]:
    stages = ("image_encoder", "audio_encoder", "text_encoder", "fusion", "a stage that a later version has")
    return {
        "rate": {"asked_hz": asked_hz},
        "latency_ms": {
            "end_to_end": {"p50": 9.0, "p99": 11.0, "n": 900},
            "steps": {"inferred": {"p50": 2 * engine_ms}},  # the other two stages run now and then
        },
        "stages_ms": {stage: {"engine": {"p50": engine_ms}} for stage in stages},
    }


def report(path: Path, document: object) -> Path:
    return write(path, {"schema": "mmedge.export/1", "forecast": document})


def test_what_was_changed_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    assert read_sealed(report(tmp_path / "r.json", document)) == document
    changed = json.loads(json.dumps(document))
    changed["forecasts"][0]["end_to_end_ms"] = [0.0, 9.0, 1000.0]
    with pytest.raises(CheckError, match="changed after it was sealed"):
        read_sealed(report(tmp_path / "r.json", changed))


@pytest.mark.parametrize(
    "wrong", [None, {}, [], "x", {"forecasts": [{}], "sha256": "0"}, {"forecasts": 3, "sha256": ""}]
)
def test_what_is_no_forecast_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ConfigError):
        read_sealed(report(tmp_path / "r.json", wrong))
    for text in ("", "[" * 100_000, '{"forecast": {"forecasts": NaN}}'):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ConfigError):
            read_sealed(tmp_path / "r.json")


def test_each_figure_is_scored(document: dict[str, Any]) -> None:
    manifest = document["forecasts"][0]["manifest_sha256"]
    scores = {score.what: score for score in scored(document, "orin-nano", manifest, measured(5.0))}
    # The runtime's own time is not known there: end to end has no upper end, and is not scored.
    assert scores["end to end"].hit is None
    assert scores["engine of fusion"].hit is True
    assert scores["engines of a trigger"].hit is True
    assert len(scores) == 6
    slow = {score.what: score.hit for score in scored(document, "orin-nano", manifest, measured(1e4))}
    assert slow["engine of fusion"] is False


def test_of_another_bundle_board_or_rate_there_is_none(document: dict[str, Any]) -> None:
    manifest = document["forecasts"][0]["manifest_sha256"]
    for device, of, rate in (("orin-nx", manifest, 30.0), ("thor", "0" * 64, 30.0), ("thor", manifest, 60.0)):
        with pytest.raises(CheckError, match="there is no forecast"):
            scored(document, device, of, measured(1.0, rate))


@pytest.mark.parametrize("rate", [{}, {"asked_hz": 0}, {"asked_hz": "30"}, None])
def test_a_report_that_cannot_be_scored_is_refused(document: dict[str, Any], rate: object) -> None:
    manifest = document["forecasts"][0]["manifest_sha256"]
    for changes in ({"rate": rate}, {"stages_ms": [1]}, {"latency_ms": {"end_to_end": {"p50": None}, "steps": {}}}):
        with pytest.raises(ConfigError, match="cannot be scored"):
            scored(document, "orin-nano", manifest, {**measured(1.0), **changes})


def test_an_attestation_is_scored_by_the_command(
    tmp_path: Path, document: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = document["forecasts"][0]["manifest_sha256"]
    plain = attestation()
    bench = {**plain["bench"], **measured(5.0)}
    sent = write(
        tmp_path / "a.json", seal({**plain, "bundle": {"name": "digits", "manifest_sha256": manifest}, "bench": bench})
    )
    said = report(tmp_path / "r.json", document)
    assert run(["attest", "--check", str(sent), "--forecast", str(said)]) == 0
    told = " ".join(capfd.readouterr().err.split())
    assert "within: engine of fusion 5 ms, forecast" in told
    assert "5 of 5 figures within their intervals" in told
    assert run(["attest", "--check", str(sent), "--forecast", str(said), "--json"]) == 0
    assert [score["within"] for score in json.loads(capfd.readouterr().out)["scores"]] == [None, *[True] * 5]
    assert run(["attest", "--forecast", str(said)]) == 2
    host = {**bench, "conditions": {**bench["conditions"], "machine": "AMD EPYC"}}
    other = write(
        tmp_path / "b.json", seal({**plain, "bundle": {"name": "digits", "manifest_sha256": manifest}, "bench": host})
    )
    assert run(["attest", "--check", str(other), "--forecast", str(said)]) == 1
    assert digest(document) == document["sha256"]


def test_an_export_says_it_before_anybody_runs_the_bundle(tmp_path: Path) -> None:
    made = RunReport(folder=tmp_path, name="digits", path=DIGITS, forecasts=forecasts(DIGITS))
    page, data = made.save(tmp_path / "digits.html")
    found = read_sealed(data)
    assert [each["device"] for each in found["forecasts"]] == ["orin-nano", "orin-nx", "agx-orin", "thor"]
    assert found["forecasts"][0]["engines_ms"][2] > 0
    assert found["forecasts"][0]["unknown"] == ["the runtime, tensors included"]
    assert "expected, not run" in page.read_text()
