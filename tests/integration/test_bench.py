"""``mmedge bench`` on systems whose speed is known: it says what was asked, what came, and what that did to latency."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

import mmedge
from mmedge.bench.report import Report
from mmedge.cli import run
from mmedge.cli.attest_board import on_board
from mmedge.errors import CheckError, ConfigError, SourceError
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
        if (report := mmedge.bench(path, 2.0)).rate_problem is None:
            break
    assert report.rate_problem is None
    assert report.valid == (not report.problems)
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
    assert 1.0 <= document["conditions"]["warm_up_s"] <= 10.1
    assert report.statistics.triggers > 80  # the warm-up was run, and not measured
    assert set(document["stages_ms"]) == {"eye", "ear", "join"}
    inferred = document["latency_ms"]["steps"]["inferred"]["mean"]
    engines = sum(parts["engine"]["mean"] * parts["engine"]["n"] for parts in document["stages_ms"].values())
    assert engines / 60 == pytest.approx(inferred, rel=0.1)
    assert report.runtime_share is not None
    assert report.runtime_share.p50 > 1
    assert {each["name"] for each in report.processes} >= {"user", "runtime"}
    assert all(each["pss_mib"] > 1 for each in report.processes)
    assert list(report.startup_ms)[-1] == "until settled"
    assert report.startup_ms["engines"] > 0


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
        if slow.rate_problem is None:  # else the machine was busy with something else
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
    with pytest.raises(ConfigError, match="no results after the warm-up"):
        mmedge.bench(tiny_bundle(tmp_path / "t.mmedge"), 2.0, inputs={"image": str(clip)})


def test_a_clip_that_ends_early_is_not_valid(tmp_path: Path, write_clip: Any) -> None:
    clip = write_clip(size=(64, 64), times_s=[k / 25 for k in range(75)])
    bundle = tiny_bundle(tmp_path / "t.mmedge")
    report = mmedge.bench(bundle, 30.0, inputs={"image": str(clip)}, warm_up_s=1.0)
    assert not report.valid
    assert "the sources ended after" in str(report.problem)
    assert 20 < report.tally.answered <= 51
    assert report.rate.measured_s < 3


@pytest.mark.slow
def test_two_bundles_are_measured_in_turn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fast, slow = tiny_bundle(tmp_path / "t.mmedge"), tiny(tmp_path / "slow.mmedge", "steady")
    # Blocks of 5 ms: in longer ones most of the time is waiting for sound.
    options = ["--duration", "1", "--fps", "20", "--warm-up", "1", "--block-ms", "5"]
    run(["bench", str(slow), "--compare", str(fast), *options, "--json"])
    document = json.loads(capfd.readouterr().out)
    assert document["latency_ms"]["end_to_end"]["n"] == 40  # of two runs
    figures = {each["what"]: each for each in document["compare"]["figures"]}
    assert figures["stage ear p50"]["ratio"] > 10
    assert "end_to_end p50" in document["compare"]["regressions"], figures
    assert document["compare"]["gated"]  # though another back end serves that stage: that is what is compared


def test_a_delay_that_is_known_is_told(tmp_path: Path) -> None:
    """Frames are handed over 20 ms after their capture, and a stage takes 20 ms: both are told where they belong."""
    report = mmedge.bench(tiny(tmp_path / "t.mmedge", "steady"), 2.0, fps=10, delay_ms=20)
    found = report.tally.latencies
    assert found["deliver"].values_ms().min() >= 20
    assert report.tally.stages["ear"].engine.values_ms().min() >= STAGE_MS
    assert report.latency_ms["end_to_end"].p50 >= 20 + STAGE_MS
    assert report.conditions["delay_ms"] == 20
    assert report.runtime_share is not None
    assert report.runtime_share.p50 < 1.5  # the delay is no time of the runtime's


def test_a_stage_that_the_trigger_waited_for_is_in_the_trace_and_on_the_page(tmp_path: Path) -> None:
    report = mmedge.bench(tiny(tmp_path / "t.mmedge", "stalling"), 2.0, arrivals="poisson", seed=3)
    document = json.loads(report.save_trace(tmp_path / "trace.json").read_text())
    check_trace(document)
    slices = [e for e in document["traceEvents"] if e["ph"] == "X" and e["name"] == "engine"]
    names = {
        e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name" and e["pid"] == 1
    }
    longest = max(slices, key=lambda e: e["dur"])
    assert names[longest["tid"]] == "stage ear"
    assert longest["dur"] >= 1000 * STALL_MS
    assert sum(e["name"] == "dropped" for e in document["traceEvents"]) == len(report.tally.missed) > 0
    page = report.save(tmp_path / "page.html").read_text()
    assert page.count('class="lost"') == len(report.tally.missed)
    assert "ear: engine" in page
    assert "http" not in page.replace("http-equiv", "")  # it asks for nothing
    assert "<script" not in page
    assert "default-src &" not in page
    assert "nan" not in page


def check_trace(document: dict[str, Any]) -> None:
    """Check what the Trace Event Format asks for, and that the tracks make sense."""
    open_slices: dict[tuple[Any, str], float] = {}
    ends: dict[tuple[int, int], float] = {}
    arrows: dict[Any, float] = {}
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            continue
        assert event["ts"] > 0
        key = (event.get("id2", {}).get("local"), event["name"])
        if event["ph"] == "b":
            assert key not in open_slices
            open_slices[key] = event["ts"]
        elif event["ph"] == "e":
            assert event["ts"] >= open_slices.pop(key)
        elif event["ph"] == "X":
            track = (event["pid"], event["tid"])
            assert event["dur"] >= 0
            assert event["ts"] >= ends.get(track, 0) - 0.002  # slices of a track never overlap
            ends[track] = event["ts"] + event["dur"]
        elif event["ph"] == "s":
            arrows[event["id"]] = event["ts"]
        elif event["ph"] == "f":
            assert event["ts"] >= arrows.pop(event["id"])
        else:
            assert event["ph"] == "i"
            assert event["s"] == "t"
    assert not open_slices
    assert not arrows


def test_one_network_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ZipFile(tiny_bundle(tmp_path / "t.mmedge")) as bundle:
        name = next(name for name in bundle.namelist() if name.endswith(".onnx"))
        (tmp_path / "model.onnx").write_bytes(bundle.read(name))
    path = tmp_path / "model.onnx"
    command = ["bench", str(path), "--duration", "1", "--fps", "100", "--arrivals", "poisson", "--json"]
    run(command)  # valid or not: it depends on what else this machine does
    document = json.loads(capfd.readouterr().out)
    assert document["bundle"] == "model.onnx"
    assert 60 < document["rate"]["due"] < 140
    assert document["latency_ms"]["end_to_end"]["n"] == document["rate"]["due"]
    assert 0 < document["stages_ms"]["network"]["engine"]["p50"] < document["latency_ms"]["end_to_end"]["max"]
    assert run([*command, "--input", "image=0"]) == 2
    assert "this is one network" in capfd.readouterr().out


@pytest.mark.slow
def test_a_sweep_finds_the_knee_of_a_stage_that_takes_20_ms(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny(tmp_path / "t.mmedge", "steady")
    run(["bench", str(path), "--sweep", "20:90", "--duration", "1.5", "--json"])
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "mmedge.bench.sweep/1"
    assert document["missed_hz"] <= 1000 / STAGE_MS * 1.06  # between two rates of the sweep
    assert [point["kept"] for point in document["points"]] == sorted(
        (point["kept"] for point in document["points"]), reverse=True
    )
    assert run(["bench", str(path), "--sweep", "90:20"]) == 2


@pytest.mark.slow
def test_a_baseline_decides_unless_it_is_another_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, saved = tiny_bundle(tmp_path / "t.mmedge"), tmp_path / "base.json"
    command = ["bench", str(path), "--duration", "2"]
    run([*command, "--save", str(saved)])
    capfd.readouterr()
    base = json.loads(saved.read_text())
    base["problem"], base["valid"] = None, True
    for figures in (base["latency_ms"]["end_to_end"],):  # as if it had been ten times as fast
        figures["p50"] /= 10
        figures["interval"]["p50"] = [end / 10 for end in figures["interval"]["p50"]]
    saved.write_text(json.dumps(base))
    compared = [*command, "--compare", str(saved), "--max-regress", "5%", "--json"]
    assert run(compared) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["compare"]["gated"]
    assert "end_to_end p50" in document["compare"]["regressions"], figures
    base["conditions"]["machine"] = "another board"
    saved.write_text(json.dumps(base))
    run(compared)
    document = json.loads(capfd.readouterr().out)
    assert document["compare"]["regressions"] == []
    assert document["compare"]["differences"][0].startswith("machine: ")
    base["schema"] = "mmedge.bench/1"
    saved.write_text(json.dumps(base))
    assert run(compared) == 2
    assert "has the schema 'mmedge.bench/1'" in capfd.readouterr().out


def test_an_attestation_is_written_and_checked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, written = tiny_bundle(tmp_path / "t.mmedge"), tmp_path / "a.json"
    code = run(["attest", str(path), "--duration", "1", "--output", str(written), "--json"])
    printed = capfd.readouterr().out
    document = json.loads(written.read_text())
    assert json.loads(printed) == document
    assert document["valid"] == (code == 0)
    assert document["bench"]["rate"]["due"] == 30
    assert [row["error"] for row in document["golden"]] == [None] * 3
    assert document["compile"]["engines"] == []  # it has no variants for TensorRT, and says so
    assert "no TensorRT variant" in document["compile"]["problem"]
    assert str(tmp_path) not in printed
    assert run(["attest", "--check", str(written)]) == code
    document["bench"]["latency_ms"]["end_to_end"]["p50"] = 0.1
    written.write_text(json.dumps(document))
    assert run(["attest", "--check", str(written)]) == 1
    assert run(["attest"]) == 2


def test_a_soak_that_fails_takes_nothing_of_what_was_measured_before() -> None:
    def soak() -> Report:
        raise SourceError("the camera is gone", where="image", fix="plug it in")

    part, problems = on_board(lambda name: nullcontext(lambda *told: None), {}, 1.0, soak)
    assert problems == ["soak: the camera is gone"]
    assert part["soak"] is None
    assert {"devices", "calibration"} <= set(part)


@pytest.mark.parametrize("option", ["--duration", "--rate-seconds", "--soak", "--probe", "--fps"])
def test_what_an_attestation_cannot_measure_is_refused_first(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["attest", "nowhere.mmedge", "--board", option, "-5"]) == 2
    assert "nowhere" not in capfd.readouterr().err


def test_a_source_that_would_tell_whose_board_it_is_is_refused_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["attest", str(tiny_bundle(tmp_path / "t.mmedge")), "--board", "--output", str(tmp_path / "a.json")]
    assert run([*line, "--input", f"image={Path.home() / 'clip.mp4'}"]) == 2
    assert "a source names the host" in " ".join(capfd.readouterr().err.split())


@pytest.mark.slow
def test_a_board_is_attested_in_one_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, written = tiny_bundle(tmp_path / "t.mmedge"), tmp_path / "a.json"
    line = ["attest", str(path), "--duration", "1", "--output", str(written)]
    assert run([*line, "--soak", "1"]) == 2  # it is of --board
    capfd.readouterr()
    device = "test://?fps=30"
    options = ["--board", "--soak", "1.5", "--probe", "1", "--input", f"image={device}", "--input", f"audio={device}"]
    code = run([*line, *options, "--sweep", "990:1000", "--rate-seconds", "0.3"])
    told = capfd.readouterr().err
    document = json.loads(written.read_text())
    assert document["valid"] == (code == 0)
    board = document["board"]
    (probed,) = [each for each in board["devices"] if each["uri"].startswith("test://")]
    assert {stream["modality"] for stream in probed["streams"]} == {"image", "audio"}
    assert board["calibration"]["pairs"] >= 10  # the simulated camera sees a flash where its microphone hears a beep
    soak = board["soak"]
    assert soak["conditions"]["inputs"] == {"image": device, "audio": device}
    assert soak["conditions"]["duration_s"] == 1.5
    assert all("grown_mib" in process for process in soak["processes"] if process["name"] == "runtime")
    assert board["took_s"] > 3.5
    assert "this machine is no Jetson" in told
    assert told.count("missing") >= 10
    assert told.count("fix:") >= 10
    assert run(["attest", "--check", str(written)]) == code


def test_a_run_writes_its_trace(tmp_path: Path, write_clip: Any) -> None:
    clip = write_clip(size=(64, 64), times_s=[k / 25 for k in range(30)])
    path, written = tiny_bundle(tmp_path / "t.mmedge"), tmp_path / "trace.json"
    lines = tmp_path / "lines.jsonl"
    assert run(["run", str(path), "--image", str(clip), "--sink", f"jsonl:{lines}", "--trace", str(written)]) == 0
    document = json.loads(written.read_text())
    check_trace(document)
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    captures = [event["ts"] for event in document["traceEvents"] if event["name"] == "capture"]
    assert captures == [result["t_ns"] / 1e3 for result in results]
    assert run(["run", str(path), "--image", str(clip), "--trace", str(tmp_path / "nowhere" / "trace.json")]) == 2
