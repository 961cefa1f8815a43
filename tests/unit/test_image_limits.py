"""Pictures at the limits of what a camera can send, and beyond: the exact result or a typed error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.capture.picture import even_sides
from mmedge.errors import ConfigError
from mmedge.preprocess import ImagePreprocessor, reference
from tests.unit.test_image import FORMATS, make_frame

SETS = core.image_instructions()
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
# What runs emulated, on a processor of 2008 without AVX: little, as it takes 50 times as long.
OLD = """
import hashlib
import numpy as np
from mmedge._native import core
digest = hashlib.sha256()
plan = core.ImagePlan(
    (120, 1, 0, 120, 3.0, 0.0, 0, 40, 40, 0.0, 0.0), (90, 1, 0, 90, 1.8, 0.0, 0, 50, 50, 2.5, 0.0), True, False, True
)
for format, shape in {"gray8": (90, 120), "bgr24": (90, 120, 3), "nv12": (135, 120), "yuv444p": (270, 120)}.items():
    data = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    out = np.empty((1, 3, 40, 50), np.float32)
    kernel = core.ImageKernel((90, 120), "rgb", (40, 50), [0.0] * 3, [1.0] * 3)
    kernel.tensor(data, format, 120, 90, "bt709", False, plan, out)
    digest.update(out.tobytes())
