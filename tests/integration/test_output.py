"""What is printed: documents on stdout and nothing else, whoever prints; no message of others steers the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmedge.cli import run
from mmedge.cli.output import printable
from tests.tiny import imu_bundle, tiny_bundle

pytestmark = pytest.mark.parallel

RULE = """
import atexit, os, subprocess, sys
import numpy as np

stdout = sys.stdout
print("imported")
atexit.register(print, "at the end")

def talks(**inputs):
    print("printed")
    stdout.write("written\\n")
    os.write(1, b"raw\\n")
    subprocess.run(["echo", "a child"], check=True)
    return np.zeros((1, 1), np.float32)

def steers(**inputs):
    raise ValueError("\\x1b[2J\\x1b[31mred\\r\\nline\\x9b2")
"""
SAID = ("imported", "printed", "written", "raw", "a child", "at the end")


@pytest.fixture
def rule(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "talking_rule.py").write_text(RULE)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


ALLOW = ("--allow-callable", "talking_rule")


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mmedge", *map(str, arguments)]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **options)


def bundle(tmp_path: Path, name: str) -> Path:
    return imu_bundle(tmp_path / f"{name}.mmedge", rule=f"talking_rule:{name}")


def test_what_a_rule_prints_is_not_in_the_stream(tmp_path: Path, write_clip: Any, rule: dict[str, str]) -> None:
    talks, recording = bundle(tmp_path, "talks"), tmp_path / "recording"
    arguments = (talks, "--image", write_clip(size=(64, 64)), "--latency", "offline", "--record", recording, *ALLOW)
    live = command("run", *arguments, "--json", env=rule, stdout=subprocess.PIPE)
    again = command("replay", recording, talks, "--json", *ALLOW, env=rule, stdout=subprocess.PIPE)
    for done in (live, again):
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert [result["schema"] for result in results] == ["mmedge.result/1"] * 25
        for said in SAID:
            assert said in done.stderr


def test_what_a_module_prints_is_not_in_the_document(tmp_path: Path, rule: dict[str, str]) -> None:
    talks = bundle(tmp_path, "talks")
    done = command("verify", talks, "--json", *ALLOW, env=rule, stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["ok"]
    plain = command("verify", talks, *ALLOW, env=rule, stdout=subprocess.PIPE)
    assert plain.returncode == 0
    # It is imported in the process that tests, whose output is kept for the case that it dies.
    assert "imported" not in done.stderr + plain.stdout + plain.stderr


def test_a_sink_of_stdout_is_the_same_stream(tmp_path: Path, write_clip: Any, rule: dict[str, str]) -> None:
    arguments = (
        bundle(tmp_path, "talks"),
        "--image",
        write_clip(size=(64, 64)),
        "--latency",
        "offline",
        "--json",
        *ALLOW,
    )
    done = command("run", *arguments, "--sink", "jsonl:-", "--sink", "console", env=rule, stdout=subprocess.PIPE)
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok"] * 50
    changes = command("run", *arguments, "--sink", "jsonl:-?on=change", env=rule, stdout=subprocess.PIPE)
    assert len(changes.stdout.splitlines()) > 25
    assert "mmedge.result/1" not in changes.stderr


@pytest.mark.parametrize("file", ["/dev/full", None])
def test_a_stream_that_cannot_be_written_is_an_error(tmp_path: Path, file: str | None) -> None:
    arguments = ("verify", tiny_bundle(tmp_path / "tiny.mmedge"), "--json")
    if file is None:
        done = command(*arguments, preexec_fn=lambda: os.close(1))
    else:
        with Path(file).open("w") as full:
            done = command(*arguments, stdout=full)
    assert done.returncode == (2 if file is None else 5)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["schema"] == "mmedge.error/1"


def test_in_one_process_everything_is_given_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, before = tiny_bundle(tmp_path / "tiny.mmedge"), sys.stdout
    for _ in range(2):
        assert run(["verify", str(path), "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["schema"] == "mmedge.verify/1"
        assert run(["verify", str(tmp_path / "none.mmedge"), "--json"]) == 4
        assert json.loads(capfd.readouterr().out)["schema"] == "mmedge.error/1"
        assert sys.stdout is before
        os.write(1, b"raw, ")
        sys.stdout.write("written")
        assert capfd.readouterr().out == "raw, written"


def test_stdout_may_be_any_stream_of_python(tmp_path: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stream):
        assert run(["verify", str(tiny_bundle(tmp_path / "tiny.mmedge")), "--json"]) == 0
    assert json.loads(stream.buffer.getvalue())["schema"] == "mmedge.verify/1"  # type: ignore[attr-defined]


def test_no_message_steers_the_terminal(tmp_path: Path, write_clip: Any, rule: dict[str, str]) -> None:
    steers = bundle(tmp_path, "steers")
    clip = write_clip(size=(64, 64))
    done = command("run", steers, "--image", clip, "--latency", "offline", *ALLOW, env=rule, stdout=subprocess.PIPE)
    assert "ValueError: \\x1b[2J\\x1b[31mred\\x0d\nline\\x9b2 (line" in done.stderr
    failing = imu_bundle(tmp_path / "fail.mmedge", rule="talking_rule:steers", policy="fail")
    ended = command("run", failing, "--image", clip, "--latency", "offline", *ALLOW, env=rule, stdout=subprocess.PIPE)
    assert ended.returncode == 5
    assert "error: ValueError: \\x1b[2J" in ended.stderr
    for text in (done.stderr, ended.stderr, done.stdout):
        assert not set(text) & {chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))}


def test_what_is_printable() -> None:
    assert printable("tab\t, break\n, ü, ✓, 😀") == "tab\t, break\n, ü, ✓, 😀"
    assert printable("\0\a\b\r\x1b[1m\x7f\x85\x9b") == "\\x00\\x07\\x08\\x0d\\x1b[1m\\x7f\\x85\\x9b"
