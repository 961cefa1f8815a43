"""A detector from the command line: boxes in result lines, in what people read, in a drawing, in a replay."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

import mmedge
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.cli import run
from mmedge.errors import ConfigError
from mmedge.sinks.console import _table
from mmedge.types import Box, Description, Result, TaskResult
from tests import tiny

pytestmark = pytest.mark.parallel

LEFT, TOP = (4.0 * axis.reshape(-1) for axis in np.meshgrid(np.arange(4), np.arange(4)))
CELLS = np.stack([LEFT + 2, TOP + 2, np.full(16, 4.0), np.full(16, 4.0)]).astype(np.float32)


def network() -> bytes:
    """16 cells of 4x4 pixels: each is a box whose score is its brightness, as a YOLO network tells it."""
    return tiny._model(
        [
            helper.make_node("AveragePool", ["images"], ["mean"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Reshape", ["mean", "flat"], ["scores"]),
            helper.make_node("Concat", ["cells", "scores"], ["output0"], axis=1),
        ],
        {"images": [1, 1, 16, 16]},
        {"output0": [1, 5, 16]},
        flat=np.array([1, 1, 16], np.int64),
        cells=CELLS[None],
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


def make_bundle(tmp_path: Path, **rule: Any) -> Path:
    # A white picture of 4:3 fills rows 2 to 14 of the 16: the outer cells are half covered.
    scores = np.repeat(np.float32([0.5, 1.0, 1.0, 0.5]), 4)
    want = np.concatenate([CELLS, scores[None]])
    white = np.full((1, 1, 48, 64, 1), 255, np.uint8)
    files = {
        "net.onnx": network(),
        "golden/net.npz": tiny._npz(in__images=white, out__output0=want[None, None]),
        "labels/bright.txt": b"bright\n",
    }
    changes = {
        "inputs": {
            "camera": {
                "modality": "image",
                "size": [16, 16],
                "color": "gray",
                "fit": "letterbox",
                "mean": [0.0],
                "std": [1.0],
                "frame": [48, 64],
            }
        },
        "stages": {
            "net": {"inputs": {"images": "camera"}, "outputs": {"output0": ["batch", 5, 16]}, "on": "camera", **rule}
        },
        "tasks": {
            "bright": {
                "kind": "detection",
                "output": "net.output0",
                "labels": "labels/bright.txt",
                "threshold": 0.4,
                "detection": {"layout": "yolo", "input": "camera"},
            }
        },
        "variants": [
            {
                "stage": "net",
                "target": "cpu",
                "precision": "fp32",
                "file": "net.onnx",
                "golden": "golden/net.npz",
                "tolerance": {},
            }
        ],
        "missing": {"camera": {"policy": "zero"}},
        "validated_masks": [],
        "sync": {"trigger": "camera"},
    }
    manifest = msgspec.convert({**tiny.manifest(files), **changes}, Manifest)
    return write_archive(tmp_path / "bright.mmedge", manifest, files)


@pytest.fixture
def clip(write_clip: Any) -> Path:
    """A second of black, then of white."""
    path: Path = write_clip(times_s=[k / 25 for k in range(50)], picture=lambda t: 16 if t < 1 else 235)
    return path


def play(bundle: Path, clip: Path, *options: object) -> int:
    return run(["run", str(bundle), "--image", str(clip), "--latency", "offline", *map(str, options)])


def test_boxes_are_in_the_result_lines_and_come_back_in_a_replay(
    bundle: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert play(bundle, clip, "--json", "--record", tmp_path / "tape") == 0
    lines = [json.loads(line)["tasks"]["bright"] for line in capfd.readouterr().out.splitlines()]
    assert lines[:25] == [{"label": None, "score": None}] * 25
    for task in lines[25:]:
        assert (task["label"], task["score"]) == ("bright", 1.0)
        assert len(task["boxes"]) == 16
        assert [box["score"] for box in task["boxes"]] == [1.0] * 8 + [0.5] * 8
        area = sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in task["boxes"])
        assert area == pytest.approx(1.0, abs=1e-4)
    assert run(["replay", str(tmp_path / "tape"), str(bundle), "--json"]) == 0
    replayed = [json.loads(line)["tasks"]["bright"] for line in capfd.readouterr().out.splitlines()]
    assert replayed == lines


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_boxes_are_of_the_picture_they_were_found_in_when_the_camera_changes(tmp_path: Path, mode: str) -> None:
    """White pictures of many shapes: the cells that are filled cover the picture, and each is mapped as it was seen."""
    shapes = [((48, 64), (1, 1), 0), ((64, 48), (1, 1), 0), ((80, 160), (1, 1), 0), ((48, 64), (1, 1), 90)]
    shapes += [((48, 64), (2, 1), 0), ((64, 48), (1, 2), 180), ((160, 90), (16, 9), 270)]
    covered = []
    with mmedge.Pipeline(make_bundle(tmp_path, mode=mode), {"camera": "push://"}, latency="low") as pipe:
        results = iter(pipe)
        for (rows, columns), aspect, rotation in shapes * 3:
            said = Description(pixel_aspect=aspect, rotation=rotation)  # type: ignore[arg-type]
            pipe.push("camera", np.full((rows, columns), 255, np.uint8), time.monotonic_ns(), description=said)
            boxes = next(results).tasks["bright"].boxes
            covered.append(sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in boxes))
            assert {(box.x1 == 0.0, box.x2 == 1.0) for box in boxes} >= {(True, False), (False, True)}
            assert {(box.y1 == 0.0, box.y2 == 1.0) for box in boxes} >= {(True, False), (False, True)}
            if mode == "async":
                time.sleep(0.02)  # the background run ends: the next result shows it, mapped as it was fed
    assert covered == pytest.approx([1.0] * len(covered), abs=1e-3)


@pytest.mark.parametrize("said", [{"rotation": 45}, {"pixel_aspect": (0, 1)}, {"matrix": "ycgco"}, None])
def test_a_push_with_a_description_that_cannot_be_is_refused(bundle: Path, said: Any) -> None:
    description = 7 if said is None else Description(**said)
    picture = np.zeros((48, 64), np.uint8)
    with (
        mmedge.Pipeline(bundle, {"camera": "push://"}) as pipe,
        pytest.raises(ConfigError, match="description"),
    ):
        pipe.push("camera", picture, time.monotonic_ns(), description=description)  # type: ignore[arg-type]


def test_a_phones_clip_is_seen_upright_live_recorded_and_replayed(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The upper half is white as it is shown; it is stored on its side, with pixels that are not square."""
    pictures = pytest.importorskip("benchmarks.media_pictures")
    shape = pictures.Shape(48, 48, (4, 3), rotation=90)  # shown 48 pixels wide, 64 high
    upright = np.zeros((48, 48), np.uint8)
    upright[:24] = 255
    pictures.write_shape(tmp_path / "phone.mp4", shape, np.ascontiguousarray(np.rot90(upright)))
    assert play(bundle, tmp_path / "phone.mp4", "--json", "--record", tmp_path / "tape") == 0
    lines = [json.loads(line)["tasks"]["bright"] for line in capfd.readouterr().out.splitlines()]
    boxes = lines[0]["boxes"]
    assert {(box["y1"], box["y2"]) for box in boxes} == {(0.0, 0.25), (0.25, 0.5)}
    assert sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in boxes) == pytest.approx(0.5, abs=1e-3)
    assert run(["replay", str(tmp_path / "tape"), str(bundle), "--json"]) == 0
    assert [json.loads(line)["tasks"]["bright"] for line in capfd.readouterr().out.splitlines()] == lines


