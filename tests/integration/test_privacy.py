"""A run sends nothing: it opens no Internet socket, and leaves no file that says whose device it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import need

pytestmark = pytest.mark.parallel

DIGITS = Path(__file__).parents[2] / "mmedge/assets/digits/digits.mmedge"
SETTINGS = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


def clean(tmp_path: Path, **settings: str) -> dict[str, str]:
    """Return an environment without the settings, whose home is empty; where CI is set ONNX Runtime reports nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "CI")}
    return {**kept, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/cache"), **settings}


def said(trace: Path) -> list[str]:
    """Return the calls that concern the Internet; whatever a resolver or a library asks begins with such a socket."""
    return [line for line in trace.read_text().splitlines() if "AF_INET" in line]


def watch(tmp_path: Path, env: dict[str, str], duration_s: int) -> tuple[list[str], list[Path]]:
    """Run the shipped bundle, its runtime and its workers; return their Internet calls and what lies in the home."""
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    line = [sys.executable, "-m", "mmedge", "run", str(DIGITS), "--input", "image=test://?fps=30", "--input"]
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=network",
            "-o",
            trace,
            *line,
            "audio=test://",
            "--duration",
            str(duration_s),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=duration_s + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "socketpair(AF_UNIX" in trace.read_text()  # it does see what is called
    # Which networks have passed their self-test here: empty files, named by hashes of content and versions.
    passed = set((home / "cache" / "mmedge" / "passed").glob("*"))
    assert all(path.stat().st_size == 0 and len(path.name) == 64 for path in passed)
    return said(trace), [path for path in home.rglob("*") if path.is_file() and path not in passed]


@pytest.mark.parametrize("duration_s", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.long])])
def test_a_run_opens_no_internet_socket_and_writes_no_device_id(tmp_path: Path, duration_s: int) -> None:
    need("strace")
    calls, files = watch(tmp_path, clean(tmp_path), duration_s)
    assert calls == []
    assert files == []


@pytest.mark.long
@pytest.mark.slow
def test_what_the_test_above_would_see(tmp_path: Path) -> None:
    """ONNX Runtime as it comes: should it ever cease to report home, the settings may go."""
    need("strace")
    calls, files = watch(tmp_path, clean(tmp_path, ORT_DISABLE_TELEMETRY="0"), 30)
    assert calls or files


@pytest.mark.parametrize(
    "module", ["mmedge", "mmedge.cli", "mmedge.ipc.worker", "mmedge.export", "benchmarks", "tests.conftest"]
)
def test_whoever_comes_first_switches_it_off(tmp_path: Path, module: str) -> None:
    code = (
        f"import os, sys, {module}\n"
        f"assert not {{'onnxruntime', 'huggingface_hub', 'torch'}} & set(sys.modules), 'too late'\n"
        f"print([os.environ.get(name) for name in {SETTINGS}])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean(tmp_path), cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['1', '1', '1']", done.stderr


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    code = "import os, mmedge; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    env = clean(tmp_path, ORT_DISABLE_TELEMETRY="0")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr
