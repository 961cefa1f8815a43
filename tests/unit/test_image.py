"""The native image kernel and the torch module against the numpy oracle; hostile frames."""

from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mmedge.bundle.manifest import ImageInput
from mmedge.capture.picture import even_sides, frame_shape
from mmedge.errors import ConfigError
from mmedge.preprocess import ImagePreprocessor, reference
from mmedge.preprocess.fit import Seen, frame_fit
from mmedge.preprocess.geometry import crop_box, target_box
from mmedge.types import Description, Frame, PixelFormat

FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
MATRICES = ("bt601", "bt709", "fcc", "smpte240m", "bt2020")
# DESIGN: executors agree within 0.02 grey level.
GREY_LEVEL = 0.02 / 255


def make_frame(
    format: PixelFormat, height: int, width: int, seed: int = 0, full_range: bool = True, **said: Any
) -> Frame:
    data = np.random.default_rng(seed).integers(0, 256, frame_shape(format, height, width), dtype=np.uint8)
    return Frame(
        stream="image", seq=0, capture_ns=0, arrive_ns=0,
        data=data, format=format, width=width, height=height,
        description=Description(full_range=full_range, **said),
    )  # fmt: skip


@st.composite
def specs(draw: st.DrawFn) -> ImageInput:
    color = draw(st.sampled_from(["gray", "rgb", "bgr"]))
    channels = 1 if color == "gray" else 3
    reduce = draw(st.sampled_from([1, 1, 2, 3, 4, 7]))
    side = st.integers(1, 40)
    frame = st.integers(reduce, 70)
    return ImageInput(
        size=(draw(side), draw(side)),
        color=color,
        fit=draw(st.sampled_from(["stretch", "crop", "letterbox"])),
        mean=(0.485, 0.456, 0.406)[:channels],
        std=(0.229, 0.224, 0.225)[:channels],
        frame=(draw(frame), draw(frame)),
        reduce=reduce,
    )


@st.composite
def frames(draw: st.DrawFn, spec: ImageInput) -> Frame:
    format = draw(st.sampled_from(FORMATS))
    side = st.integers(1, 70)
    height, width = spec.frame if draw(st.booleans()) else (draw(side), draw(side))
    if even_sides(format, height, width) != (height, width):
        height, width = height + height % 2, width + width % 2
    said = {
        "matrix": draw(st.sampled_from(MATRICES)),
        "rotation": draw(st.sampled_from([0, 0, 90, 180, 270])),
        "mirrored": draw(st.booleans()),
        "pixel_aspect": draw(st.sampled_from([(1, 1), (1, 1), (64, 45), (8, 9), (1, 20)])),
    }
    return make_frame(format, height, width, draw(st.integers(0, 2**32 - 1)), draw(st.booleans()), **said)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_native_equals_the_oracle(data: st.DataObject) -> None:
    spec = data.draw(specs())
    preprocessor = ImagePreprocessor(spec)
    for _ in range(2):  # the second frame meets scratch memory that the first one used
        frame = data.draw(frames(spec))
        raw = np.empty(spec.raw_shape, np.uint8)
        preprocessor.raw(frame, raw)
        fit, turned = frame_fit(spec, Seen.of(frame)), frame.description.rotation or frame.description.mirrored
        # Turned, or averaged first, the sums are made in another order: a half may be rounded the other way.
        exact = not turned and fit.rows.block == fit.columns.block == 1
        assert np.abs(raw.astype(int) - reference.to_frame(frame, spec)).max() <= (0 if exact else 1)
        out = np.full(spec.tensor_shape, np.nan, np.float32)
        preprocessor.tensor(frame, out)
        assert np.abs(out - reference.tensor(frame, spec)).max() < GREY_LEVEL / max(spec.std)
        if Seen.of(frame).shown == spec.frame and frame.description.pixel_aspect == (1, 1):
            assert np.abs(out - reference.image(raw[0], spec)).max() < GREY_LEVEL / max(spec.std)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_torch_module_equals_the_oracle(data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("mmedge.export.preprocess.torch_module")
    spec = data.draw(specs())
    raw = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (2, *spec.raw_shape[1:]), np.uint8)
    got = module.ImagePreprocess(spec)(torch.from_numpy(raw)).numpy()
    want = np.concatenate([reference.image(frame, spec) for frame in raw])
    assert np.abs(got - want).max() < GREY_LEVEL / max(spec.std)


def test_oracle_equals_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    bgr = make_frame("bgr24", 48, 64)
    gray = reference.pixels(bgr, "gray")[..., 0]
    assert np.abs(gray.astype(int) - cv2.cvtColor(bgr.data, cv2.COLOR_BGR2GRAY)).max() <= 1
    for format, code in ("nv12", cv2.COLOR_YUV2BGR_NV12), ("yuv420p", cv2.COLOR_YUV2BGR_I420):
        frame = make_frame(format, 48, 64, full_range=False)
        assert np.abs(reference.pixels(frame, "bgr").astype(int) - cv2.cvtColor(frame.data, code)).max() <= 1
    spec = ImageInput(size=(30, 50), mean=(0, 0, 0), std=(1, 1, 1), frame=(30, 50), color="bgr")
    resized = cv2.resize(bgr.data.astype(np.float32), (50, 30), interpolation=cv2.INTER_LINEAR)
    assert np.abs(reference.to_frame(bgr, spec)[0] - resized).max() <= 0.51


def test_luma_of_limited_range() -> None:
    luma = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = replace(make_frame("gray8", 16, 16, full_range=False), data=luma)
    want = np.clip(np.floor((luma.astype(float) - 16) * 255 / 219 + 0.5), 0, 255)
    np.testing.assert_array_equal(reference.pixels(frame, "gray")[..., 0], want)


