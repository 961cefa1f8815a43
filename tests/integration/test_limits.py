"""Odd names and narrow limits: they work, or are errors with a fix; never a bug, never a traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmedge.errors import InternalError, MmedgeError, internal
from tests.conftest import WriteClip
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

MIB = 1 << 20
ODD = os.fsdecode(b"odd-\xff-\xe4")


def run(*arguments: object, limit: tuple[int, int] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mmedge", *map(str, arguments)]

    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    return subprocess.run(
        line, capture_output=True, text=True, timeout=60, check=False, preexec_fn=narrow, errors="replace", **options
    )


@pytest.mark.parametrize("source", ["test://?fps=30", "clip"])
def test_names_that_are_not_utf_8(tmp_path: Path, write_clip: WriteClip, source: str) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    bundle = tiny_bundle(tmp_path / "tiny.mmedge").rename(folder / "tiny.mmedge")
    clip = write_clip(size=(64, 64)).rename(folder / "clip.nut")
    uri = clip if source == "clip" else source
    done = run(
        *("run", bundle, "--image", uri, "--duration", "3", "--record", folder / "r", "--sink", f"jsonl:{folder}/o")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "o").read_text().splitlines()[0])["schema"] == "mmedge.result/1"
    for command in (("replay", folder / "r", bundle), ("verify", bundle), ("inspect", bundle)):
        again = run(*command, "--json")
        assert again.returncode == 0, again.stderr
        for line in again.stdout.splitlines() if command[0] == "replay" else [again.stdout]:
            json.loads(line)
    absent = run("run", folder / "none.mmedge", "--image", uri, "--json")
    assert (absent.returncode, json.loads(absent.stdout)["message"]) == (4, "bundle not found")


@pytest.mark.parametrize("source", ["test://?fps=30", "clip"])
@pytest.mark.parametrize(
    ("what", "limits"),
    [
        (resource.RLIMIT_NOFILE, (32, 16, 13, 9)),
        (resource.RLIMIT_AS, (1000 * MIB, 500 * MIB, 300 * MIB)),
        (resource.RLIMIT_FSIZE, (10_000,)),
    ],
    ids=["files", "memory", "file size"],
)
def test_narrow_limits(tmp_path: Path, write_clip: WriteClip, source: str, what: int, limits: tuple[int, ...]) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    uri = write_clip(size=(64, 64)) if source == "clip" else source
    for limit in limits:
        done = run("run", bundle, "--image", uri, "--duration", "0.3", "--json", limit=(what, limit))
        assert done.returncode in (0, 3, 5), (limit, done.returncode, done.stderr)
        document = json.loads((done.stdout or done.stderr).splitlines()[-1])
        if done.returncode:
            assert document["exit_code"] == done.returncode
            assert document["fix"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    bundle, gone = tiny_bundle(tmp_path / "tiny.mmedge"), tmp_path / "gone"
    gone.mkdir()
    done = run("run", bundle, "--image", "test://", "--duration", "3", cwd=gone)
    assert done.returncode == 0, done.stderr
    code = f"import os; os.rmdir({str(gone)!r}); import mmedge.cli; mmedge.cli.main()"
    line = [sys.executable, "-c", code, "run", str(bundle), "--image", "test://", "--duration", "3"]
    left = subprocess.run(line, cwd=gone, capture_output=True, text=True, timeout=60, check=False)
    assert left.returncode == 0, left.stderr


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    bundle, out = tiny_bundle(tmp_path / "tiny.mmedge"), tmp_path / "o"
    streams = " ".join(f"{number}>&-" for number in closed)
    line = f"exec {sys.executable} -m mmedge run {bundle} --image test:// --duration 3 --sink jsonl:{out} {streams}"
    assert subprocess.run(["sh", "-c", line], capture_output=True, timeout=60, check=False).returncode == 0
    assert out.read_text().count("\n") > 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(24, "Too many open files"),
        OSError(28, "No space left on device"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_what_has_run_short_is_no_bug(error: Exception) -> None:
    problem = internal(error)
    assert type(problem) is MmedgeError
    assert problem.fix
    assert isinstance(internal(RuntimeError("else")), InternalError)
