"""Interlaced pictures: made whole, one for one, at their own times; progressive ones are not touched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import media_clips as clips
from mmedge.capture.interlace import Deinterlacer, Picture
from mmedge.extras import require

pytestmark = pytest.mark.parallel

STEP = 4  # columns that the bar moves from one field to the next


def bar(index: int, top_first: bool) -> Any:
    """Return a picture of two fields: a bar that moves from the first to the second."""
    picture = np.full((360, 320), 128, np.uint8)
    picture[:240] = 40
    for row in (0, 1):
        late = (row == 0) != top_first
        at = 20 + STEP * (2 * index + late)
        picture[row:240:2, at : at + 30] = 200
    return picture


def woven(path: Path, codec: str, top_first: bool, pictures: int = 25) -> Path:
    av = require("av", "this test")
    graph = av.filter.Graph()
    source = graph.add("buffer", "video_size=320x240:pix_fmt=yuv420p:time_base=1/25")
    mark = graph.add("setfield", "tff" if top_first else "bff")
    sink = graph.add("buffersink")
    source.link_to(mark)
    mark.link_to(sink)
    graph.configure()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"b": "6000000"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        flags = av.codec.context.Flags
        stream.codec_context.flags |= int(flags.interlaced_dct) | int(flags.interlaced_me)
        for index in range(pictures):
            frame = av.VideoFrame.from_ndarray(bar(index, top_first), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.push(frame)
            container.mux(stream.encode(graph.pull()))
        container.mux(stream.encode(None))
    return path


def combed(luma: Any) -> float:
    """Return how much rows differ from the mean of their neighbours."""
    return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mkv"), ("libx264", "mp4"), ("mpeg2video", "ts")])
def test_the_first_field_becomes_the_picture(codec: str, suffix: str, top_first: bool, tmp_path: Path) -> None:
    played = clips.play(woven(tmp_path / f"clip.{suffix}", codec, top_first))
    times = [time_ns for time_ns, _, _ in played.pictures]
    assert times == pytest.approx([k * 40_000_000 for k in range(25)], abs=1)
    for index, (_, luma, damaged) in enumerate(played.pictures):
        assert not damaged
        assert combed(luma) < 2  # woven as they came: 17
        first = 20 + 2 * STEP * index
        assert abs(int(np.argmax(luma[120] > 120)) - first) <= 1
        assert abs(int(np.argmax(luma[121] > 120)) - first) <= 1
    assert played.reason is None or "bwdif makes whole ones" in played.reason


def test_it_is_said_once_in_health(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips.play(woven(tmp_path / "clip.mkv", "libx264", True))
    assert caplog.text.count("its pictures are interlaced: bwdif makes whole ones of them") == 1


def test_without_a_filter_it_is_said_and_they_pass_as_they_are() -> None:
    av = require("av", "this test")
    said: list[str] = []
    filter_less = Deinterlacer(said.append)
    filter_less._filter = None
    frame = av.VideoFrame.from_ndarray(bar(0, True), format="yuv420p")
    progressive = Picture(0, frame, False, 0, 0)
    assert list(filter_less.pass_on(progressive)) == [progressive]
    assert said == []
    graph = av.filter.Graph()
    source, sink = graph.add("buffer", "video_size=320x240:pix_fmt=yuv420p:time_base=1/25"), graph.add("buffersink")
    mark = graph.add("setfield", "tff")
    source.link_to(mark)
    mark.link_to(sink)
    graph.configure()
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph.push(frame)
    interlaced = Picture(0, graph.pull(), False, 0, 0)
    assert list(filter_less.pass_on(interlaced)) == [interlaced]
    assert "no filter" in said[0]


def test_progressive_pictures_are_the_decoders_own(tmp_path: Path) -> None:
    path = clips.moving(tmp_path / "clip.mkv", "h264", 10)
    played = clips.play(path)
    assert played.reason is None or "interlaced" not in played.reason
    with require("av", "this test").open(str(path)) as container:
        for frame, (_, luma, _) in zip(container.decode(video=0), played.pictures, strict=True):
            plane = np.frombuffer(frame.planes[0], np.uint8).reshape(240, -1)[:, :320]
            assert np.array_equal(plane, luma)
