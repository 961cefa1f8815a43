"""The shipped impacts bundle answers from clips with known truth, through H.264 and AAC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mmedge

pytestmark = pytest.mark.parallel

ASSETS = Path(mmedge.__file__).parent / "assets" / "impacts"


def answered(results: list[tuple[float, str | None]], truth: dict[str, Any]) -> float:
    """Return the share of impacts whose commonest label, from the click to the end of its memory, is right."""
    right = 0
    for impact in truth["impacts"]:
        told = Counter(
            label for t_s, label in results if 0.1 <= t_s - impact["t_s"] < 0.8 and label not in (None, "none")
        )
        right += bool(told) and told.most_common(1)[0][0] == impact["object"]
    return right / len(truth["impacts"])


def play(clip: Path, seats: tuple[str, ...] = ("image", "audio")) -> list[tuple[float, str | None]]:
    inputs = dict.fromkeys(seats, str(clip))
    with mmedge.Pipeline(ASSETS / "impacts.mmedge", inputs, latency="offline") as pipe:
        results = list(pipe)
    first_ns = results[0].t_ns
    assert pipe.statistics.drops == {}
    return [((r.t_ns - first_ns) / 1e9, r.tasks["object"].label) for r in results]


def test_the_shipped_clip_from_the_command_line() -> None:
    clip = str(ASSETS / "clip.mp4")
    command = [sys.executable, "-m", "mmedge", "run", str(ASSETS / "impacts.mmedge"), "--json", "--latency", "offline"]
    done = subprocess.run(
        [*command, "--image", clip, "--audio", clip], capture_output=True, text=True, timeout=120, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    first_ns = lines[0]["t_ns"]
    results = [((line["t_ns"] - first_ns) / 1e9, line["tasks"]["object"]["label"]) for line in lines]
    assert answered(results, json.loads((ASSETS / "clip.json").read_text())) >= 0.8


def test_a_new_clip(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the data set is part of the toolchain")
    from mmedge.export.datasets.impacts_clip import make_scene, write

    clip = tmp_path / "new.mkv"
    write(clip, make_scene(4711, 7))
    truth = json.loads(clip.with_suffix(".json").read_text())
    assert answered(play(clip), truth) >= 0.8


@pytest.mark.parametrize("seat", ["image", "audio"])
def test_alone_it_abstains(seat: str) -> None:
    labels = {label for _, label in play(ASSETS / "clip.mp4", (seat,))}
    assert labels <= {None, "none"}
