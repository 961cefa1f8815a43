"""Media files: clips of every kind on one timeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmedge.capture.base import StartTime
from mmedge.capture.media import MediaSource
from mmedge.capture.picture import frame_shape
from mmedge.errors import ConfigError, SourceError
from mmedge.types import Block, EndOfStream, Frame, Packet

S = 1_000_000_000


class Played:
    """Everything a clip gave."""

    def __init__(self, path: Path, *, held: int = 0, rate_hz: int = 8000, **options: Any) -> None:
        self.base = StartTime()
        options = {"images": ("image",), "sounds": {"audio": rate_hz}, "realtime": False, **options}
        self.source = MediaSource(str(path), base=self.base, **options)
        self.frames: list[Frame] = []
        self.means: list[float] = []
        self.blocks: list[Block] = []
        self.ends: dict[str, str | None] = {}
        self.order: list[int] = []
        self.late_ns: list[int] = []
        self._held = held
        done = threading.Event()
        kept: list[Callable[[], None]] = []

        def emit(packet: Packet) -> None:
            self.late_ns.append(time.monotonic_ns() - packet.capture_ns)
            if isinstance(packet, EndOfStream):
                self.ends[packet.stream] = packet.reason
                if len(self.ends) == len(self.source.streams):
                    done.set()
                return
            if not (isinstance(packet, Block) and not len(packet.samples)):  # a hole is said where it begins
                self.order.append(packet.capture_ns)
            if isinstance(packet, Frame):
                self.frames.append(packet)
                self.means.append(float(packet.data[: packet.height].mean()))
                assert packet.release is not None
                kept.append(packet.release)
                if len(kept) > self._held:
                    kept.pop(0)()
            elif isinstance(packet, Block):
                self.blocks.append(packet)

        self.source.start(emit)
        try:
            assert done.wait(60), self.source.health()
        finally:
            self.source.stop()

    @property
    def sound(self) -> Any:
        return np.concatenate([b.samples for b in self.blocks])

    def times_s(self) -> list[float]:
        return [(f.capture_ns - self.base.get()) / S for f in self.frames]


def tone(seconds: float, rate_hz: int, channels: int = 1) -> Any:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[None], channels, axis=0)


def pitch_hz(sound: Any, rate_hz: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound))) * rate_hz / len(sound))


@pytest.mark.parametrize(
    "options",
    [
        {"sound": tone(1, 48000), "rate_hz": 48000},
        {"sound": tone(1, 24000), "rate_hz": 24000},
        {"sound": tone(1, 48000, 2), "rate_hz": 48000, "layout": "stereo"},
        {"sound": tone(1, 48000, 6), "rate_hz": 48000, "layout": "5.1"},
        {"sound": tone(1, 48000, 6), "rate_hz": 48000, "layout": "5.1", "audio_codec": "pcm_s16le"},
        {"sound": tone(1, 44100), "rate_hz": 44100, "audio_first": True},
        {"sound": tone(1, 48000), "rate_hz": 48000, "interleave": False},
        {"sound": tone(1, 8000), "rate_hz": 8000},
    ],
    ids=["48k", "24k", "stereo", "5.1 float", "5.1", "sound is stream 0", "one track after the other", "same rate"],
)
def test_sound_and_pictures_lie_on_one_timeline(write_clip: Any, options: dict[str, Any]) -> None:
    played = Played(write_clip(**options))
    assert played.times_s() == pytest.approx([k / 25 for k in range(25)], abs=1e-6)
    assert [round(m) for m in played.means] == [16 + round(4 * k) for k in range(25)]
    assert [f.seq for f in played.frames] == list(range(25))
    assert len(played.sound) == 8000
    assert played.blocks[-1].capture_ns - played.base.get() == pytest.approx(S, abs=1000)
    assert pitch_hz(played.sound, 8000) == 440
    assert np.sqrt(np.mean(played.sound[800:-800] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    for before, after in pairwise(played.blocks):
        assert after.capture_ns - before.capture_ns == pytest.approx(len(after.samples) * 125_000, abs=2)
    assert played.order == sorted(played.order)
    assert played.ends == {"image": None, "audio": None}
    assert sum(b.lost for b in played.blocks) == 0


def test_h264_and_aac_keep_their_distance(write_clip: Any) -> None:
    """A flash and a click at the same time stay together through B frames and codec priming."""
    t = np.arange(96000) / 48000
    click = 0.8 * np.sin(2 * np.pi * 1000 * t) * ((t >= 1.0) & (t < 1.1))
    clip = write_clip(
        "clip.mp4",
        times_s=[k / 25 for k in range(50)],
        picture=lambda s: 235 if s >= 1 - 1e-6 else 16,
        video_codec="libx264",
        audio_codec="aac",
        sound=click[None],
        rate_hz=48000,
    )
    played = Played(clip)
    flash_s = next(s for s, mean in zip(played.times_s(), played.means, strict=True) if mean > 100)
    first = played.blocks[0]
    start_s = (first.capture_ns - played.base.get()) / S - len(first.samples) / 8000
    beep_s = start_s + int(np.flatnonzero(np.abs(played.sound) > 0.2)[0]) / 8000
    assert len(played.frames) == 50
    assert abs(flash_s - beep_s) < 0.005


def test_variable_frame_rate_and_late_sound(write_clip: Any) -> None:
    times = [0.0, 0.01, 0.05, 0.5, 0.52, 0.9]
    played = Played(write_clip(times_s=times, sound=tone(0.5, 8000), audio_start_s=0.25))
    assert played.times_s() == pytest.approx(times, abs=2e-5)
    first = played.blocks[0]
    assert first.capture_ns - len(first.samples) * 125_000 - played.base.get() == pytest.approx(S // 4, abs=1000)


def test_missing_tracks_are_declared_and_the_rest_plays(write_clip: Any) -> None:
    silent = Played(write_clip(sound=None))
    assert silent.ends == {"audio": "clip.nut has no audio track", "image": None}
    assert len(silent.frames) == 25
    blind = Played(write_clip("sound.wav", times_s=None, sound=tone(1, 8000), audio_codec="pcm_s16le"))
    assert blind.ends == {"image": "sound.wav has no video track", "audio": None}
    assert len(blind.sound) == 8000


def test_a_gap_in_the_sound_is_lost_samples(write_clip: Any) -> None:
    played = Played(write_clip(sound=tone(1, 48000), rate_hz=48000, drop_audio_s=(0.3, 0.6)))
    assert [b.lost for b in played.blocks if b.lost] == [2400]
    assert played.blocks[-1].capture_ns - played.base.get() == pytest.approx(S, abs=1000)
    assert played.source.health().counters["lost_samples"] == 2400


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "channels"),
    [("clip.nut", 1), ("clip.wav", 1), ("clip.mov", 1), ("clip.wav", 2)],  # MOV alone says "mono", not "1 channels"
)
def test_sound_that_is_not_finite_becomes_a_hole(
    write_clip: Any, caplog: pytest.LogCaptureFixture, name: str, channels: int, bad: float
) -> None:
    sound = tone(1, 8000, channels)
    sound[-1, [4000, 7000]] = bad
    layout = "mono" if channels == 1 else "stereo"
    clip = write_clip(name, times_s=None, sound=sound, layout=layout)
    played = Played(clip, images=())
    heard = np.full(8000, np.nan)
    for block in played.blocks:
        end = round((block.capture_ns - played.base.get()) * 8000 / S)
        heard[end - len(block.samples) : end] = block.samples
    lost = np.isnan(heard)
    assert lost[[4000, 7000]].all()
    assert heard[~lost] == pytest.approx(sound[0][~lost], abs=1e-6)
    counters = played.source.health().counters
    assert counters["refused_not_finite"] == 2
    assert lost.sum() == counters["lost_samples"] == sum(b.lost for b in played.blocks) < 2500
    refused = played.source.refused
    assert refused is not None
    assert refused.message == "sound of input 'audio' was refused: it has samples that are not finite"
    assert str(refused.where).startswith(str(clip))
    assert refused.message in str(played.source.health().reason)
    (told,) = [record.message for record in caplog.records if "refused" in record.message]
    assert f"where: {clip}: {np.flatnonzero(lost)[0] / 8000:.3f} s" in told, "the first alone, and where it was"


def test_a_file_that_begins_with_what_is_not_finite_begins_where_that_does(write_clip: Any) -> None:
    sound = tone(1, 8000)
    sound[0, 0] = np.nan
    played = Played(write_clip(sound=sound))
    assert played.times_s()[0] == pytest.approx(0, abs=1e-6)
    assert (played.blocks[0].lost, len(played.sound)) == (160, 7840)
    assert played.source.refused_streams == ("audio",)
    assert played.blocks[-1].capture_ns - played.base.get() == pytest.approx(S, abs=1000)


@pytest.mark.parametrize("name", ["clip.nut", "clip.wav", "clip.mov"])
def test_one_channel_above_full_scale_is_not_clipped(write_clip: Any, name: str) -> None:
    played = Played(write_clip(name, times_s=None, sound=3 * tone(1, 8000)), images=())
    assert np.abs(played.sound).max() == pytest.approx(1.5, abs=0.01)
    assert played.source.refused is None


def test_sound_that_stops_long_before_the_pictures_holds_nothing_back(write_clip: Any) -> None:
    """Twenty seconds of pictures after the sound: a reader that waits for the sound still gets its time."""
    clip = write_clip(times_s=[k / 5 for k in range(150)], sound=tone(30, 8000), drop_audio_s=(2, 27))
    played = Played(clip)
    waits = [f.capture_ns for f in played.frames]
    assert len(waits) == 150
    empty = [b for b in played.blocks if not len(b.samples)]
    assert empty
    assert sum(b.lost for b in played.blocks) == 25 * 8000
    assert played.order == sorted(played.order)


@pytest.mark.parametrize(
    ("pix_fmt", "full_range", "format"),
    [
        ("yuv420p", True, "yuv420p"),
        ("yuv444p", False, "yuv444p"),
        ("yuv444p", True, "yuv444p"),
        ("yuv422p", False, "yuv422p"),
        ("gray", True, "gray8"),
        ("yuv420p10le", False, "yuv420p10le"),
        ("yuv420p12le", False, "yuv420p"),
        ("yuv411p", False, "yuv422p"),
        ("yuv440p", True, "yuv444p"),
        ("yuva420p", False, "yuv420p"),
    ],
)
def test_pixel_formats_keep_their_range_and_their_chroma(
    write_clip: Any, pix_fmt: str, full_range: bool, format: Any
) -> None:
    level = 200 if "1" not in pix_fmt.removeprefix("yuv411") else 0
    clip = write_clip("clip.mkv", pix_fmt=pix_fmt, full_range=full_range, picture=lambda _: level)
    played = Played(clip, sounds={})
    shapes = {(f.format, f.full_range, f.data.shape) for f in played.frames}
    assert shapes == {(format, full_range, frame_shape(format, 48, 64))}
    if level:
        assert all(abs(mean - 200) <= 1 for mean in played.means)


@pytest.mark.parametrize("full_range", [False, True])
def test_ten_bits_stay_ten_bits(tmp_path: Path, full_range: bool) -> None:
    """All levels there are, through a codec that loses nothing."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 1024, (72, 64), np.uint16)
    path = tmp_path / "ten.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p10le"
        frame = av.VideoFrame(64, 48, "yuv420p10le")
        frame.color_range = video.codec_context.color_range = 2 if full_range else 1
        luma, blue, red = picture[:48], *picture[48:].reshape(2, 24, 32)
        for plane, values in zip(frame.planes, (luma, blue, red), strict=True):
            plane.update(pad(values, plane.line_size))
        for packet in (*video.encode(frame), *video.encode()):
            container.mux(packet)
    (got,) = Played(path, sounds={}).frames
    assert (got.format, got.full_range) == ("yuv420p10le", full_range)
    assert np.array_equal(got.data.view("<u2"), picture)


