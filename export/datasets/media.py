"""Writes a clip: gray pictures and mono sound as H.264 and AAC in MP4, with the libraries inside PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmedge.extras import require
from mmedge.types import ByteArray, FloatArray

FPS = 25
SOUND_HZ = 16_000
WIDTH, HEIGHT = 640, 480


def write_clip(
    path: Path,
    pictures: Iterable[ByteArray],
    sound: FloatArray,
    *,
    qp: int,
    gop: int = 250,
    fps: int = FPS,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> None:
    """Write one clip (yuv420p, limited range, 16 kHz).

    Args:
        path: Where to, ``.mp4``.
        pictures: uint8 of ``size``, one per frame.
        sound: float32, -1..1.
        qp: Constant quantizer of x264: lower is better and larger.
        gop: Frames between two key frames.
        fps: Frames a second.
        size: Rows and columns.
    """
    av = require("av", "writing clips")
    # One thread: with more, x264's decisions and so the bytes depend on the machine.
    # Without B-frames and rate control x264 leaves a still picture alone once it has coded it.
    x264 = "bframes=0:scenecut=0"
    options = {"qp": str(qp), "preset": "medium", "g": str(gop), "threads": "1", "x264-params": x264}
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options=options)
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_HZ, layout="mono")
        audio.bit_rate = 48_000
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(
                format="yuv420p", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None], np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
        for part in (block, None):
            container.mux(audio.encode(part))
