"""Pictures against their own sound, in every container and codec that states its times."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import media_clips as clips
from benchmarks.media_times import CONTAINERS, VIDEOS
from mmedge.capture.base import StartTime
from mmedge.capture.times import PictureTimes
from mmedge.extras import require

pytestmark = pytest.mark.parallel

S = 1_000_000_000
PAIRS = [(c, *pair) for c, (videos, audios) in CONTAINERS.items() for pair in product(videos, audios)]


@pytest.mark.parametrize(("container", "video", "audio"), PAIRS)
def test_a_flash_and_its_click_are_together(container: str, video: str, audio: str, tmp_path: Path) -> None:
    codec, options = VIDEOS[video]
    clip = clips.flash_and_click(tmp_path / f"clip.{container}", codec, audio, options=options)
    assert abs(clips.apart_samples(clip)) <= 1


@pytest.mark.parametrize("starts", [{"video_s": 0.2}, {"audio_s": 0.2}, {"video_s": -0.4}, {"audio_s": -0.4}])
@pytest.mark.parametrize(
    ("container", "video", "audio"),
    [
        ("mkv", "libx264", "pcm_s16le"),
        ("mov", "mpeg4", "pcm_s16le"),
        ("ts", "libx264", "aac"),
        ("nut", "ffv1", "pcm_s16le"),
    ],
)
def test_a_file_has_one_origin_over_all_its_tracks(
    container: str, video: str, audio: str, starts: dict[str, float], tmp_path: Path
) -> None:
    """Also where two inputs read the same file by themselves, each another track."""
    clip = clips.flash_and_click(tmp_path / f"clip.{container}", video, audio, **starts)  # type: ignore[arg-type]
    assert abs(clips.apart_samples(clip)) <= 1
    base = StartTime()
    seen = clips.play(clip, base=base)
    heard = clips.play(clip, images=False, rate_hz=48_000, base=base)
    flash_ns = next(time_ns for time_ns, luma, _ in seen.pictures if luma.mean() > 150)
    assert abs(flash_ns - clips.click_ns(heard, 48_000)) * 48_000 / S <= 1


def test_sound_that_begins_first_moves_pictures_that_are_read_alone(tmp_path: Path) -> None:
    clip = clips.flash_and_click(tmp_path / "clip.mkv", "libx264", "pcm_s16le", video_s=0.2)
    assert clips.play(clip).pictures[0][0] == 200_000_000


@pytest.mark.parametrize("fps", [10, 30, 50])
@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m4v", "mpeg4")])
def test_a_bare_stream_has_the_rate_of_its_codec(suffix: str, codec: str, fps: int, tmp_path: Path) -> None:
    av = require("av", "this test")
    path = tmp_path / f"clip.{suffix}"
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(2 * fps):
            grey = np.full((72, 64), 128, np.uint8)
            grey[:48] = 235 if index >= fps else 16
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    played = clips.play(path)
    assert [time_ns for time_ns, _, _ in played.pictures] == [round(k * S / fps) for k in range(2 * fps)]
    assert next(time_ns for time_ns, luma, _ in played.pictures if luma.mean() > 120) == S


class _Frame:
    def __init__(self, pts: int | None, dts: int | None) -> None:
        self.pts, self.dts, self.time_base = pts, dts, Fraction(1, 1000)


def test_presentation_times_that_run_back_yield_to_decoding_times(write_clip: Any) -> None:
    """FFmpeg's rule: whichever of the two ran back less often."""
    with require("av", "this test").open(str(write_clip("clip.mkv"))) as container:
        times = PictureTimes(container.streams.video[0])
        given = [(0, 0), (80, 40), (40, 80), (120, 120), (None, 160), (200, 200)]
        assert [times.of_ns(_Frame(*pair)) // 1_000_000 for pair in given] == [0, 80, 80, 120, 160, 200]
