"""Pictures that are pushed in any pixel format: their size is that of the array, and nothing else is taken."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.capture.picture import even_sides, frame_shape, sides_of
from mmedge.errors import ConfigError
from mmedge.pipeline.pushed import pushed_packet
from mmedge.types import Frame, PixelFormat

SEAT = ImageInput(size=(4, 4), color="gray", mean=(0.0,), std=(1.0,))
STAMP = {"seq": 0, "capture_ns": 1, "arrive_ns": 2}


@given(st.sampled_from(get_args(PixelFormat)), st.integers(1, 300), st.integers(1, 300))
def test_the_size_of_a_picture_is_that_of_its_array(format: PixelFormat, height: int, width: int) -> None:
    sides = even_sides(format, height, width)
    if 0 not in sides:
        assert sides_of(format, frame_shape(format, *sides)) == sides


@given(st.sampled_from(get_args(PixelFormat)), st.lists(st.integers(0, 40), max_size=4).map(tuple))
def test_an_array_is_a_picture_or_refused(format: PixelFormat, shape: tuple[int, ...]) -> None:
    sides = sides_of(format, shape)
    assert sides is None or (frame_shape(format, *sides) == shape and even_sides(format, *sides) == sides)
    data = np.zeros(shape, np.uint8)
    if sides is None:
        with pytest.raises(ConfigError):
            pushed_packet("image", SEAT, data, **STAMP, format=format)
        return
    frame = pushed_packet("image", SEAT, data, **STAMP, format=format)
    assert isinstance(frame, Frame)
    assert (frame.format, frame.height, frame.width) == (format, *sides)


def test_formats_that_cannot_be() -> None:
    data = np.zeros((4, 4), np.uint8)
    for format in ("uyvy422", "", 3):
        with pytest.raises(ConfigError, match="takes no"):
            pushed_packet("image", SEAT, data, **STAMP, format=format)  # type: ignore[arg-type]
    sound = AudioInput(sample_rate_hz=8000, window_ms=10)
    with pytest.raises(ConfigError, match="takes no"):
        pushed_packet("audio", sound, np.zeros(80, np.float32), **STAMP, format="nv12")
