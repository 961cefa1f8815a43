"""The guide runs as it stands: commands and Python of a page, one after the other, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import mmedge
from tests.doc_pages import GUIDE, blocks

pytestmark = pytest.mark.parallel

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the pages start from: the shipped bundle and a clip of its own, two networks and a clip for them."""
    from tests.integration.test_new import clip, detector, level

    folder = tmp_path_factory.mktemp("materials")
    shutil.copy(ASSETS / "digits.mmedge", folder)
    shutil.copy(ASSETS / "clips" / "clean.mp4", folder / "clip.mp4")
    onnx.save(detector(), folder / "yolo.onnx")
    onnx.save(level(), folder / "level.onnx")
    clip(folder / "lamp.mp4")
    return folder


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_guide_runs_as_it_stands(page: Path, tmp_path: Path, materials: Path) -> None:
    if page.stem != "start":  # that page gets its own
        shutil.copytree(materials, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    environment = {name: value for name, value in environment.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    for block in blocks(page):
        if not block.runs:
            continue
        line = ["bash", "-eu", "-o", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*line, block.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode in block.codes, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