@pytest.mark.parametrize(
    ("fit", "crop", "target"),
    [
        ("stretch", (0, 0, 48, 64), (0, 0, 32, 32)),
        ("crop", (0, 8, 48, 48), (0, 0, 32, 32)),
        ("letterbox", (0, 0, 48, 64), (4, 0, 24, 32)),
    ],
)
def test_boxes(fit: Any, crop: tuple[int, ...], target: tuple[int, ...]) -> None:
    spec = ImageInput(size=(32, 32), color="gray", fit=fit, mean=(0.51234,), std=(1.0,), frame=(96, 129), reduce=2)
    got_crop, got_target = crop_box(spec), target_box(spec)
    assert (got_crop.top, got_crop.left, got_crop.height, got_crop.width) == crop
    assert (got_target.top, got_target.left, got_target.height, got_target.width) == target
    out = np.full(spec.tensor_shape, np.nan, np.float32)
    ImagePreprocessor(spec).tensor(make_frame("gray8", 96, 129), out)
    outside = np.ones((32, 32), bool)
    outside[target[0] : target[0] + target[2], target[1] : target[1] + target[3]] = False
    assert (out[0, 0][outside] == 0).all()
    assert (out[0, 0][~outside] != 0).all()


def test_gray_reads_only_luma() -> None:
    spec = ImageInput(size=(16, 16), color="gray", mean=(0.5,), std=(0.5,), frame=(64, 64), reduce=2)
    frame = make_frame("yuv420p", 64, 64)
    first, second = (np.empty(spec.tensor_shape, np.float32) for _ in range(2))
    preprocessor = ImagePreprocessor(spec)
    preprocessor.tensor(frame, first)
    frame.data[64:] ^= 255
    preprocessor.tensor(frame, second)
    np.testing.assert_array_equal(first, second)


def test_nothing_is_allocated_per_call() -> None:
    spec = ImageInput(size=(112, 112), color="gray", mean=(0.45,), std=(0.25,), reduce=4)
    preprocessor, frame = ImagePreprocessor(spec), make_frame("yuv420p", 720, 1280)
    out = np.empty(spec.tensor_shape, np.float32)
    preprocessor.tensor(frame, out)
    tracemalloc.start()
    try:
        for _ in range(20):
            preprocessor.tensor(frame, out)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()


SPEC = ImageInput(size=(8, 8), color="rgb", mean=(0, 0, 0), std=(1, 1, 1), frame=(16, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((16, 15, 3), np.uint8)}, "shape"),
        ({"data": np.zeros((16, 16), np.uint8)}, "shape"),
        ({"data": np.zeros((16, 16, 3), np.float32)}, "uint8"),
        ({"data": np.zeros((32, 16, 3), np.uint8)[::2]}, "contiguous"),
        ({"data": np.zeros((0, 0, 3), np.uint8), "width": 0, "height": 0}, "empty"),
        ({"data": np.zeros((24, 15), np.uint8), "format": "nv12", "width": 15}, "even"),
        ({"data": np.zeros((22, 16), np.uint8), "format": "yuv420p", "height": 15}, "even"),
        ({"data": np.zeros((16, 16), np.uint8), "format": "uyvy422"}, "uyvy422"),
        ({"data": np.zeros((16, 16), np.uint8), "format": "yuyv422"}, "shape"),
        ({"data": np.zeros((16, 15, 2), np.uint8), "format": "yuyv422", "width": 15}, "even"),
        ({"data": np.zeros((24, 16), np.uint16), "format": "p010le"}, "uint8"),
        ({"data": np.zeros((22, 32), np.uint8), "format": "yuv420p10le", "height": 15}, "even"),
        ({"data": [[0] * 16] * 16}, "not an array"),
        ({"width": -16}, "not an array"),
    ],
)
def test_hostile_frames(changes: dict[str, Any], message: str) -> None:
    preprocessor = ImagePreprocessor(SPEC)
    frame = replace(make_frame("bgr24", 16, 16), **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        preprocessor.tensor(frame, np.empty(SPEC.tensor_shape, np.float32))
    assert caught.value.fix
    with pytest.raises(ConfigError, match=message):
        preprocessor.raw(frame, np.empty(SPEC.raw_shape, np.uint8))


def test_hostile_outputs() -> None:
    preprocessor, frame = ImagePreprocessor(SPEC), make_frame("bgr24", 16, 16)
    good = np.zeros(SPEC.tensor_shape, np.float32)
    read_only = good.copy()
    read_only.flags.writeable = False
    for out in (good[0], good.astype(np.float64), np.empty((1, 3, 8, 9), np.float32), read_only):
        with pytest.raises(ConfigError):
            preprocessor.tensor(frame, out)  # type: ignore[arg-type]
    misaligned = np.frombuffer(bytearray(good.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(good.shape)
    with pytest.raises(ConfigError, match="aligned"):
        preprocessor.tensor(frame, misaligned)
    with pytest.raises(ConfigError):
        preprocessor.raw(frame, np.empty((1, 16, 16, 1), np.uint8))


@pytest.mark.parametrize(
    "spec",
    [
        ImageInput(size=(8, 8), color="gray", mean=(0,), std=(1,), frame=(3, 3), reduce=4),
        ImageInput(size=(8, 8), color="rgb", mean=(0,), std=(1,)),
        ImageInput(size=(8, 8), color="gray", mean=(float("nan"),), std=(1,)),
    ],
)
def test_seats_that_cannot_work(spec: ImageInput) -> None:
    with pytest.raises(ConfigError):
        ImagePreprocessor(spec)
