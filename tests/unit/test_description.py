"""What streams say of their pictures reaches the network, or health() says that it does not."""

from __future__ import annotations

import gc
import logging
import shutil
import struct
import subprocess
import time
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.capture.description import layout_of, pixel_aspect, turning
from mmedge.capture.media import MediaSource
from mmedge.capture.v4l2_colours import colours_of, driver_colours
from mmedge.preprocess import reference
from mmedge.types import Description

av = pytest.importorskip("av")
pictures = pytest.importorskip("benchmarks.media_pictures")


@pytest.mark.parametrize("format", sorted({way.format for way in pictures.every_colour()}))
def test_colours_are_those_of_swscale_with_the_right_matrix(tmp_path: Path, format: str) -> None:
    """Every matrix and range of a layout and depth; beside swscale, the colours that were meant."""
    ways = [way for way in pictures.every_colour() if way.format == format]
    errors = {way: pictures.colour_errors(tmp_path, way, seed) for seed, way in enumerate(ways)}
    assert all(max(error) <= 2 for error in errors.values()), errors


TURNS = [pictures.Shape(64, 48, rotation=turn, mirrored=flip) for turn, flip in product((0, 90, 180, 270), (0, 1))]


def marked() -> Any:
    """Return an upright picture whose corners differ, uint8 [48, 64]."""
    upright = np.full((48, 64), 16, np.uint8)
    upright[:24, :32], upright[:24, 32:], upright[24:, :32] = 235, 180, 100
    return upright


