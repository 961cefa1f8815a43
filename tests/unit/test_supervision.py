"""Boxes for supervision: pixels of the picture as it is shown, labels, one task."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import ConfigError
from mmedge.types import Box, Result, TaskResult
from tests.unit.test_image import make_frame
from tests.unit.test_shown import box, result

sv = pytest.importorskip("supervision")
SHARE = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(SHARE, SHARE, SHARE, SHARE), min_size=1, max_size=4), st.sampled_from([0, 90, 180, 270]))
def test_corners_are_pixels_of_the_picture_as_it_is_shown(corners: list[tuple[float, ...]], rotation: int) -> None:
    frame = make_frame("yuv420p", 48, 64, rotation=rotation)
    height, width = frame.to_rgb().shape[:2]
    said = result(*(box(x1=a, y1=b, x2=c, y2=d) for a, b, c, d in corners))
    for picture in (frame, frame.to_rgb()):
        found = said.to_supervision(picture)
        assert found.xyxy == pytest.approx(np.array(corners) * [width, height, width, height], abs=1e-3)
        assert found.confidence == pytest.approx([0.75] * len(corners))
        assert set(found.data["class_name"]) == {"cup"}


def test_numbers_are_those_of_the_labels() -> None:
    said = result(box(label="cup"), box(label="lamp"), box(label="cup"))
    picture = np.zeros((4, 4, 3), np.uint8)
    assert said.to_supervision(picture, labels=("lamp", "cup")).class_id.tolist() == [1, 0, 1]
    made = said.to_supervision(picture).class_id
    assert made[0] == made[2] != made[1]
    with pytest.raises(ConfigError, match="not among"):
        said.to_supervision(picture, labels=("lamp",))


def two(*seen: Box) -> Result:
    tasks = {name: TaskResult(label="cup", score=0.7, boxes=seen) for name in ("left", "right")}
    return result(tasks={**tasks, "digit": TaskResult(label="7", score=0.9)})


def test_one_task_is_meant() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match=r"boxes of \['left', 'right'\]"):
        two(box()).to_supervision(picture)
    assert len(two(box()).to_supervision(picture, task="right")) == 1
    assert len(two().to_supervision(picture)) == 0
    assert len(two().to_supervision(picture, task="digit")) == 0
    with pytest.raises(ConfigError, match="no task 'middle'"):
        two().to_supervision(picture, task="middle")
