"""Clips for benchmarks and tests: moving pictures, damage, a flash with a click; and what a run gets of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmedge.capture.base import StartTime
from mmedge.capture.media import MediaSource
from mmedge.extras import require
from mmedge.types import NS_PER_S, AnyArray, Block, EndOfStream, Frame

SIZE = 320, 240
CODECS: Mapping[str, tuple[str, dict[str, str]]] = {
    "mjpeg": ("mjpeg", {"qscale": "5", "flags": "+qscale"}),
    "h264": ("libx264", {"preset": "fast", "g": "25"}),
    "h264 intra refresh": ("libx264", {"preset": "fast", "g": "25", "x264-params": "intra-refresh=1:bframes=0"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=25:log-level=none"}),
    "mpeg2": ("mpeg2video", {"g": "25", "bf": "2", "b": "2000000"}),
    "mpeg4": ("mpeg4", {"g": "25", "bf": "2", "b": "2000000"}),
    "vp8": ("libvpx", {"g": "25", "b": "1000000", "deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", {"g": "25", "b": "1000000", "deadline": "realtime", "cpu-used": "8"}),
}
KINDS = ("byte", "burst", "zeros", "truncated", "cut")


def scene(index: int) -> AnyArray:
    """Return picture number ``index`` of a moving scene, uint8 RGB [240, 320, 3]."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    texture = np.random.default_rng(5).integers(0, 60, (SIZE[1], SIZE[0]))
    picture = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    picture[..., 0] = (x * 2 + 5 * index) % 256
    picture[..., 1] = (y + 3 * index + np.roll(texture, 2 * index, 1)) % 256
    picture[..., 2] = (x + y) // 3 % 256
    across, down = int(160 + 100 * np.cos(index / 9)), int(120 + 70 * np.sin(index / 7))
    picture[(x - across) ** 2 + (y - down) ** 2 < 900] = (240, 240, 30)
    return picture


def moving(path: Path, codec: str, pictures: int = 100) -> Path:
    """Write the moving scene in one of ``CODECS``, 25 pictures a second; the name says the container."""
    av = require("av", "making clips")
    name, options = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=25, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(pictures):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def without_packets(clip: Path, out: Path, share: float, seed: int) -> Path:
    """Write a transport stream that lacks this share of its packets."""
    data, chance = clip.read_bytes(), random.Random(seed)
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    out.write_bytes(b"".join(p for index, p in enumerate(packets) if index < 20 or chance.random() >= share))
    return out


