"""Pictures as frames of PyAV have them, and back, without a change of value."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmedge.capture.picture import DEEP, copy_planes, planes_of
from mmedge.extras import require
from mmedge.recording.event_log import FrameEvent
from mmedge.recording.matroska import PURPOSE
from mmedge.types import AnyArray, ByteArray, PixelFormat

# What writes pictures of a format, and how it takes them.
CODEC: dict[PixelFormat, tuple[str, str]] = {
    "gray8": ("libx264", "gray"),
    "yuv420p": ("libx264", "yuv420p"),
    "nv12": ("libx264", "nv12"),
    "yuv422p": ("libx264", "yuv422p"),
    "yuv444p": ("libx264", "yuv444p"),
    "yuyv422": ("libx264", "yuv422p"),
    "p010le": ("libx264", "yuv420p10le"),
    "yuv420p10le": ("libx264", "yuv420p10le"),
    "rgb24": ("libx264rgb", "rgb24"),
    "bgr24": ("libx264rgb", "bgr24"),
}
_BY_PLANES = ("nv12", "yuyv422", *DEEP)  # which the codec has in another order, or in samples of two bytes
_UNUSED = {"p010le": 6, "yuv420p10le": 0}  # bits below a sample of 10


def samples(picture: ByteArray, kind: PixelFormat, height: int) -> list[AnyArray]:
    """Return luma, U and V as views [rows, columns] of ``picture``, uint8 [...]: uint8, or uint16 of 10 bits."""
    if kind == "yuyv422":
        return [picture[..., 0], picture[:, 0::2, 1], picture[:, 1::2, 1]]
    packed = picture.view("<u2") if kind in DEEP else picture
    luma, chroma = packed[:height], packed[height:]
    if kind == "yuv420p10le":
        planes = chroma.reshape(2, height // 2, -1)
        return [luma, planes[0], planes[1]]
    return [luma, chroma[:, 0::2], chroma[:, 1::2]]


def without_unused(picture: ByteArray, kind: PixelFormat) -> ByteArray:
    """Return ``picture``, uint8 [...], with 0 in the bits that its format leaves unused: itself, where it has none."""
    if kind not in DEEP:
        return picture
    cleared: ByteArray = (picture.view("<u2") & (1023 << _UNUSED[kind])).view(np.uint8)
    return cleared


def unpacked(picture: ByteArray, event: FrameEvent) -> Any:
    """Return ``picture``, uint8 [...], as a frame of PyAV, without a copy where that is possible."""
    make, kind = require("av", PURPOSE).VideoFrame, event.format
    if kind in ("yuyv422", *DEEP):
        frame = make(event.width, event.height, CODEC[kind][1])
        for target, plane in zip(_planes(frame), samples(picture, kind, event.height), strict=True):
            target[...] = plane >> _UNUSED.get(kind, 0)
        return frame
    if kind not in ("yuv422p", "yuv444p"):
        # The encoder makes its own copy, and does not hold the interpreter's lock for it. Without one PyAV cuts off the
        # last rows of planes whose height is no multiple of four.
        whole = kind not in ("yuv420p", "nv12") or event.height % 4 == 0
        return (make.from_numpy_buffer if whole else make.from_ndarray)(picture, format=CODEC[kind][1])
    frame, flat, start = make(event.width, event.height, kind), picture.reshape(-1), 0
    for target, (rows, columns) in zip(_planes(frame), planes_of(kind, event.height, event.width), strict=True):
        target[...] = flat[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
    return frame


def pack(frame: Any, kind: PixelFormat, out: ByteArray) -> None:
    """Write a decoded frame to ``out`` as ``Frame.data`` has it; plane by plane: a conversion would change values.

    ``out`` is uint8, of the shape [...] that ``kind`` has, contiguous.
    """
    if kind in ("gray8", "yuv420p", "yuv422p", "yuv444p"):
        copy_planes(frame, out, kind, frame.height, frame.width)
        return
    planes = _planes(frame)
    if kind in _BY_PLANES:
        for target, plane in zip(samples(out, kind, frame.height), planes, strict=True):
            target[...] = plane << _UNUSED.get(kind, 0)
    else:
        green, blue, red = planes  # gbrp
        np.stack((red, green, blue) if kind == "rgb24" else (blue, green, red), axis=2, out=out)


def _planes(frame: Any) -> list[AnyArray]:
    """Return the planes of a frame of PyAV as views [rows, columns]."""
    kind = np.dtype("<u2" if frame.format.components[0].bits > 8 else "u1")
    return [
        np.frombuffer(p, kind)[: p.height * p.line_size // kind.itemsize].reshape(p.height, -1)[:, : p.width]
        for p in frame.planes
    ]
