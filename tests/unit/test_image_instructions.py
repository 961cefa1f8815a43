"""Every instruction set that image kernels have: the same bits, and those within the contract of the numpy oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.capture.picture import even_sides
from mmedge.errors import ConfigError
from mmedge.preprocess import ImagePreprocessor, reference
from mmedge.types import Frame
from tests.unit.test_image import FORMATS, MATRICES, make_frame

GREY_LEVELS = 0.02
SETS = core.image_instructions()
pytestmark = pytest.mark.arithmetic


@st.composite
def cases(draw: st.DrawFn) -> tuple[ImageInput, Frame]:
    color = draw(st.sampled_from(["gray", "rgb", "bgr"]))
    channels = 1 if color == "gray" else 3
    reduce = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 5, 8, 17]))
    out, side = st.integers(1, 70), st.integers(1, 230)
    frame = draw(st.integers(reduce, 130)), draw(st.integers(reduce, 130))
    spec = ImageInput(
        size=(draw(out), draw(out)),
        color=color,
        fit=draw(st.sampled_from(["stretch", "crop", "letterbox"])),
        mean=(0.485, 0.456, 0.406)[:channels],
        std=(0.229, 0.224, 0.225)[:channels],
        frame=frame,
        reduce=reduce,
    )
    format = draw(st.sampled_from(FORMATS))
    height, width = frame if draw(st.booleans()) else (draw(side), draw(side))
    if even_sides(format, height, width) != (height, width):
        height, width = height + height % 2, width + width % 2
    said: dict[str, Any] = {
        "matrix": draw(st.sampled_from(MATRICES)),
        "rotation": draw(st.sampled_from([0, 90, 180, 270])),
        "mirrored": draw(st.booleans()),
        "pixel_aspect": draw(st.sampled_from([(1, 1), (1, 1), (64, 45), (1, 20)])),
    }
    made = make_frame(format, height, width, draw(st.integers(0, 2**32 - 1)), draw(st.booleans()), **said)
    if draw(st.booleans()):  # black and white: where sums and their rounding reach furthest
        made.data[...] = np.where(made.data < 128, 0, 255)
    return spec, made


@given(cases())
@settings(max_examples=200, deadline=None)
def test_all_give_the_same_bits(case: tuple[ImageInput, Frame]) -> None:
    spec, frame = case
    want = reference.tensor(frame, spec)
    tensors, raws = [], []
    for instructions in SETS:
        preprocessor = ImagePreprocessor(spec, instructions=instructions)
        tensors.append(np.full(spec.tensor_shape, np.nan, np.float32))
        raws.append(np.full(spec.raw_shape, 77, np.uint8))
        preprocessor.tensor(frame, tensors[-1])
        preprocessor.raw(frame, raws[-1])
    for other in tensors[1:]:
        np.testing.assert_array_equal(tensors[0], other)
    for other in raws[1:]:
        np.testing.assert_array_equal(raws[0], other)
    assert (np.abs(tensors[0] - want).max(axis=(0, 2, 3)) * 255 * np.asarray(spec.std)).max() <= GREY_LEVELS


@pytest.mark.parametrize(
    ("format", "height", "width"),
    [*((format, 480, 640) for format in FORMATS), ("nv12", 1080, 1920), ("bgr24", 1080, 1920), ("nv12", 2160, 3840)],
)
def test_pictures_of_cameras(format: Any, height: int, width: int) -> None:
    spec = ImageInput(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), frame=(height, width))
    frame = make_frame(format, height, width, full_range=False, matrix="bt709")
    made = []
    for instructions in SETS:
        made.append(np.full(spec.tensor_shape, np.nan, np.float32))
        ImagePreprocessor(spec, instructions=instructions).tensor(frame, made[-1])
        np.testing.assert_array_equal(made[0], made[-1])
    off = np.abs(made[0] - reference.tensor(frame, spec)).max(axis=(0, 2, 3)) * 255 * np.asarray(spec.std)
    assert off.max() <= GREY_LEVELS


def test_one_kernel_for_pictures_of_changing_kinds() -> None:
    spec = ImageInput(size=(60, 50), mean=(0, 0, 0), std=(1, 1, 1), frame=(120, 90))
    kept = ImagePreprocessor(spec)
    for seed in range(30):
        format = FORMATS[seed % len(FORMATS)]
        frame = make_frame(format, 2 * (20 + seed * 7 % 50), 2 * (4 + seed * 11 % 70), seed, rotation=seed % 4 * 90)
        made = [np.full(spec.tensor_shape, np.nan, np.float32) for _ in range(2)]
        kept.tensor(frame, made[0])
        ImagePreprocessor(spec).tensor(frame, made[1])
        np.testing.assert_array_equal(*made)


def test_the_definition_is_always_there() -> None:
    assert SETS[-1] == "scalar"


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx2 ", "\0"])
def test_unknown_instructions(name: str) -> None:
    spec = ImageInput(size=(2, 2), color="gray", mean=(0,), std=(1,), frame=(4, 4))
    with pytest.raises(ConfigError, match="this machine cannot use the instructions"):
        ImagePreprocessor(spec, instructions=name)
