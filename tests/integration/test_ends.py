"""How a run ends, and what its exit code says: nothing answered, stopped, interrupted, its runtime held."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import DeviceError, MmedgeError, SourceError
from tests.processes import alive, asked_by, family, run_until, until
from tests.tiny import imu_bundle, tiny_bundle

pytestmark = pytest.mark.parallel

CAMERA = "test://?width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "mmedge", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# Nothing was answered.


@pytest.mark.parametrize("arguments", [("run", "BUNDLE"), ("record", "FOLDER")])
def test_a_run_to_which_nothing_comes_says_why(bundle: Path, tmp_path: Path, arguments: tuple[str, str]) -> None:
    name, what = arguments
    target = bundle if what == "BUNDLE" else tmp_path / "recording"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        uri = f"udp://127.0.0.1:{free.getsockname()[1]}"
    run = command(name, target, "--image", uri, "--duration", "2.5", "--json")
    out, err = run.communicate(timeout=60)
    document = json.loads(out)
    assert run.returncode == document["exit_code"] == 3, err
    assert document["message"] == "no data arrived"
    assert f"image: {uri}: no packet for" in document["where"]
    assert document["fix"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("how", ["run", "iterate"])
def test_whoever_waits_for_results_that_do_not_come_learns_why(bundle: Path, isolation: Any, how: str) -> None:
    inputs = {"image": "push://", "audio": "push://"}
    with mmedge.Pipeline(bundle, inputs, isolation=isolation, duration_s=0.5) as pipe:
        with pytest.raises(DeviceError, match="no data arrived") as caught:
            list(pipe) if how == "iterate" else pipe.run()
        assert caught.value.where == "image: no packets were pushed; audio: no packets were pushed"
        assert pipe.statistics.results == 0


def test_a_time_without_results_is_told_and_the_run_goes_on(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://"}) as pipe:
        assert pipe.run(0.2).results == 0
        assert "no data arrived" in caplog.text
        assert "image: no packets were pushed" in caplog.text
        pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
        assert until(lambda: pipe.run(0.5).results == 1, 60)


def test_a_run_whose_triggers_were_all_skipped_is_no_success(tmp_path: Path) -> None:
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="tests.entries:wordy", policy="skip")
    with mmedge.Pipeline(bundle, {"image": "push://"}, duration_s=4.0) as pipe:
        for _ in range(3):
            pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
            time.sleep(0.05)
        with pytest.raises(SourceError, match="no results: of 3 triggers 3 skipped") as caught:
            pipe.run()
    assert "3 packets were pushed" in str(caught.value.where)


def test_a_look_at_a_quiet_run_is_no_error(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://"}) as pipe:
        assert list(pipe.results(time.monotonic() + 0.2)) == []
        pipe.close()
        assert pipe.statistics.results == 0


# Stopped, interrupted.


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)], ids=["TERM", "HUP", "INT"]
)
def test_a_stop_is_orderly_and_asked_for(bundle: Path, number: signal.Signals, code: int) -> None:
    run = command("run", bundle, "--image", CAMERA, "--json", preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    assert run.stdout is not None
    run.stdout.readline()
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert all(json.loads(line)["schema"] == "mmedge.result/1" for line in out.splitlines())
    assert "Traceback" not in err
    assert "results of" in err


def test_a_stop_after_the_end_changes_nothing(bundle: Path) -> None:
    """While the summary is printed and the interpreter ends."""
    for delay_ms in (0, 20, 60, 120):
        run = command("run", bundle, "--image", CAMERA, "--duration", "2", "--json")
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stderr.readline()  # the summary's first line: the run is over
        time.sleep(delay_ms / 1000)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        assert "Traceback" not in err


@pytest.mark.parametrize("arguments", ["--help", "doctor", "run"])
def test_ctrl_c_at_any_time_prints_no_traceback(bundle: Path, arguments: str) -> None:
    """From the program's first line on: what Python does before is not ours."""
    line = ["run", str(bundle), "--image", CAMERA] if arguments == "run" else [arguments]
    code = "import os, sys, runpy; sys.argv[0] = '/bin/mmedge'; os.write(2, b'.'); import mmedge.cli; mmedge.cli.main()"
    random.seed(0)
    codes = set()
    for step in range(12):
        run = subprocess.Popen([sys.executable, "-c", code, *line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert run.stderr is not None
        assert run.stderr.read(1) == b"."
        time.sleep(0.004 + (step + random.random()) * 0.3 / 12)
        run.send_signal(signal.SIGINT)
        err = run.communicate(timeout=60)[1].decode()
        # Of a machine that was slow to begin with our first line, the line of this test.
        assert re.findall(r'File "(.*?)"', err) in ([], ["<string>"]), err
        # Killed by it while Python itself ends: a shell calls that 130, too.
        assert run.returncode in (0, 130, -signal.SIGINT), (run.returncode, err)
        codes.add(run.returncode)
    assert 130 in codes


def test_what_ignores_ctrl_c_goes_on_ignoring_it(bundle: Path) -> None:
    """As what a shell starts with & does."""
    run = command(
        "run", bundle, "--image", CAMERA, "--json", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert run.stdout is not None
    for _ in range(2):
        assert json.loads(run.stdout.readline())
        run.send_signal(signal.SIGINT)
    for _ in range(20):
        assert json.loads(run.stdout.readline())
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == 0


# A rule that the end of the run cuts off.

SLOW = """
import time
from pathlib import Path
import numpy as np

calls = 0

def slow(**inputs):
    global calls
    calls += 1
    if calls > 1:
        Path(__file__).with_suffix(".held").touch()
        time.sleep(90)
    return np.zeros((1, 1), np.float32)
"""


@pytest.mark.parametrize("stage", [{}, {"mode": "async"}], ids=["sync", "async"])
@pytest.mark.parametrize("policy", ["zero", "fail"])
@pytest.mark.parametrize("source", ["test://?fps=30", "push://"])
def test_a_rule_that_the_end_cuts_off_has_not_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stage: dict[str, Any],
    policy: str,
    source: str,
) -> None:
    name = f"slow_rule_{len(stage)}_{policy}_{source[:4]}"
    (tmp_path / f"{name}.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule=f"{name}:slow", policy=policy, timeout_ms=60_000, **stage)
    began = time.monotonic()
    with mmedge.Pipeline(bundle, {"image": source}, duration_s=3.0, allow=[name]) as pipe:
        if source == "push://":
            for _ in range(20):
                pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
                time.sleep(0.03)
        results = list(pipe)
    assert time.monotonic() - began < 60  # the rule takes longer
    assert (tmp_path / f"{name}.held").exists()
    assert results
    assert pipe.statistics.stage_errors == {}
    assert pipe.statistics.unaccounted == 0
    assert not [result.reason for result in results if result.reason and "ended" in result.reason]
    assert "was ended" not in caplog.text


# The runtime is held.

LATE = """
from mmedge.pipeline.runtime import Runtime

close = Runtime._close
Runtime._close = lambda *arguments: (time.sleep(6), close(*arguments))[1]
"""


def test_a_runtime_that_is_stopped_is_noticed_and_killed(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        runtime, workers = family(pipe)
        next(iter(pipe))
        os.kill(runtime, signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(MmedgeError, match="has not reported for") as caught:
            list(pipe)
        assert time.monotonic() - before < 60
        assert caught.value.exit_code == 5
        assert "T (stopped)" in str(caught.value.where)
        assert until(lambda: not alive([runtime, *workers]), 60)
        assert pipe.statistics.state == "FAILED"


def test_a_runtime_that_is_stopped_while_it_loads_is_noticed_too(bundle: Path) -> None:
    run = command("run", bundle, "--image", CAMERA, "--json")
    assert until(lambda: bool(asked_by(run.pid)), 60)
    for child in asked_by(run.pid):
        os.kill(child, signal.SIGSTOP)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 5, err
    assert "has not reported for" in json.loads(out)["message"]


def test_a_job_that_is_stopped_as_a_whole_goes_on(bundle: Path) -> None:
    run = command("run", bundle, "--image", CAMERA, "--json", start_new_session=True)
    assert run.stdout is not None
    for _ in range(10):
        run.stdout.readline()
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(6.0)
    os.killpg(run.pid, signal.SIGCONT)
    newest_ns = 0
    deadline = time.monotonic() + 60
    stopped_until_ns = time.monotonic_ns() + 5_000_000_000
    while newest_ns < stopped_until_ns and time.monotonic() < deadline:
        newest_ns = json.loads(run.stdout.readline())["t_ns"]
    run.terminate()
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert newest_ns >= stopped_until_ns


def test_a_runtime_whose_end_takes_long_is_left_in_peace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a recording that a slow disk takes its time to write."""
    (tmp_path / "late_rule.py").write_text(SLOW + LATE)
    monkeypatch.syspath_prepend(tmp_path)
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="late_rule:slow", timeout_ms=60_000)
    with mmedge.Pipeline(bundle, {"image": CAMERA}, duration_s=3.0, allow=["late_rule"]) as pipe:
        before = time.monotonic()
        assert run_until(pipe, 60)
        assert time.monotonic() - before > 5