def test_people_see_boxes_when_they_change(bundle: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert play(bundle, clip) == 0
    dark, bright = capfd.readouterr().out.splitlines()
    assert "bright -" in dark
    assert "bright bright 1.00 (x 0..25 %, y 17..50 %), bright 1.00 (x 25..50 %, y 17..50 %)" in bright
    assert "and 13 more" in bright


def test_the_live_table_lists_boxes() -> None:
    from rich.console import Console

    boxes = tuple(Box(label=f"[{k}]", score=0.5, x1=0.0, y1=0.0, x2=0.1 * k, y2=0.5) for k in range(1, 11))
    task = TaskResult(label="[1]", score=0.5, boxes=boxes)
    result = Result(
        t_ns=0,
        unix_ns=0,
        status="ok",
        tasks={"things": task},
        present={"camera": True},
        age_ms={},
        skew_ms=0.0,
        uncertainty_ms=0.0,
        latency_ms={},
        epoch={},
    )
    console = Console(width=100, record=True, file=StringIO())
    console.print(_table(result))
    shown = console.export_text()
    assert "[3]  x 0..30 %, y 0..50 %" in shown
    assert "and 2 more" in shown
    assert "[9]" not in shown


def test_inspect_draws_the_graph(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(bundle)]) == 0
    shown = capfd.readouterr().out
    for part in ("╭", "│ camera", "▼", "│ on camera", "-> output0 1x5x16", "║ yolo of camera, iou 0.45"):
        assert part in shown


def test_inspect_knows_the_layout_of_a_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnx

    cells = 8 * 8 + 4 * 4 + 2 * 2
    boxes = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1, 7, cells], np.zeros(7 * cells))
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["level"], keepdims=0),
            helper.make_node("Constant", [], ["boxes"], value=boxes),
            helper.make_node("Add", ["boxes", "level"], ["output0"]),
        ],
        "yolo",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [1, 7, cells])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "yolo.onnx")
    assert run(["inspect", str(tmp_path / "yolo.onnx"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["detector"] == {"layout": "yolo", "classes": 3}
    assert run(["inspect", str(tmp_path / "yolo.onnx")]) == 0
    assert "a detector of the layout 'yolo', 3 classes" in capfd.readouterr().out