def hurt(data: bytes, kind: str, chance: random.Random) -> bytes:
    """Return a packet with one kind of damage behind its first tenth."""
    new, size = bytearray(data), len(data)
    at = chance.randrange(size // 10, size - 300)
    if kind == "byte":
        new[at] ^= chance.randrange(1, 256)
    elif kind == "burst":
        new[at : at + 16] = chance.randbytes(16)
    elif kind == "zeros":
        new[at : at + 256] = bytes(256)
    elif kind == "truncated":
        del new[at:]
    else:
        del new[at : at + 188]
    return bytes(new)


def with_hurt_packets(clip: Path, out: Path, kind: str, share: float, seed: int) -> Path:
    """Write a clip again with this share of its packets damaged."""
    av, chance = require("av", "making clips"), random.Random(seed)
    with av.open(str(clip)) as source, av.open(str(out), "w") as sink:
        track = sink.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            data = bytes(packet)
            chosen = number > 3 and (len(data) > 600 or kind == "lost") and chance.random() < share
            if chosen and kind == "lost":
                continue
            if chosen:
                data = hurt(data, kind, chance)
            new = av.Packet(data)
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, track
            sink.mux(new)
    return out


class Played(NamedTuple):
    """What a file gave: (time in ns, luma, damaged) of each picture, blocks with times in ns, counters, reason."""

    pictures: list[tuple[int, AnyArray, bool]]
    blocks: list[tuple[int, AnyArray]]
    counters: dict[str, int]
    reason: str | None


def play(path: Path, *, images: bool = True, rate_hz: int | None = None, base: StartTime | None = None) -> Played:
    """Read a file as a run does, as fast as it goes; times count from ``base``."""
    base = base or StartTime()
    sounds = {} if rate_hz is None else {"audio": rate_hz}
    source = MediaSource(str(path), images=("image",) if images else (), sounds=sounds, realtime=False, base=base)
    start_ns, done = base.get(), threading.Event()
    pictures: list[tuple[int, AnyArray, bool]] = []
    blocks: list[tuple[int, AnyArray]] = []
    reasons: list[str | None] = []
    open_streams = set(source.streams)

    def emit(packet: Any) -> None:
        if isinstance(packet, EndOfStream):
            reasons.append(source.health().reason)
            open_streams.discard(packet.stream)
            if not open_streams:
                done.set()
        elif isinstance(packet, Frame):
            luma = packet.data[: packet.height].astype(np.int16)
            pictures.append((packet.capture_ns - start_ns, luma, packet.damaged))
            if packet.release is not None:
                packet.release()
        elif isinstance(packet, Block):
            blocks.append((packet.capture_ns - start_ns, packet.samples))

    source.start(emit)
    try:
        if not done.wait(60):
            raise TimeoutError(f"'{path}' did not end")
    finally:
        source.stop()
    return Played(pictures, blocks, dict(source.counters), reasons[-1])


class Score(NamedTuple):
    """Of a damaged clip's pictures: all, those that differ from the whole clip's, and of those the unnoticed ones."""

    pictures: int
    damaged: int
    unnoticed: int


def score(whole: Played, played: Played, levels: float = 2.0) -> Score:
    """Compare with the whole clip: a picture is damaged when it differs by more than ``levels`` in the mean."""
    right = {round(time_ns / 1e6): luma for time_ns, luma, _ in whole.pictures}
    damaged = unnoticed = 0
    for time_ns, luma, said in played.pictures:
        want = right.get(round(time_ns / 1e6))
        wrong = want is None or want.shape != luma.shape or float(np.abs(want - luma).mean()) > levels
        damaged += wrong
        unnoticed += wrong and not said
    return Score(len(played.pictures), damaged, unnoticed)


def flash_and_click(
    path: Path,
    video: str,
    audio: str,
    *,
    at_s: float = 1.0,
    fps: int = 25,
    rate_hz: int = 48_000,
    video_s: float = 0.0,
    audio_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write 3 s of black and silence that turn white and loud (1 kHz, 100 ms) at ``at_s``.

    Args:
        path: Its name says the container.
        video: Codec of the pictures.
        audio: Codec of the sound.
        at_s: When.
        fps: Pictures a second.
        rate_hz: Of the sound.
        video_s: Time of the first picture.
        audio_s: Time of the first sample.
        options: Of the codec of the pictures.
    """
    av = require("av", "making clips")
    items: list[tuple[float, int, Any]] = []
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=fps, options=options or {})
        pictures.width, pictures.height = 64, 48
        pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        sound = container.add_stream(audio, rate=rate_hz, layout="mono")
        for index in range(3 * fps):
            now_s = index / fps + video_s
            luma = np.full((72, 64), 128, np.uint8)
            luma[:48] = 235 if now_s > at_s - 1e-9 else 16
            frame = av.VideoFrame.from_ndarray(luma, format="yuv420p")
            frame.pts, frame.time_base = index + round(video_s * fps), Fraction(1, fps)
            items.append((now_s, 0, frame))
        samples = np.zeros(3 * rate_hz, np.float32)
        first = round((at_s - audio_s) * rate_hz)
        samples[first : first + rate_hz // 10] = click(rate_hz)
        hop, kind = sound.codec_context.frame_size or 1024, sound.codec_context.format.name
        scale, dtype = {"s16": (32_767, "i2"), "s32": (2**31 - 128, "i4"), "flt": (1, "f4")}[kind.removesuffix("p")]
        for first in range(0, len(samples), hop):
            piece = (samples[None, first : first + hop] * scale).astype(dtype)
            frame = av.AudioFrame.from_ndarray(piece, format=kind, layout="mono")
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = first + round(audio_s * rate_hz)
            items.append((first / rate_hz + audio_s, 1, frame))
        for _, which, frame in sorted(items, key=lambda item: item[:2]):
            container.mux((pictures, sound)[which].encode(frame))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


def click(rate_hz: int) -> AnyArray:
    """Return 100 ms of a square wave of 1 kHz, float32 [n]."""
    return (0.8 * np.sign(np.sin(2 * np.pi * 1000 * np.arange(rate_hz // 10) / rate_hz + 1e-3))).astype(np.float32)


def click_ns(played: Played, rate_hz: int) -> float:
    """Return when the click begins, by correlation with the one that was written."""
    begin_ns = played.blocks[0][0] - len(played.blocks[0][1]) * NS_PER_S / rate_hz
    length = round((played.blocks[-1][0] - begin_ns) * rate_hz / NS_PER_S)
    heard = np.zeros(length + rate_hz)
    for end_ns, samples in played.blocks:
        end = round((end_ns - begin_ns) * rate_hz / NS_PER_S)
        heard[end - len(samples) : end] = samples
    return begin_ns + int(np.argmax(np.correlate(heard, click(rate_hz), "valid"))) * NS_PER_S / rate_hz


def apart_samples(path: Path, rate_hz: int = 48_000) -> float:
    """Return by how many samples the flash of a clip comes after its click."""
    played = play(path, rate_hz=rate_hz)
    flash_ns = next(time_ns for time_ns, luma, _ in played.pictures if luma.mean() > 150)
    return (flash_ns - click_ns(played, rate_hz)) * rate_hz / NS_PER_S
