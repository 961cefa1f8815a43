"""Files that few cameras make: what FFmpeg shows of them, the network is given, or the input says why not."""

from __future__ import annotations

import subprocess
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import media_clips as clips
from mmedge.capture.h264 import zeroed
from mmedge.capture.media import MediaSource
from mmedge.types import EndOfStream

pytestmark = pytest.mark.parallel

pictures = pytest.importorskip("benchmarks.media_pictures")


def write(path: Path, codec: str, format: str, size: tuple[int, int] = (160, 96), count: int = 20) -> list[Any]:
    """Write a clip; return what FFmpeg decodes of it, uint8 RGB."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"strict": "-2"})
        stream.width, stream.height, stream.pix_fmt = width, height, format
        for index in range(count):
            rgb = np.stack([x + 4 * index, 2 * y, x + y], 2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def last(path: Path) -> str | None:
    """Return why the pictures of a file ended."""
    reasons: list[str | None] = []
    done = threading.Event()

    def emit(packet: Any) -> None:
        if isinstance(packet, EndOfStream):
            reasons.append(packet.reason)
            done.set()
        elif packet.release is not None:
            packet.release()

    source = MediaSource(str(path), images=("image",), realtime=False)
    source.start(emit)
    assert done.wait(60)
    source.stop()
    return reasons[0]


# The decoders of the first four never say that a picture is a key frame; TIFF's stops at private tags if it is strict;
# AMV's rows lie upside down in memory.
@pytest.mark.parametrize(
    ("codec", "format"),
    [
        ("cfhd", "yuv422p10le"),
        ("flashsv", "bgr24"),
        ("msvideo1", "rgb555le"),
        ("svq1", "yuv410p"),
        ("tiff", "rgb24"),
        ("amv", "yuvj420p"),
        ("qtrle", "rgb24"),
        ("hap", "rgba"),
        ("huffyuv", "yuv422p"),
        ("ffvhuff", "yuv420p"),
        ("dvvideo", "yuv420p"),
        ("snow", "yuv420p"),
        ("jpeg2000", "rgb24"),
        ("magicyuv", "gbrp"),
        ("prores_ks", "yuv422p10le"),
        ("mpeg1video", "yuv420p"),
        ("flv1", "yuv420p"),
        ("wmv2", "yuv420p"),
    ],
)
def test_every_picture_of_an_undamaged_clip_is_given(tmp_path: Path, codec: str, format: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    size = (720, 576) if codec == "dvvideo" else (160, 96)
    for suffix in (".mkv", ".mov", ".avi"):
        path = tmp_path / f"clip{suffix}"
        try:
            want = write(path, codec, format, size)
        except (ValueError, av.error.FFmpegError):
            continue
        if want:
            break
    else:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    frames = pictures.read(path, len(want))
    assert len(frames) == len(want)
    assert not any(frame.damaged for frame in frames)
    # Sharp edges of chroma differ: FFmpeg's tables interpolate them.
    assert max(np.abs(pictures.pixels(f).astype(int) - w).mean() for f, w in zip(frames, want, strict=True)) < 4


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (2, 1), (5, 3)])
@pytest.mark.parametrize("format", ["yuv410p", "yuv422p", "yuv444p"])
def test_pictures_of_one_row_or_column_are_pictures(tmp_path: Path, size: tuple[int, int], format: str) -> None:
    try:
        want = write(tmp_path / "clip.mkv", "ffv1", format, size, count=2)
    except av.error.FFmpegError:
        pytest.skip("FFV1 does not take this size")
    frames = pictures.read(tmp_path / "clip.mkv", 2)
    assert len(frames) == len(want)
    got = pictures.pixels(frames[0]).astype(int)
    assert np.abs(got - want[0][: got.shape[0], : got.shape[1]]).max() < 12


@pytest.mark.parametrize("size", [(64, 2), (2, 64), (64, 14), (14, 48), (16, 16)])
def test_interlaced_pictures_that_are_too_small_for_the_filter_pass(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "clip.mkv"
    pattern = ("-f", "lavfi", "-i", f"testsrc2=s={size[0]}x{size[1]}:r=25:d=0.4", "-vf", "setfield=tff")
    coding = ("-c:v", "ffv1", "-pix_fmt", "yuv420p", "-field_order", "tt", "-flags", "+ildct")
    subprocess.run(["ffmpeg", "-v", "error", *pattern, *coding, str(path)], check=True)
    frames = pictures.read(path, 20)
    assert [(frame.width, frame.height) for frame in frames] == [size] * 10


def photo(path: Path) -> bytes:
    """Write a photograph; return its bytes."""
    frame = av.VideoFrame.from_ndarray(clips.scene(3), format="rgb24")
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream: Any = container.add_stream("png" if path.suffix == ".png" else "mjpeg", rate=1)
        stream.width, stream.height = clips.SIZE
        stream.pix_fmt = "rgb24" if path.suffix == ".png" else "yuvj420p"
        container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["truncated", "zeros"])
def test_a_damaged_photograph_is_damaged_though_it_is_the_first(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    data = photo(path)
    assert [frame.damaged for frame in pictures.read(path)] == [False]
    middle = len(data) // 2
    path.write_bytes(data[:middle] + (b"" if kind == "truncated" else bytes(200) + data[middle + 200 :]))
    assert [frame.damaged for frame in pictures.read(path)] == [True]


def test_a_file_of_which_nothing_can_be_decoded_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    data = photo(path)
    assert last(path) is None
    path.write_bytes(data[: len(data) // 2])
    assert last(path) == "none of its pictures can be decoded"


@pytest.mark.parametrize("suffix", [".avi", ".mjpeg"])
def test_pictures_that_do_not_come_out_keep_their_place_where_times_are_not_stated(tmp_path: Path, suffix: str) -> None:
    whole_clip = clips.moving(tmp_path / "whole.mkv", "mjpeg", 12)
    for name in ("whole", "hurt"):
        with av.open(str(whole_clip)) as source, av.open(str(tmp_path / f"{name}{suffix}"), "w") as sink:
            track = sink.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(source.demux(video=0)):
                if not packet.size:
                    continue
                data = bytearray(bytes(packet))
                if name == "hurt" and number in (4, 5, 11):
                    at = data.index(b"\xff\xc0")
                    data[at + 5 : at + 9] = bytes(4)  # a picture of no size
                new = av.Packet(bytes(data))
                new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, track
                new.is_keyframe = True
                sink.mux(new)
    whole, hurt = (clips.play(tmp_path / f"{name}{suffix}") for name in ("whole", "hurt"))
    assert [time_ns for time_ns, _, _ in hurt.pictures] == [time_ns for time_ns, _, _ in whole.pictures]
    assert [number for number, (_, _, damaged) in enumerate(hurt.pictures) if damaged] == [4, 5, 11]


def test_a_packet_without_a_byte_repeats_a_picture_and_ends_nothing(tmp_path: Path) -> None:
    """Theora says so that nothing has changed."""
    path, still = tmp_path / "clip.mkv", np.zeros((48, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        made = []
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(still + 10 * index, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            made += stream.encode(frame)
        for number, packet in enumerate([*made, *stream.encode(None)]):
            new = av.Packet(b"" if number in (3, 4, 18) else bytes(packet))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.stream, new.is_keyframe = stream, packet.is_keyframe
            container.mux(new)
    with av.open(str(path)) as source:
        sizes = [packet.size for packet in source.demux(video=0)]
    frames = pictures.read(path, 40)
    assert len(frames) == sum(size > 0 for size in sizes)
    assert last(path) is None


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_holes_of_zeros_in_a_file_are_noticed(tmp_path: Path, codec: str, suffix: str) -> None:
    """A disk or a download leaves them; an arithmetic code decodes zeros as well as anything."""
    path, hurt = clips.moving(tmp_path / f"clip{suffix}", codec, 60), tmp_path / f"hurt{suffix}"
    whole = clips.play(path)
    assert not any(said for _, _, said in whole.pictures)
    damaged = unnoticed = 0
    for seed in range(3):
        clips.with_hurt_packets(path, hurt, "zeros", 0.05, seed)
        score = clips.score(whole, clips.play(hurt))
        damaged, unnoticed = damaged + score.damaged, unnoticed + score.unnoticed
    assert damaged > 5
    assert unnoticed == 0


@given(st.binary(max_size=60), st.binary(max_size=30), st.sampled_from(["h264", "hevc", "vp9"]))
def test_no_packet_breaks_who_looks_for_zeros(packet: bytes, extradata: bytes, codec: str) -> None:
    for data in (packet, bytes(3) + packet, b"\0\0\0\5\x65\0\0\0\1" + packet):
        assert isinstance(zeroed(data, b"\1" + extradata, codec), bool)
    assert not zeroed(packet, None, codec)


def test_a_track_that_ffmpeg_cannot_decode_is_absent_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        odd: Any = container.add_stream("ffv1", rate=25)
        odd.width, odd.height, odd.pix_fmt = 64, 48, "gray"
        sound: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        block.sample_rate, block.pts = 8000, 0
        picture = av.VideoFrame(64, 48, "gray")
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        for stream, frame in ((odd, picture), (sound, block), (odd, None), (sound, None)):
            container.mux(stream.encode(frame))
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_FFV9"))  # nobody has it
    assert last(path) == "clip.mkv has video track 0 in a coding that this FFmpeg cannot decode"
