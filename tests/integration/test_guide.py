"""Pages run as they stand: commands, and a guide's Python, one after the other, in a folder of the page's own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import onnx
import pytest

import mmedge
from tests.doc_pages import ENDED, GUIDE, PAGES, ROOT, Block, blocks

pytestmark = pytest.mark.parallel

ASSETS = Path(mmedge.__file__).parent / "assets"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return {**kept, "PATH": path, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """Make what docs/index.md says that the commands name."""
    from tests.integration.test_new import clip, detector, level

    folder = tmp_path_factory.mktemp("materials")
    shutil.copy(ASSETS / "digits" / "digits.mmedge", folder)
    shutil.copy(ASSETS / "digits" / "clips" / "clean.mp4", folder / "clip.mp4")
    shutil.copy(ASSETS / "impacts" / "impacts.mmedge", folder)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    onnx.save(detector(), folder / "yolo.onnx")
    onnx.save(level(), folder / "level.onnx")
    onnx.save(level(gain=2000), folder / "louder.onnx")
    clip(folder / "lamp.mp4")
    record = "mmedge record lab1 --image clip.mp4 --audio clip.mp4 --duration 1"
    subprocess.run(record.split(), cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    return folder


def run_block(block: Block, folder: Path, environment: dict[str, str]) -> None:
    line = ["bash", "-eu", "-o", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run([*line, block.text], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode in block.codes, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def run_until_it_serves(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Start what serves a page, ask for the page by the printed link, and end it as Ctrl-C does."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as served:
        assert served.stdout is not None
        told = []
        try:
            for line in served.stdout:  # ends where the command does, and then there is no link
                told.append(line)
                if link := re.search(r"http://\S+", line):
                    with urllib.request.urlopen(link[0], timeout=20) as answer:
                        assert b"<canvas" in answer.read()
                    break
            else:
                pytest.fail(f"{command}: no page\n{''.join(told)}")
            os.killpg(served.pid, signal.SIGINT)
            told += served.communicate(timeout=20)[0]
        finally:
            served.kill()
    assert served.returncode in (0, 130), f"{command}\n{''.join(told)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, materials: Path, environment: dict[str, str]) -> None:
    running = [block for block in blocks(page) if block.runs and (block.kind == "bash" or page in GUIDE)]
    if page.stem != "start":  # that page gets its own
        shutil.copytree(materials, tmp_path, dirs_exist_ok=True)
    if any("--record lab1" in block.text for block in running):
        shutil.rmtree(tmp_path / "lab1")  # so does this one
    for block in running:
        if ENDED in block.marks:
            for command in block.commands:
                run_until_it_serves(command, tmp_path, environment)
        else:
            run_block(block, tmp_path, environment)
