"""Digits shown to a network camera and said to a microphone come out, through real devices on loopback."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mmedge

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


def runs(labels: list[str | None], at_least: int) -> list[str]:
    """Return the labels that stand for a while, in order."""
    found: list[str] = []
    count, last = 0, None
    for label in labels:
        count = count + 1 if label == last else 1
        last = label
        if count == at_least and label not in (None, "none"):
            found.append(str(label))
    return found


def common(a: list[str], b: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        last = row[:]
        for j, y in enumerate(b, 1):
            row[j] = last[j - 1] + 1 if x == y else max(last[j], row[j - 1])
    return row[-1]


@pytest.mark.devices
@pytest.mark.slow
def test_camera_and_microphone(camera: Any, microphone: Any, tmp_path: Path) -> None:
    clip = ASSETS / "clips" / "clean.mp4"
    digits = [str(d) for d in json.loads((ASSETS / "clips" / "truth.json").read_text())["digits"]]
    command = [sys.executable, "-m", "mmedge", "run", str(ASSETS / "digits.mmedge"), "--json"]
    command += ["--image", camera.uri, "--audio", microphone.uri, "--duration", "22"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        time.sleep(2.5)
        camera.send(clip, microphone=microphone)
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, (tmp_path / "log").read_text()
    results = [json.loads(line) for line in out.splitlines()]
    both = [r for r in results if r["present"]["image"] and r["present"]["audio"]]
    # Of 400. The sound server may hold the sender up for a second, after which pictures come a second late for a while.
    assert len(both) >= 150, (len(results), (tmp_path / "log").read_text())
    seen = runs([r["tasks"]["digit"]["label"] for r in both], at_least=8)
    assert common(seen, digits) >= 8, (seen, digits)
    agree = sum(r["tasks"]["agreement"]["label"] == "agree" for r in both)
    assert agree > len(both) / 4
    # A loaded machine delays packets, and the report says so: judge the middle, not the worst.
    assert statistics.median(r["uncertainty_ms"] for r in both) < 100
