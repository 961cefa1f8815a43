"""Running the blocks of a page, one after the other, in a folder that holds what docs/index.md says they name."""

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
from tests.brokers import Broker, Subscriber
from tests.doc_pages import ENDED, GUIDE, ROOT, Block, blocks
from tests.processes import until

ASSETS = Path(mmedge.__file__).parent / "assets"


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return {**kept, "PATH": path, "COLUMNS": "120", "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": str(folder / "state")}


def make_materials(folder: Path) -> None:
    from tests.integration.test_new import clip, detector, level

    shutil.copy(ASSETS / "digits" / "digits.mmedge", folder)
    shutil.copy(ASSETS / "digits" / "clips" / "clean.mp4", folder / "clip.mp4")
    shutil.copy(ASSETS / "impacts" / "impacts.mmedge", folder)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    onnx.save(detector(), folder / "yolo.onnx")
    onnx.save(level(), folder / "level.onnx")
    onnx.save(level(gain=2000), folder / "louder.onnx")
    clip(folder / "lamp.mp4")
    run = "mmedge run digits.mmedge --image clip.mp4 --audio clip.mp4 --duration 1 --record lab1"
    subprocess.run(run.split(), cwd=folder, env=environment(folder), check=True, capture_output=True, timeout=60)


def run_page(page: Path, folder: Path, materials: Path) -> None:
    found = [block for block in blocks(page) if block.kind == "bash" or page in GUIDE]
    if page.stem != "start":  # that page gets its own
        shutil.copytree(materials, folder, dirs_exist_ok=True)
        if any("--record lab1" in block.text for block in found if block.needs is None):
            shutil.rmtree(folder / "lab1")  # so does this one
    for block in found:
        if not block.runs:
            continue
        if "mosquitto" in block.marks:
            _run_with_a_broker(block, folder)
        elif ENDED in block.marks:
            for command in block.commands:
                _run_until_it_serves(command, folder)
        else:
            _run(block, folder)


def _run(block: Block, folder: Path) -> None:
    line = ["bash", "-eu", "-o", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*line, block.text], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=240
    )
    assert done.returncode in block.codes, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def _run_with_a_broker(block: Block, folder: Path) -> None:
    broker = Broker(folder, port=1883)
    broker.start()
    try:
        subscriber = Subscriber(broker.port)
        _run(block, folder)
        assert until(lambda: any(topic.endswith("/event") for topic, *_ in subscriber.messages), 60)
        subscriber.close()
    finally:
        broker.kill()


def _run_until_it_serves(command: str, folder: Path) -> None:
    """Start what serves a page, ask for the page by the printed link, and end it as Ctrl-C does."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment(folder),
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
                    break
            else:
                pytest.fail(f"{command}: no page\n{''.join(told)}")
            with urllib.request.urlopen(link[0], timeout=60) as answer:
                assert b"<canvas" in answer.read()
            os.killpg(served.pid, signal.SIGINT)
            told += served.communicate(timeout=60)[0]
        finally:
            served.kill()
    assert served.returncode in (0, 130), f"{command}\n{''.join(told)}"