print(*core.image_instructions(), digest.hexdigest())
"""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("instructions", SETS)
def test_the_smallest_picture(format: Any, instructions: str) -> None:
    height, width = even_sides(format, 1, 1)
    height, width = height or 2, width or 2
    spec = ImageInput(size=(3, 5), frame=(7, 2), **PLAIN)
    frame, out = make_frame(format, height, width), np.full(spec.tensor_shape, np.nan, np.float32)
    ImagePreprocessor(spec, instructions=instructions).tensor(frame, out)
    assert np.abs(out - reference.tensor(frame, spec)).max() * 255 <= 0.02


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("format", ["gray8", "bgr24", "nv12"])
def test_a_picture_of_8192_by_8192(format: Any, instructions: str) -> None:
    """A pixel of the output lies in the middle of four: their mean."""
    side, size, color = 8192, 16, "rgb" if format == "bgr24" else "gray"
    channels = 3 if color == "rgb" else 1
    frame = make_frame("gray8", 2, 2, full_range=True)
    row = (np.arange(side, dtype=np.uint32) * 7).astype(np.uint8)
    luma = (row[:, None] * np.uint8(3) + row[None, :]).astype(np.uint8)
    data = luma if format == "gray8" else np.repeat(luma[..., None], 3, axis=2)
    if format == "nv12":
        data = np.concatenate([luma, np.full((side // 2, side), 128, np.uint8)])
    spec = ImageInput(size=(size, size), color=color, mean=(0.0,) * channels, std=(1.0,) * channels, frame=(side, side))
    out = np.full(spec.tensor_shape, np.nan, np.float32)
    ImagePreprocessor(spec, instructions=instructions).tensor(
        replace(frame, data=data, format=format, height=side, width=side), out
    )
    at = np.arange(size) * (side // size) + side // size // 2 - 1
    corners = [luma[np.ix_(at + i, at + j)].astype(np.float64) for i in (0, 1) for j in (0, 1)]
    assert np.abs(out[0] * 255 - sum(corners) / 4).max() <= 0.02


def _unlike(data: Any, kind: str) -> Any:
    """Return the same numbers, otherwise in memory."""
    if kind == "upside down":
        return data[::-1].copy()[::-1]
    if kind == "backwards":
        return data[:, ::-1].copy()[:, ::-1]
    if kind == "every second":
        return np.repeat(data, 2, axis=1)[:, ::2]
    if kind == "padded rows":
        return np.concatenate([data, data[:, :3]], axis=1)[:, : data.shape[1]]
    return np.asfortranarray(data)


@pytest.mark.parametrize("kind", ["upside down", "backwards", "every second", "padded rows", "columns first"])
@pytest.mark.parametrize("format", FORMATS)
def test_strides_that_are_no_frame(format: Any, kind: str) -> None:
    spec = ImageInput(size=(8, 8), frame=(16, 16), **PLAIN)
    frame = make_frame(format, 16, 16)
    odd = replace(frame, data=_unlike(frame.data, kind))
    np.testing.assert_array_equal(odd.data, frame.data)
    preprocessor = ImagePreprocessor(spec)
    with pytest.raises(ConfigError, match="contiguous"):
        preprocessor.tensor(odd, np.empty(spec.tensor_shape, np.float32))
    with pytest.raises(ConfigError, match="contiguous"):
        preprocessor.raw(odd, np.empty(spec.raw_shape, np.uint8))


@pytest.mark.parametrize("format", FORMATS)
def test_a_frame_that_is_read_only(format: Any) -> None:
    spec = ImageInput(size=(8, 8), frame=(16, 16), **PLAIN)
    frame = make_frame(format, 20, 24)
    made = [np.full(spec.tensor_shape, np.nan, np.float32) for _ in range(2)]
    ImagePreprocessor(spec).tensor(frame, made[0])
    frame.data.flags.writeable = False
    ImagePreprocessor(spec).tensor(frame, made[1])
    np.testing.assert_array_equal(*made)


@given(st.sampled_from(FORMATS), st.integers(1, 33), st.integers(1, 33))
@settings(max_examples=60, deadline=None)
def test_odd_sides(format: Any, height: int, width: int) -> None:
    """Subsampled formats refuse them; the others give the exact result."""
    spec = ImageInput(size=(9, 11), frame=(16, 16), **PLAIN)
    whole = even_sides(format, height, width) == (height, width)
    frame = make_frame(format, height + height % 2, width + width % 2)
    frame = make_frame(format, height, width) if whole else replace(frame, height=height, width=width)
    out = np.full(spec.tensor_shape, np.nan, np.float32)
    if whole:
        ImagePreprocessor(spec).tensor(frame, out)
        assert np.abs(out - reference.tensor(frame, spec)).max() * 255 <= 0.02
    else:
        with pytest.raises(ConfigError):
            ImagePreprocessor(spec).tensor(frame, out)


@pytest.mark.parametrize(
    "axis",
    [
        (16, 1, 9, 8, 1.0, 0.0, 0, 8, 8, 0.0, 0.0),  # the window ends outside
        (16, 1, 17, 1, 1.0, 0.0, 0, 8, 8, 0.0, 0.0),
        (16, 2, 0, 9, 1.0, 0.0, 0, 8, 8, 0.0, 0.0),
        (16, 1, 0, 16, 1.0, 0.0, 1, 8, 8, 0.0, 0.0),  # what it fills ends outside
        (16, 17, 0, 1, 1.0, 0.0, 0, 8, 8, 0.0, 0.0),  # a block larger than the picture
        (16, 1, 0, 16, float("nan"), 0.0, 0, 8, 8, 0.0, 0.0),
        (16, 1, 0, 16, 1.0, float("inf"), 0, 8, 8, 0.0, 0.0),
        (16, 1, 0, 16, 2.0, 0.0, 0, 8, 8, -1.0, 0.0),
        (16, 1, 0, 16, 2.0, 0.0, 0, 8, 8, float("inf"), 0.0),
        (16, 1, 0, 16, 2.0, 0.0, 0, 8, 8, 1.0, float("nan")),
    ],
)
def test_a_crop_outside(axis: tuple[Any, ...]) -> None:
    good = (16, 1, 0, 16, 2.0, 0.0, 0, 8, 8, 0.0, 0.0)
    for rows, columns in ((axis, good), (good, axis)):
        with pytest.raises(ValueError, match=r"window|box|blocks|step|cells"):
            core.ImagePlan(rows, columns, False, False, False)


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-user is missing")
def test_a_processor_without_avx() -> None:
    def run(*emulated: str) -> list[str]:
        command = [*emulated, sys.executable, "-c", OLD]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.split()

    *sets, digest = run("qemu-x86_64", "-cpu", "Nehalem")
    assert sets == ["sse41", "scalar"]
    assert digest == run()[-1]
