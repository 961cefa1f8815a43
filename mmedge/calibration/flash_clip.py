"""The clip that a screen shows and a loudspeaker plays for a calibration: flashes, and beeps that begin with them."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.calibration.flash import TONE_HZ
from mmedge.errors import ConfigError
from mmedge.extras import require

FLASHES = 25  # of a clip: 20 are asked for, some may be missed
_FPS, _RATE_HZ = 60, 48_000
_SIZE = (320, 180)  # flat pictures: the player makes them larger
_LEAD, _LENGTH = 2 * _FPS, 6  # pictures: dark at first, then 0.1 s of each flash
_GAP = (48, 72)  # pictures: 0.8 to 1.2 s, so that a beep fits to its own flash only
_CODECS = {".mp4": "aac", ".mkv": "pcm_s16le"}


def flash_times() -> list[Fraction]:
    """Return the times in s at which flash and beep begin; always the same."""
    rng = random.Random(1)
    starts = [_LEAD]
    while len(starts) < FLASHES:
        starts.append(starts[-1] + rng.randint(*_GAP))
    return [Fraction(start, _FPS) for start in starts]


def write_clip(path: Path) -> Path:
    """Write the clip: H.264 at 60 pictures a second, with AAC (``.mp4``) or PCM (``.mkv``) at 48 kHz.

    Args:
        path: Where to; overwritten.

    Returns:
        The path.

    Raises:
        ConfigError: If it ends otherwise or cannot be written.
        MissingDependencyError: If PyAV is not installed.
    """
    if path.suffix not in _CODECS:
        raise ConfigError(
            f"a clip cannot have the suffix '{path.suffix}'", where=str(path), fix="use .mp4 (plays everywhere) or .mkv"
        )
    av = require("av", "writing a clip")
    starts = [int(time * _FPS) for time in flash_times()]
    pictures = starts[-1] + _LEAD
    bright = {start + k for start in starts for k in range(_LENGTH)}
    try:
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=_FPS, options={"preset": "veryfast", "crf": "20", "bf": "0"})
            video.width, video.height, video.pix_fmt = *_SIZE, "yuv420p"
            audio = container.add_stream(_CODECS[path.suffix], rate=_RATE_HZ, layout="mono")
            container.start_encoding()  # opens the file: what is wrong with the path shows now
            packets = _pictures(av, video, pictures, bright) + _sound(av, audio, pictures, starts)
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
    except (OSError, av.error.FFmpegError) as error:
        raise ConfigError(
            f"the clip cannot be written: {error.strerror}", where=str(path), fix="choose another path"
        ) from error
    return path


def _pictures(av: Any, stream: Any, count: int, bright: set[int]) -> list[Any]:
    packets: list[Any] = []
    dark, white = av.VideoFrame(*_SIZE, "yuv420p"), av.VideoFrame(*_SIZE, "yuv420p")
    for frame, level in ((dark, 16), (white, 235)):
        for plane, value in zip(frame.planes, (level, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
    for number in range(count):
        frame = white if number in bright else dark
        frame.pts, frame.time_base = number, Fraction(1, _FPS)
        packets += stream.encode(frame)
    return packets + list(stream.encode(None))


def _sound(av: Any, stream: Any, pictures: int, starts: list[int]) -> list[Any]:
    samples = np.zeros(pictures * _RATE_HZ // _FPS, np.float32)
    length = _LENGTH * _RATE_HZ // _FPS
    beep = 0.5 * np.sin(2 * np.pi * TONE_HZ / _RATE_HZ * np.arange(length), dtype=np.float32)
    for start in starts:
        first = start * _RATE_HZ // _FPS
        samples[first : first + length] = beep
    packets: list[Any] = []
    aac = stream.codec_context.format.name == "fltp"
    size = stream.codec_context.frame_size or 1024
    for first in range(0, len(samples), size):
        chunk = samples[None, first : first + size]
        if not aac:
            chunk = np.round(chunk * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk), format="fltp" if aac else "s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _RATE_HZ, first, Fraction(1, _RATE_HZ)
        packets += stream.encode(frame)
    return packets + list(stream.encode(None))
