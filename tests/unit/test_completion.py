"""What helps at the command line: completion by the shell, the nearest command, a window or why there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import cv2
import pytest

import mmedge.cli
import mmedge.cli.attest  # imports mmedge.cli.run, a module
from mmedge.cli import COMMANDS, run
from mmedge.cli.window import Window, window_of
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError
from tests.tiny import tiny_bundle

MMEDGE = Path(sys.executable).with_name("mmedge")


def completed(line: str) -> set[str]:
    words = line.split(" ")
    environment = {"_MMEDGE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([MMEDGE], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mmedge re", {"record", "replay"}),
        ("mmedge run --lat", {"--latency"}),
        ("mmedge run --latency ", {"low", "balanced", "offline"}),
        ("mmedge -v bench --sa", {"--save"}),
    ],
)
def test_a_shell_completes(line: str, expected: set[str]) -> None:
    assert completed(line) == expected


def test_completion_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{MMEDGE} --install-completion; exit $?"],  # the shell that asks is the one that is taught
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    script = 'source "$HOME/.bashrc"; complete -p mmedge; COMP_WORDS=(mmedge ver); COMP_CWORD=1; '
    script += '_mmedge_completion mmedge; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{MMEDGE.parent}:{os.environ['PATH']}"}
    shell = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert shell.stdout.splitlines()[-1] == "verify", shell.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("rnu", "run"), ("recrod", "record"), ("serivce", "service"), ("xyzzy", None)]
)
def test_the_nearest_command_is_named(typed: str, meant: str | None, capfd: Any) -> None:
    assert run([typed]) == 2
    said = capfd.readouterr().err
    assert f"No such command '{typed}'" in said
    assert (f"Did you mean '{meant}'?" in said) == (meant in COMMANDS)


def test_the_nearest_option_is_named(capfd: Any) -> None:
    assert run(["run", "x.mmedge", "--latncy", "low"]) == 2
    assert "--latency" in capfd.readouterr().err


def test_without_a_display_there_is_no_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    assert run(["run", str(bundle), "--image", "0", "--window"]) == DeviceError.exit_code
    assert "there is no display" in capfd.readouterr().err
    monkeypatch.setenv("DISPLAY", ":99")
    if "NONE" in cv2.getBuildInformation().partition("GUI:")[2].partition("\n")[0]:
        with pytest.raises(MissingDependencyError, match="cannot open windows") as caught:
            Window("x", "image")
        assert "opencv-python" in str(caught.value.fix)
    for images in ([], ["left", "right"]):
        with pytest.raises(ConfigError, match="one camera"):
            window_of(images, "x")


def test_no_command_hides_the_function_that_runs_one() -> None:
    assert isinstance(run, FunctionType)
    assert mmedge.cli.run is run
