"""The fit is made from the displayed aspect of the camera's picture, in one step, for tensors and raw frames alike."""

from __future__ import annotations

import logging
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from benchmarks.media_pictures import network_input
from mmedge.bundle.manifest import ImageInput
from mmedge.preprocess import ImagePreprocessor, reference
from mmedge.preprocess.fit import Seen, frame_fit, tensor_fit, to_picture
from mmedge.types import Description, Frame

FITS = ("stretch", "crop", "letterbox")


def seat(**changes: Any) -> ImageInput:
    plain: dict[str, Any] = {"size": (96, 96), "color": "gray", "mean": (0.4,), "std": (0.25,)}
    return ImageInput(**{**plain, **changes})


def stored(shown: Any, said: Description) -> Frame:
    """Return the frame that is stored of a picture, uint8 [h, w], which is given as it is shown."""
    turned = shown[:, ::-1] if said.mirrored else shown
    data = np.ascontiguousarray(np.rot90(turned, said.rotation // 90))
    height, width = data.shape
    return Frame(
        stream="image",
        seq=0,
        capture_ns=0,
        arrive_ns=0,
        data=data,
        format="gray8",
        width=width,
        height=height,
        description=said,
    )


descriptions = st.builds(
    Description,
    rotation=st.sampled_from([0, 90, 180, 270]),
    mirrored=st.booleans(),
    pixel_aspect=st.sampled_from([(1, 1), (64, 45), (8, 9), (4, 3), (1, 2)]),
)
cameras = st.tuples(st.integers(60, 400), st.integers(60, 400))
seats = st.builds(
    seat,
    fit=st.sampled_from(FITS),
    size=st.sampled_from([(96, 96), (80, 128), (128, 64)]),
    frame=st.sampled_from([(480, 640), (640, 480), (240, 320), (200, 200)]),
    reduce=st.sampled_from([1, 1, 2]),
)


@given(cameras, descriptions, seats)
@settings(max_examples=150, deadline=None)
def test_a_box_comes_back_to_where_it_is_in_the_upright_picture(
    camera: tuple[int, int], said: Description, spec: ImageInput
) -> None:
    rows, columns = camera
    top, bottom, left, right = rows * 42 // 100, rows * 59 // 100, columns * 40 // 100, columns * 57 // 100
    shown = np.zeros(camera, np.uint8)
    shown[top:bottom, left:right] = 255
    frame = stored(shown, said)
    seen = Seen.of(frame)
    assert seen.shown == camera
    want = (left / columns, top / rows, right / columns, bottom / rows)
    window = np.array([[0.0, 0.0, spec.size[1], spec.size[0]]])
    to_picture(spec, window, seen)
    assume(all(window[0, :2] < want[:2]) and all(window[0, 2:] > want[2:]))  # a crop may not show all of it
    for raw in (False, True):
        level = network_input(frame, spec, raw=raw) * spec.std[0] + spec.mean[0]
        across, down = (np.flatnonzero(level.max(axis=axis) > 0.5) for axis in (0, 1))
        corners = np.array([[across[0], down[0], across[-1] + 1.0, down[-1] + 1.0]])
        one = np.array([[0.0, 0.0, 1.0, 1.0]])
        for places in (corners, one):
            to_picture(spec, places, seen, raw=raw)
        # One pixel of the network's input, or of the camera's picture reduced, seen in the picture.
        blocks = [axis.block / axis.camera for axis in tensor_fit(spec, seen)[:2]]  # type: ignore[union-attr]
        slack = [max(one[0, 2] - one[0, 0], blocks[1]), max(one[0, 3] - one[0, 1], blocks[0])] * 2
        coarse = 1.5 if raw else 1.05  # a raw frame is resampled twice
        assert all(abs(got - place) <= coarse * d for got, place, d in zip(corners[0], want, slack, strict=True))


@given(cameras, descriptions, seats)
@example((98, 146), Description(pixel_aspect=(1, 2)), seat(fit="letterbox", size=(128, 64), frame=(640, 480)))
@settings(max_examples=100, deadline=None)
def test_a_raw_frame_gives_what_the_tensor_has(camera: tuple[int, int], said: Description, spec: ImageInput) -> None:
    """A smooth picture: both ways show it at the same places, whatever the camera."""
    y, x = np.mgrid[: camera[0], : camera[1]]
    shown = (128 + 60 * np.sin(x / camera[1] * 5) + 60 * np.cos(y / camera[0] * 4)).astype(np.uint8)
    frame = stored(shown, said)
    direct, through = network_input(frame, spec), network_input(frame, spec, raw=True)
    fit = tensor_fit(spec, Seen.of(frame))
    if not frame_fit(spec, Seen.of(frame)).free:
        return
    inside = np.s_[
        fit.rows.start + 2 : fit.rows.start + fit.rows.length - 2,
        fit.columns.start + 2 : fit.columns.start + fit.columns.length - 2,
    ]
    difference = np.abs(direct - through)[inside] * spec.std[0] * 255
    if difference.size:
        # Edges are rounded to whole pixels once, or twice: half a pixel of the input in all.
        levels = direct[inside] * spec.std[0] * 255
        steps = [float(np.abs(np.diff(levels, axis=axis)).mean()) for axis in (0, 1) if levels.shape[axis] > 1]
        assert difference.max() <= 8
        assert difference.mean() <= max(1.5, 0.5 * sum(steps))


@given(
    cameras,
    descriptions,
    st.builds(
        seat,
        fit=st.sampled_from(FITS),
        size=st.sampled_from([(96, 96), (80, 128), (64, 37)]),
        frame=st.sampled_from([(256, 320), (257, 259), (300, 500)]),
    ),
)
@settings(max_examples=100, deadline=None)
def test_a_graph_does_not_resample_what_was_resampled_once(
    camera: tuple[int, int], said: Description, spec: ImageInput
) -> None:
    """Edges and noise: each pixel that the graph makes of two is the tensor's, rounded to a grey level."""
    frame = stored(np.random.default_rng(0).integers(0, 256, camera).astype(np.uint8), said)
    seen = Seen.of(frame)
    fit = tensor_fit(spec, seen)
    laid = frame_fit(spec, seen)
    cells = zip(fit[:2], laid[:2], strict=True)
    assume(all(own.cell and round(own.length / own.cell) == axis.length for axis, own in cells))  # type: ignore[union-attr]
    assert fit.rows.block == fit.columns.block == 1
    direct, through = network_input(frame, spec), network_input(frame, spec, raw=True)
    rows, columns = (slice(axis.start, axis.start + axis.length) for axis in fit[:2])  # type: ignore[union-attr]
    assert np.abs(direct - through)[..., rows, columns].max() * spec.std[0] * 255 <= 0.53


@pytest.mark.parametrize(
    ("camera", "reduce", "blocks"),
    [
        ((1080, 1920), 1, (1, 1)),
        ((1920, 2560), 1, (1, 1)),  # four times the frame
        ((3000, 4000), 1, (6, 6)),
        ((1080, 1920), 2, (5, 6)),
    ],
)
def test_only_pictures_much_larger_than_the_frame_are_averaged_unasked(
    camera: tuple[int, int], reduce: int, blocks: tuple[int, int]
) -> None:
    rows, columns, _ = tensor_fit(seat(reduce=reduce), Seen(*camera, Description()))
    assert (rows.block, columns.block) == blocks


@pytest.mark.parametrize(
    ("camera", "aspect", "rotation", "fit", "box"),
    [
        ((1080, 1920), (1, 1), 0, "letterbox", (21, 0, 54, 96)),
        ((1080, 1920), (1, 1), 90, "letterbox", (0, 21, 96, 54)),
        ((576, 720), (64, 45), 0, "letterbox", (21, 0, 54, 96)),
        ((480, 640), (1, 1), 0, "letterbox", (12, 0, 72, 96)),
        ((1080, 1440), (4, 3), 270, "letterbox", (0, 21, 96, 54)),
        ((1080, 1920), (1, 1), 0, "stretch", (0, 0, 96, 96)),
        ((1080, 1920), (1, 1), 0, "crop", (0, 0, 96, 96)),
        ((2, 2000), (1, 1), 0, "letterbox", (47, 0, 1, 96)),
    ],
)
def test_the_box_has_the_displayed_aspect(
    camera: tuple[int, int], aspect: tuple[int, int], rotation: Any, fit: Any, box: tuple[int, ...]
) -> None:
    seen = Seen(*camera, Description(pixel_aspect=aspect, rotation=rotation))
    rows, columns, _ = tensor_fit(seat(fit=fit), seen)
    assert (rows.start, columns.start, rows.length, columns.length) == box


@pytest.mark.parametrize("fit", FITS)
def test_a_camera_of_the_seats_frame_is_reduced_as_ever(fit: Any) -> None:
    """Golden samples and old recordings are of such cameras: whole blocks of ``reduce``, integer boxes."""
    spec = seat(fit=fit, reduce=4)
    rows, columns, _ = tensor_fit(spec, Seen(480, 640, Description(full_range=False, matrix="bt709")))
    assert (rows.block, columns.block, rows.shift, columns.shift) == (4, 4, 0.0, 0.0)
    assert all(axis.step == axis.window / axis.length for axis in (rows, columns))
    assert frame_fit(spec, Seen(480, 640, Description())).rows == (480, 1, 0, 480, 1.0, 0.0, 0, 480, 480, 0.0, 0.0)


def test_blocks_follow_the_camera_and_never_blur_more_than_the_seat_does() -> None:
    spec = seat(reduce=4)
    blocks = {camera: tensor_fit(spec, Seen(*camera, Description()))[:2] for camera in [(960, 1280), (240, 320)]}
    assert [(rows.block, columns.block) for rows, columns in blocks.values()] == [(8, 8), (2, 2)]  # type: ignore[union-attr]
    detector = seat(size=(640, 640), fit="letterbox")
    rows, columns, _ = tensor_fit(detector, Seen(768, 1024, Description()))
    assert (rows.block, columns.block) == (1, 1)


def test_a_portrait_camera_that_has_no_room_in_the_frame_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    spec = seat(fit="letterbox")
    frame = stored(np.full((640, 480), 255, np.uint8), Description())
    preprocess, out = ImagePreprocessor(spec), np.empty(spec.raw_shape, np.uint8)
    with caplog.at_level(logging.WARNING, "mmedge.preprocess"):
        preprocess.raw(frame, out)
        preprocess.raw(stored(np.full((800, 600), 255, np.uint8), Description()), out)
    assert len(caplog.messages) == 1
    assert "no room" in caplog.messages[0]
    seen_by_network = reference.image(out[0], spec)[0, 0]
    filled = seen_by_network > 1
    assert filled.any(axis=1).sum() == pytest.approx(72, abs=2)  # the graph's own letterbox of a 4:3 frame
    assert filled.any(axis=0).sum() == pytest.approx(54, abs=2)
    assert np.abs(seen_by_network[~filled]).max() < 1.0  # what is not filled is the mean, smeared at the edge


@pytest.mark.parametrize(
    ("rotation", "mirrored", "raw"), list(product((0, 90, 180, 270), (False, True), (False, True)))
)
def test_a_turned_picture_is_what_an_upright_one_is(rotation: Any, mirrored: bool, raw: bool) -> None:
    shown = np.random.default_rng(0).integers(0, 256, (60, 100), np.uint8)
    spec = seat(fit="letterbox")
    got = network_input(stored(shown, Description(rotation=rotation, mirrored=mirrored)), spec, raw=raw)
    want = network_input(stored(shown, Description()), spec, raw=raw)
    # A half may be rounded the other way in the raw frame.
    assert np.abs(got - want).max() * spec.std[0] * 255 <= (1.01 if raw else 0.02)


def test_nothing_is_planned_again_while_the_geometry_stays() -> None:
    spec = seat()
    preprocess = ImagePreprocessor(spec)
    said = Description(rotation=90)
    frames = [stored(np.zeros((60, 100), np.uint8), Description(rotation=90)) for _ in range(2)]
    assert frames[0].description is not said
    plans = [preprocess._tensor.plan_of(frame) for frame in frames]
    assert plans[0] is plans[1]
    assert preprocess._tensor.plan_of(stored(np.zeros((60, 101), np.uint8), said)) is not plans[0]