def pad(values: Any, line_size: int) -> bytes:
    rows = np.zeros((len(values), line_size // 2), np.uint16)
    rows[:, : values.shape[1]] = values
    return rows.tobytes()


def test_odd_sizes_lose_their_last_row_and_column(write_clip: Any) -> None:
    played = Played(write_clip(size=(65, 49)), sounds={})
    assert {(f.width, f.height, f.data.shape) for f in played.frames} == {(64, 48, (72, 64))}


def test_planes_are_packed_without_padding(write_clip: Any) -> None:
    """Width 70 is padded inside the decoder; the luma ramp must come out unbroken."""
    played = Played(write_clip(size=(70, 48), times_s=[0.0], picture=lambda _: 77), sounds={})
    (frame,) = played.frames
    assert np.unique(frame.data[:48]).tolist() == [77]
    assert np.unique(frame.data.reshape(-1)[48 * 70 :]).tolist() == [128]


def test_a_frozen_picture_is_noticed(write_clip: Any) -> None:
    played = Played(write_clip(picture=lambda t: 100 if t >= 0.4 - 1e-6 else 16 + round(100 * t)), sounds={})
    unchanged = [f.unchanged_ns for f in played.frames]
    assert unchanged[:11] == [0] * 11
    assert unchanged[-1] == pytest.approx(14 * S // 25, abs=1000)


def test_realtime_delivers_nothing_early_and_speed_shortens_it(write_clip: Any) -> None:
    clip = write_clip(sound=tone(1, 48000), rate_hz=48000)
    played = Played(clip, realtime=True)
    assert min(played.late_ns) >= 0
    assert float(np.median(played.late_ns)) < 300_000_000
    clip = write_clip(times_s=[k / 25 for k in range(250)])
    began = time.monotonic()
    fast = Played(clip, sounds={}, realtime=True, speed=20.0)
    assert 0.48 < time.monotonic() - began < 9.9
    assert fast.times_s()[-1] == pytest.approx(9.96, abs=1e-6)  # the timeline stays the clip's


def test_a_reader_that_holds_frames_slows_a_file_down_and_loses_none(write_clip: Any) -> None:
    held = Played(write_clip(times_s=[k / 100 for k in range(100)]), sounds={}, held=12)
    assert len(held.frames) == 100
    assert "dropped_frames" not in held.source.health().counters


def test_live_drops_are_counted(write_clip: Any) -> None:
    live = Played(write_clip(times_s=[k / 100 for k in range(40)]), sounds={}, realtime=True, held=1000)
    assert len(live.frames) + live.source.health().counters["dropped_frames"] == 40
    assert len(live.frames) == 16


def test_stop_wakes_a_source_whose_slots_are_all_taken(write_clip: Any) -> None:
    source = MediaSource(str(write_clip(times_s=[k / 100 for k in range(50)])), images=("image",), realtime=False)
    kept: list[Packet] = []
    source.start(kept.append)
    deadline = time.monotonic() + 60
    while len(kept) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 50
    assert not any(thread.name == f"mmedge-{source.name}" for thread in threading.enumerate())
    assert source.error is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        MediaSource(str(tmp_path / "none.mp4"))
    with pytest.raises(ConfigError, match="is a folder"):
        MediaSource(str(tmp_path))
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(bytes(range(256)) * 64)
    with pytest.raises(SourceError, match="cannot be read as media"):
        MediaSource(str(junk))


def test_a_truncated_file_gives_what_it_has(write_clip: Any) -> None:
    clip = write_clip("whole.mkv", sound=tone(1, 48000), rate_hz=48000, video_codec="libx264", audio_codec="aac")
    cut = clip.with_name("cut.mkv")
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    played = Played(cut)
    assert 0 < len(played.frames) < 25
    assert set(played.ends) == {"image", "audio"}
