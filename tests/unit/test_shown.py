"""Frames as they are shown against the numpy oracle, and results drawn on them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import mmedge
from mmedge.bundle.manifest import ImageInput
from mmedge.drawing import draw
from mmedge.errors import ConfigError, FrameExpiredError
from mmedge.preprocess import reference
from mmedge.types import Box, ByteArray, Frame, Result, TaskResult
from tests.conftest import WriteClip
from tests.tiny import tiny_bundle
from tests.unit.test_image import frames, make_frame

SEAT = ImageInput(size=(9, 9), color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, frame=(40, 60))
NASTY = ["<script>alert(1)</script>", "a\x1b[31m\r\n\t", "Tür мир 世界 مرحبا", "\u202e\ud800", "x" * 5000, ""]


def box(**changes: Any) -> Box:
    return Box(**{"label": "cup", "score": 0.75, "x1": 0.25, "y1": 0.25, "x2": 0.75, "y2": 0.75, **changes})


def result(*boxes: Box, **changes: Any) -> Result:
    tasks = {"see": TaskResult(label=boxes[0].label, score=boxes[0].score, boxes=boxes)} if boxes else {}
    plain: dict[str, Any] = {"age_ms": {}, "latency_ms": {}, "epoch": {}}
    given = {"tasks": tasks, "present": {"image": True}, "status": "ok", "skew_ms": 0.0, "uncertainty_ms": 0.0}
    return Result(t_ns=1, unix_ns=1, **{**plain, **given, **changes})


@given(frames(SEAT))
@settings(max_examples=200)
def test_a_frame_is_shown_as_the_oracle_says(frame: Frame) -> None:
    expected = reference.upright(reference.pixels(frame, "rgb"), frame)
    assert np.array_equal(frame.to_rgb(), expected)
    assert np.array_equal(frame.to_bgr(), expected[..., ::-1])


def test_what_is_shown_is_a_copy() -> None:
    frame = make_frame("rgb24", 4, 6)
    frame.to_rgb()[...] = 7
    assert np.array_equal(frame.to_rgb(), frame.data)


@pytest.mark.parametrize("changes", [{"height": 5}, {"width": 0}, {"data": np.zeros((4, 6, 3), np.float32)}])
def test_a_frame_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(make_frame("rgb24", 4, 6), **changes).to_rgb()


def test_a_box_lies_where_it_was_seen() -> None:
    picture = np.full((240, 320, 3), 50, np.uint8)
    drawn = draw(picture, result(box()))
    changed = np.argwhere((drawn != picture).any(axis=2))
    assert (picture == 50).all()
    assert changed[:, 1].min() in range(77, 81)
    assert changed[:, 0].max() in range(177, 182)
    assert (drawn[90:170, 100:220] == 50).all(), "the inside is left free"


def test_a_frame_is_drawn_on_as_it_is_shown() -> None:
    frame = make_frame("nv12", 64, 96, rotation=90, mirrored=True)
    drawn = result(box()).draw(frame)
    assert drawn.shape == (96, 64, 3)
    assert np.array_equal(drawn, draw(frame.to_rgb(), result(box())))


def differs(one: ByteArray, other: ByteArray) -> bool:
    return not np.array_equal(one, other)


def test_every_answer_looks_different(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((120, 400, 3), 90, np.uint8)
    says = {
        "label": {"tasks": {"digit": TaskResult(label="7", score=0.98)}},
        "abstains": {"tasks": {"digit": TaskResult(label=None, score=0.41)}},
        "undefined": {"tasks": {"digit": TaskResult(label=None, score=None)}},
        "value": {"tasks": {"digit": TaskResult(label=None, score=None, value=7.0, unit="m")}},
        "unvalidated": {"status": "unvalidated"},
        "absent": {"present": {"image": True, "audio": False}},
        "why": {"present": {"image": True, "audio": False}, "reason": "it is unplugged"},
        "nothing": {},
    }
    for _ in range(2):
        drawn = {name: draw(picture, result(**changes)) for name, changes in says.items()}
        assert np.array_equal(drawn.pop("nothing"), picture)
        assert len({image.tobytes() for image in drawn.values()}) == len(drawn)
        monkeypatch.delattr(cv2, "FontFace", raising=False)  # OpenCV 4 has none


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("text", NASTY)
def test_no_text_harms_a_picture(text: str, modern: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not modern:
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    for size in ((1, 1), (2, 900), (100, 3), (240, 320)):
        picture = np.full((*size, 3), 90, np.uint8)
        said = result(box(label=text), present={text: False, "image": True}, reason=text)
        assert differs(draw(picture, said), picture)


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, width=32)] * 4), min_size=1, max_size=5))
def test_no_box_harms_a_picture(corners: list[tuple[float, ...]]) -> None:
    boxes = [box(x1=a, y1=b, x2=c, y2=d) for a, b, c, d in corners]
    assert draw(np.zeros((30, 40, 3), np.uint8), result(*boxes)).shape == (30, 40, 3)


def test_lines_without_room_are_left_out() -> None:
    tasks = {f"task {n}": TaskResult(label="yes", score=0.5) for n in range(100)}
    picture = np.full((60, 200, 3), 90, np.uint8)
    assert differs(draw(picture, result(tasks=tasks)), picture)


def test_tasks_are_chosen() -> None:
    picture = np.full((120, 160, 3), 90, np.uint8)
    both = {"a": TaskResult(label="yes", score=0.5), "b": TaskResult(label="no", score=0.5)}
    only = {"b": both["b"]}
    assert np.array_equal(result(tasks=both).draw(picture, tasks=["b"]), draw(picture, result(tasks=only)))
    with pytest.raises(ConfigError, match="no task 'c'"):
        draw(picture, result(tasks=both), tasks=["c"])


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), None, np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(picture: Any) -> None:
    with pytest.raises(ConfigError, match="uint8"):
        draw(picture, result())


def test_a_picture_may_be_a_view() -> None:
    picture = np.full((60, 80, 3), 90, np.uint8)[::-1, ::2, ::-1]
    assert differs(draw(picture, result(box())), picture)


def test_a_slow_reader_has_every_picture_of_a_file(tmp_path: Path, write_clip: WriteClip) -> None:
    """Offline nothing is lost: neither results nor what they were made from."""
    clip = write_clip(times_s=tuple(k / 25 for k in range(60)), picture=lambda t: 16 + round(75 * t))
    with mmedge.Pipeline(tiny_bundle(tmp_path / "tiny.mmedge"), {"image": str(clip)}, latency="offline") as pipe:
        waiting = next(iter(pipe))
        time.sleep(0.5)  # meanwhile the file is read as far as it will go
        seen = [int(waiting.frame("image").data[0, 0])]
        seen += [int(said.frame("image").data[0, 0]) for said in pipe]
    assert seen == [16 + 3 * k for k in range(60)]
    with pytest.raises(FrameExpiredError):  # to keep results is not to keep pictures
        waiting.frame("image")