@pytest.mark.parametrize("shape", TURNS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_pictures_are_turned_and_mirrored_as_the_stream_says(tmp_path: Path, name: str, shape: Any) -> None:
    upright = marked()
    stored = np.rot90(upright[:, ::-1] if shape.mirrored else upright, shape.rotation // 90)
    path = tmp_path / name
    pictures.write_shape(
        path, shape._replace(height=stored.shape[0], width=stored.shape[1]), np.ascontiguousarray(stored)
    )
    (frame,) = pictures.read(path)
    assert (frame.description.rotation, frame.description.mirrored) == (shape.rotation, shape.mirrored)
    got = pictures.pixels(frame, "gray")[..., 0].astype(float)
    assert got.shape == (48, 64)
    levels = [got[y, x] for y, x in product((12, 36), (16, 48))]
    assert levels == pytest.approx([235, 180, 100, 16], abs=3)


def test_every_turn_of_pyav_is_read_as_ffmpeg_means_it(tmp_path: Path) -> None:
    """PyAV writes a counter-clockwise angle, as ``VideoFrame.rotation`` reads it."""
    path = tmp_path / "clip.mp4"
    pictures.write_shape(path, pictures.Shape(64, 48, rotation=90), np.zeros((48, 64), np.uint8))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.rotation == -90
    assert turning(bytes(frame.side_data.get("DISPLAYMATRIX"))) == (90, False)


@given(st.binary(min_size=36, max_size=36))
def test_no_matrix_is_too_odd_to_be_judged(matrix: bytes) -> None:
    told = turning(matrix)
    assert told is None or (told[0] in (0, 90, 180, 270) and isinstance(told[1], bool))


@given(st.fractions())
def test_pixels_have_two_positive_sides_whatever_is_said(aspect: Fraction) -> None:
    across, down = pixel_aspect(aspect)
    assert 1 <= across <= 65_536
    assert 1 <= down <= 65_536
    if Fraction(1, 1000) < aspect < 1000:
        assert across / down == pytest.approx(float(aspect), rel=1e-3)


def remark(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Play a clip; return what health() says of its pictures, which is logged once."""
    caplog.clear()
    source = MediaSource(str(path), images=("image",), realtime=False)
    with caplog.at_level(logging.WARNING, "mmedge.capture"):
        frames: list[Any] = []
        source.start(frames.append)
        deadline = time.monotonic() + 60
        while len(frames) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        reason = source.health().reason or ""
        source.stop()
    assert len(caplog.messages) <= 1, caplog.messages
    assert all(message.splitlines()[0] in reason for message in caplog.messages)
    return "".join(caplog.messages)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"color_trc": 16}, "HDR (PQ)"),
        ({"color_trc": 18}, "HDR (HLG)"),
        ({"colorspace": 8}, "YCgCo"),
        ({"colorspace": 10}, "constant luminance"),
        ({"colorspace": 1, "color_trc": 1, "color_range": 1}, ""),
        ({}, ""),
    ],
)
def test_what_cannot_be_applied_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tags: dict[str, int], said: str
) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for name, value in tags.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    text = remark(path, caplog)
    assert said in text
    assert bool(text) == bool(said)


def test_an_odd_angle_is_said_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "clip.mp4"
    pictures.write_shape(path, pictures.Shape(64, 48, rotation=30), np.zeros((48, 64), np.uint8))
    assert pictures.read(path)[0].description.rotation == 0
    assert "no multiple of 90 degrees" in "".join(caplog.messages)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt-get install ffmpeg")
def test_the_containers_pixel_aspect_counts_before_the_streams(tmp_path: Path) -> None:
    whole, stream = tmp_path / "clip.mkv", tmp_path / "clip.h264"
    pictures.write_shape(stream, pictures.Shape(64, 48), np.zeros((48, 64), np.uint8))
    command = ["ffmpeg", "-v", "error", "-i", str(stream), "-c", "copy", "-aspect", "8:3", str(whole)]
    subprocess.run(command, check=True)
    with av.open(str(whole)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2, "the clip is not what it should be"
    assert pictures.read(whole)[0].description.pixel_aspect == (2, 1)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt-get install ffmpeg")
@pytest.mark.parametrize(("rotate", "flip", "turn"), [(90, None, (270, False)), (0, "vertical", (180, True))])
def test_a_key_frame_says_how_those_after_it_are_turned(
    tmp_path: Path, rotate: int, flip: str | None, turn: tuple[int, bool]
) -> None:
    """The display orientation of an H.264 stream, which FFmpeg gives with the key frames alone."""
    path = tmp_path / "clip.h264"
    orientation = f"h264_metadata=display_orientation=insert:rotate={rotate}" + (f":flip={flip}" if flip else "")
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.4", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-bf", "0")
    subprocess.run(["ffmpeg", "-v", "error", *source, "-bsf:v", orientation, str(path)], check=True)
    said = [frame.description for frame in pictures.read(path, 10)]
    assert [(text.rotation, text.mirrored) for text in said] == [turn] * 10


def test_a_stream_that_changes_the_shape_of_its_pixels_is_followed(tmp_path: Path) -> None:
    """H.264 without a container."""
    path = tmp_path / "clip.h264"
    for aspect in ((64, 45), (16, 15)):
        part = tmp_path / f"{aspect[0]}.h264"
        pictures.write_shape(part, pictures.Shape(64, 48, aspect), np.zeros((48, 64), np.uint8))
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    assert [frame.description.pixel_aspect for frame in pictures.read(path, 2)] == [(64, 45), (16, 15)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_no_picture_has_the_shape_of_those_that_are_decoded_before_it_leaves(tmp_path: Path, codec: str) -> None:
    """Pictures leave a decoder late where others refer to later ones."""
    path = tmp_path / "clip.bin"
    for aspect in ("4/3", "16/9"):
        part = tmp_path / "part.bin"
        form = ("-f", "h264" if codec == "libx264" else "mpeg2video")
        source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:r=25:d=0.4", "-vf", f"setdar={aspect}", "-pix_fmt", "yuv420p")
        subprocess.run(
            ["ffmpeg", "-y", "-v", "error", *source, "-c:v", codec, "-bf", "2", *form, str(part)], check=True
        )
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    shapes = [a / b for a, b in (frame.description.pixel_aspect for frame in pictures.read(path, 20))]
    assert shapes == pytest.approx([4 / 3 * 0.6] * 10 + [16 / 9 * 0.6] * (len(shapes) - 10))
    assert len(shapes) >= 19


def test_a_key_frame_that_says_nothing_ends_a_turn(tmp_path: Path) -> None:
    path = tmp_path / "clip.h264"
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.4", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-bf", "0")
    for turn in (("-bsf:v", "h264_metadata=display_orientation=insert:rotate=90"), ()):
        part = tmp_path / "part.h264"
        subprocess.run(["ffmpeg", "-y", "-v", "error", *source, *turn, str(part)], check=True)
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    assert [frame.description.rotation for frame in pictures.read(path, 20)] == [270] * 10 + [0] * 10


@pytest.mark.parametrize(
    ("name", "layout", "through"),
    [
        ("yuv420p", "yuv420p", "yuv420p"),
        ("yuvj422p", "yuv422p", "yuvj422p"),
        ("nv12", "nv12", "nv12"),
        ("nv16", "yuv422p", "yuv422p"),
        ("yuyv422", "yuv422p", "yuv422p"),
        ("uyyvyy411", "yuv422p", "yuv422p"),
        ("yuv440p", "yuv444p", "yuv444p"),
        ("yuv410p", "yuv420p", "yuv420p"),
        ("p010le", "p010le", "p010le"),
        ("p010be", "yuv420p", "yuv420p16le"),
        ("yuv420p10le", "yuv420p10le", "yuv420p10le"),
        ("yuv420p9le", "yuv420p", "yuv420p9le"),
        ("yuv422p12be", "yuv422p", "yuv422p16le"),
        ("yuv444p10le", "yuv444p", "yuv444p10le"),
        ("yuva444p10le", "yuv444p", "yuv444p16le"),
        ("gray12le", "gray8", "gray12le"),
        ("monow", "gray8", "gray"),
        ("pal8", "rgb24", "rgb24"),
        ("gbrp12le", "rgb24", "rgb24"),
        ("bayer_bggr8", "rgb24", "rgb24"),
    ],
)
def test_a_layout_never_loses_chroma(name: str, layout: str, through: str) -> None:
    assert layout_of(av.VideoFormat(name)) == (layout, through)


def test_every_format_of_ffmpeg_has_a_layout_with_its_chroma() -> None:
    formats = [av.VideoFormat(name, 64, 64) for name in av.video.format.names - {"none"}]
    for format in formats:
        if not format.components:  # pictures that lie in a graphics card
            continue
        layout, through = layout_of(format)
        if layout.startswith("yuv") or layout == "nv12":
            assert av.VideoFormat(through, 64, 64).chroma_width() >= format.chroma_width(), format.name
            assert av.VideoFormat(through, 64, 64).chroma_height() >= format.chroma_height(), format.name


def test_the_defaults_change_nothing() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    frame = pictures.Frame(
        stream="i", seq=0, capture_ns=0, arrive_ns=0, data=picture[..., 0], format="gray8", width=6, height=4
    )
    assert frame.description == Description()
    np.testing.assert_array_equal(reference.upright(picture, frame), picture)


@pytest.mark.parametrize(
    ("fourcc", "colorspace", "encoding", "span", "said"),
    [
        (b"YUYV", 8, 0, 0, None),
        (b"YUYV", 3, 0, 0, "BT.709"),
        (b"NV12", 8, 2, 1, "BT.709, full range"),
        (b"UYVY", 1, 1, 2, None),
        (b"UYVY", 10, 0, 2, "BT.2020"),
        (b"YUYV", 7, 0, 0, "full range"),
        (b"MJPG", 3, 0, 0, None),
    ],
)
def test_what_a_camera_driver_says_is_compared_with_what_opencv_does(
    fourcc: bytes, colorspace: int, encoding: int, span: int, said: str | None
) -> None:
    fields = (1, 640, 480, int.from_bytes(fourcc, "little"), 1, 1280, 614_400, colorspace, 0, 0, encoding, span, 0)
    assert colours_of(struct.pack("=I4x12I", *fields).ljust(208, b"\0")) == said
    assert driver_colours("/dev/null") is None
    assert driver_colours("/dev/no-such-camera") is None


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, (0, False)),
        (2, (0, True)),
        (3, (180, False)),
        (4, (180, True)),
        (5, (90, True)),
        (6, (90, False)),
        (7, (270, True)),
        (8, (270, False)),
    ],
)
def test_photos_are_turned_as_their_exif_says(tmp_path: Path, orientation: int, turn: tuple[int, bool]) -> None:
    plain, path = tmp_path / "plain.jpg", tmp_path / "photo.jpg"
    with av.open(str(plain), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64), np.uint8), format="gray")
        for packet in (*stream.encode(picture.reformat(format="yuvj420p")), *stream.encode(None)):
            container.mux(packet)
    # One directory with one entry: tag 0x0112, a short.
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    data = plain.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    said = pictures.read(path)[0].description
    assert (said.rotation, said.mirrored) == turn


def test_pictures_give_their_memory_back_at_once(tmp_path: Path) -> None:
    """A PyAV frame that refers to itself waits for the garbage collector, and with it megabytes of picture."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(120):  # every picture is a key frame: some are looked at
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    gc.collect()
    gc.disable()
    try:
        pictures.read(path)
        # Not isinstance: it asks each object for its class, which some of other packages answer with a warning.
        held = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
    finally:
        gc.enable()
    assert len(held) <= 3  # the newest, the decoder's next, and the last that was written here
