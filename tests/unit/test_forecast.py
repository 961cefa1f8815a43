"""A forecast rests on what is known, is as wide as that was wrong, and says what it does not know."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.cli import run
from mmedge.cli.forecast import warn_before
from mmedge.engine.timings import Timed, TimingKey, Timings, keep_timings
from mmedge.errors import ConfigError
from mmedge.forecast import Forecast, Sources, Span, board_named, board_of, expect, known_boards
from mmedge.forecast.boards import known_networks
from mmedge.forecast.hindcast import hindcast
from mmedge.forecast.scale import by_work, from_board, nearest, speed, widened
from mmedge.forecast.span import about, added
from mmedge.forecast.times import read_measured

ROOT = Path(__file__).parents[2]
DIGITS = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
BOARDS = list(known_boards())
NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
STAGES = ("image_encoder", "audio_encoder", "text_encoder", "fusion")


def report(machine: str = NANO, backend: str = "tensorrt", ms: float = 2.0, **changes: Any) -> dict[str, Any]:
    figures = {"p50": ms, "interval": {"p50": [ms * 0.9, ms * 1.1]}}
    return {
        "schema": "mmedge.bench/2",
        "bundle": "digits",
        "evidence": "jetson",
        "valid": True,
        "conditions": {"machine": machine, "backends": dict.fromkeys(STAGES, backend)},
        "stages_ms": {stage: {"engine": figures, "preprocess": figures} for stage in STAGES},
        "latency_ms": {"overhead": {"p50": 0.5, "interval": {"p50": [0.4, 0.6]}}},
        "processes": [{"name": "runtime", "pss_mib": 100.0}, {"name": "user", "pss_mib": 50.0}],
        **changes,
    }


def forecast(tmp_path: Path, *documents: dict[str, Any], machine: str = "", **options: Any) -> Forecast:
    measured = []
    for number, document in enumerate(documents):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        measured.append(read_measured(path, "digits"))
    with mmedge.load(DIGITS) as bundle:
        return expect(bundle, Sources(machine, measured, options.pop("gmacs", {})), **options)


@pytest.fixture(autouse=True)
def _nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))


def test_what_is_known_of_boards_says_where_it_stands() -> None:
    assert all(board.source.startswith("https://") and board.why for board in known_boards().values())
    for network in known_networks():
        assert network.source
        assert set(network.ms) <= set(BOARDS)
        assert all(ms > 0 for ms in network.ms.values())
    assert board_of(NANO) == "orin-nano"
    assert board_of("AMD EPYC") is None
    with pytest.raises(ConfigError, match="orin-nx"):
        board_named("orin")


@given(st.sampled_from(BOARDS), st.sampled_from(BOARDS), st.floats(1e-3, 1e4))
def test_there_and_back_is_the_same_time(one: str, other: str, ms: float) -> None:
    assert speed(one, other) * speed(other, one) == pytest.approx(1)
    there = from_board(ms, one, other).span
    assert there.middle is not None
    assert there.high is not None
    assert there.low < there.middle < there.high
    back = from_board(there.middle, other, one).span
    assert back.middle == pytest.approx(ms)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=60))
def test_nine_in_ten_known_errors_lie_within_the_factor(errors: list[float]) -> None:
    factor, n = widened(errors)
    assert n == len(errors)
    assert sum(abs(error) <= math.log(factor) + 1e-9 for error in errors) >= 0.9 * n


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(1, 3)), max_size=6))
def test_a_sum_of_spans_holds_the_sum_of_what_they_hold(parts: list[tuple[float, float]]) -> None:
    total = added(about(middle, factor) for middle, factor in parts)
    assert total.middle == pytest.approx(sum(middle for middle, _ in parts))
    assert total.low <= (total.middle or 0) + 1e-9
    assert (total.high or 0) >= (total.middle or 0) - 1e-9
    assert added([total, Span(1.0)]).high is None


def test_a_hindcast_knows_nothing_of_its_board() -> None:
    cases = list(hindcast())
    hits = sum(case.hit for case in cases)
    thor = [case for case in cases if case.board == "thor"]
    assert len(cases) >= 60
    # What the pages say of it is what comes out.
    for name in ("docs/forecast.md", "README.md"):
        page = (ROOT / name).read_text()
        assert f"{hits} of {len(cases)}" in page
        assert f"{sum(case.hit for case in thor)} of {len(thor)}" in page
    assert nearest({"orin-nx": 1.0, "thor": 1.0}, "orin-nano") == "orin-nx"


def test_by_work_says_nothing_beyond_what_is_public() -> None:
    inside = by_work(30.0, "fp16", "agx-orin")
    assert inside is not None
    assert inside.span.holds(6.24)  # YOLO26m has 37.7
    assert by_work(1e6, "fp16", "agx-orin") is None
    assert by_work(30.0, "fp8", "agx-orin") is None
    small = by_work(0.01, "fp16", "agx-orin")
    assert small is not None
    assert (small.span.low, small.span.middle) == (0.0, None)


def test_what_was_measured_on_the_board_counts(tmp_path: Path) -> None:
    found = forecast(tmp_path, report(), device="orin-nano", fps=30)
    stages = {step.name: step for step in found.steps if step.kind == "stage"}
    assert stages["fusion"].span == Span(1.8, 2.0, 2.2)
    assert (stages["audio_encoder"].share, stages["text_encoder"].share) == (
        pytest.approx(1 / 3),
        pytest.approx(1 / 30),
    )
    # Waiting for half a block of sound, image encoder, fusion, the runtime: the other stages run now and then.
    assert found.end_to_end.middle == pytest.approx(5 + 2 + 2 + 0.5)
    assert found.engines == Span(3.6, 4.0, 4.4)
    assert found.busy.middle == pytest.approx(2 + 2 / 3 + 2 / 30 + 2 + 0.5)
    assert found.problems == []
    assert found.needed_bytes == 150 * (1 << 20)
    assert found.memory_bytes == 8e9


def test_from_another_board_it_is_scaled_and_said_so(tmp_path: Path) -> None:
    found = forecast(tmp_path, report(), device="thor")
    fusion = next(step for step in found.steps if step.name == "fusion")
    assert "scaled from NVIDIA Jetson Orin Nano" in fusion.how
    assert fusion.span == from_board(2.0, "orin-nano", "thor").span
    # Its processor is another one: the runtime's time is not known there.
    assert found.unknown == ["the runtime, tensors included"]
    assert found.end_to_end.high is None


def test_times_of_a_cpu_say_nothing_of_a_gpu(tmp_path: Path) -> None:
    found = forecast(tmp_path, report("AMD EPYC", "onnxruntime"), machine="AMD EPYC", device="orin-nx")
    assert set(STAGES) < set(found.unknown)
    assert found.to_dict()["binds"] is None
    # Their work alone bounds them.
    known = forecast(tmp_path, device="orin-nx", gmacs=dict.fromkeys(STAGES, 0.01))
    assert known.unknown == ["the runtime, tensors included"]


def test_a_rate_that_cannot_be_held_and_a_memory_that_is_too_small(tmp_path: Path) -> None:
    slow = forecast(tmp_path, report(ms=30.0), device="orin-nano", fps=30)
    assert slow.binds in ("image_encoder", "fusion")
    assert slow.rate_problem is not None
    assert slow.rate_problem.startswith("it cannot hold 30 triggers a second on orin-nano")
    maybe = forecast(tmp_path, report(ms=13.0), device="orin-nano", fps=30)
    assert maybe.rate_problem is not None
    assert "it may not hold" in maybe.rate_problem
    large = forecast(tmp_path, report(processes=[{"name": "runtime", "pss_mib": 9000.0}]), device="orin-nano")
    assert large.memory_problem is not None
    assert "there are 8.00 GB" in large.memory_problem
    assert "desktop" not in large.memory_problem
    tight = forecast(tmp_path, report(processes=[{"name": "runtime", "pss_mib": 7200.0}]), device="orin-nano")
    assert tight.memory_problem is not None
    assert "of which a desktop takes up to 0.86 GB" in tight.memory_problem


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"schema": "mmedge.bench/1"}, "not a report"),
        ([], "not a report"),
        (report(bundle="other"), "is of the bundle 'other'"),
        (report(valid=False), "not valid"),
        (report(stages_ms={"fusion": {"engine": {"p50": "fast"}}}), "cannot be read"),
        (report(stages_ms={"fusion": {"engine": {"p50": -1.0}}}), "lies outside|not a time"),
        (report(stages_ms={"fusion": {"engine": {"p50": 9.0, "interval": {"p50": [1, 2]}}}}), "lies outside"),
        (report(processes=[{"name": "a", "pss_mib": 1e999}]), "not a time or a size"),
        ({"schema": "mmedge.attest/1", "bench": None}, "not a report"),
    ],
)
def test_a_report_of_something_else_is_refused(tmp_path: Path, document: object, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        read_measured(path, "digits")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    for name in ("a.json", "nowhere.json"):
        with pytest.raises(ConfigError):
            read_measured(tmp_path / name, "digits")


@pytest.mark.parametrize("fps", [0, 1e-320, -1, math.nan, math.inf, 1001])
def test_a_rate_that_is_none(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ConfigError, match="fps must be"):
        forecast(tmp_path, fps=fps)


def test_the_command_prints_it_and_refuses_what_is_not_known(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(DIGITS), "--plan", "--device", "orin-nx", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["schema"], document["device"]) == ("mmedge.forecast/1", "orin-nx")
    (tmp_path / "bench.json").write_text(json.dumps(report()))
    for asked in (["--measured", str(tmp_path / "bench.json")], ["--fps", "60"]):
        assert run(["inspect", str(DIGITS), "--plan", *asked, "--json"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert (document["schema"], document["device"]) == ("mmedge.forecast/1", "this machine")
    assert run(["inspect", str(DIGITS), "--plan", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["schema"] == "mmedge.plan/1"
    assert run(["inspect", str(DIGITS), "--plan", "--device", "thor"]) == 0
    assert "docs.ultralytics.com" in capfd.readouterr().out
    for wrong in (
        ["--plan", "--device", "xavier"],
        ["--device", "thor"],
        ["--plan", "--measured", "none.json"],
    ):
        capfd.readouterr()
        assert run(["inspect", str(DIGITS), *wrong]) == 2
        assert capfd.readouterr().out == ""  # what is wrong comes before what is long


def test_a_run_warns_before_it_starts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with mmedge.load(DIGITS) as bundle:
        files = bundle.manifest.files
        forms = {stage: bundle.variants(stage, "cpu") for stage in STAGES}
        warn_before(bundle, 30.0)
        assert capfd.readouterr().err == ""
        for own in forms.values():  # as `mmedge compile` keeps them
            timed = [
                Timed(backend="onnxruntime", version="1", precision=v.precision, file=v.file, sha256=sha, run_ms=40.0)
                for v in own
                if (sha := files[v.file].sha256)
            ]
            key = TimingKey(forms=tuple((form.backend, form.version, form.sha256) for form in timed))
            keep_timings(Timings(key=key, forms=tuple(timed)))
        warn_before(bundle, 30.0)
        assert "warning: it cannot hold 30 triggers a second" in capfd.readouterr().err.replace("\n", " ")
        warn_before(bundle, None)  # of a camera whose rate is not known
        assert capfd.readouterr().err == ""


def test_without_anything_it_says_what_it_does_not_know(tmp_path: Path) -> None:
    found = forecast(tmp_path)
    assert set(STAGES) < set(found.unknown)
    assert (found.end_to_end.high, found.device) == (None, "this machine")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "mmedge.forecast/1"
