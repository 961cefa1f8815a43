"""What a V4L2 driver says of its colours, beside what OpenCV takes them for: BT.601 of limited range, always."""

from __future__ import annotations

import fcntl
import os
import struct

_G_FMT = 0xC0D05604  # VIDIOC_G_FMT: _IOWR('V', 4, struct v4l2_format), 208 bytes where pointers have 8
_FORMAT = struct.Struct("=I4x12I")  # type; width, height, fourcc, 3 more, colorspace, 2 more, encoding, range, transfer
_CAPTURE = 1
# Formats that OpenCV converts from luma and chroma; JPEG says its own matrix and range, which are those it has.
_YUV = {b"YUYV", b"UYVY", b"YVYU", b"NV12", b"NV21", b"YU12", b"YV12"}
_ENCODINGS = {2: "BT.709", 4: "xvYCC 709", 6: "BT.2020", 7: "BT.2020 with constant luminance", 8: "SMPTE 240M"}
_DEFAULTS = {2: 8, 3: 2, 10: 6, 12: 2}  # colorspace (SMPTE 240M, BT.709, BT.2020, DCI-P3) -> its encoding
_JPEG, _FULL = 7, 1


def colours_of(answer: bytes) -> str | None:
    """Return how the colours of a driver's format differ from what OpenCV takes them for; None if they do not.

    Args:
        answer: What ``VIDIOC_G_FMT`` gave.

    Example:
        >>> colours_of(_FORMAT.pack(1, 640, 480, int.from_bytes(b"YUYV", "little"), 1, 0, 0, 3, 0, 0, 0, 0, 0))
        'BT.709'
    """
    _, _, _, fourcc, _, _, _, colorspace, _, _, encoding, span, _ = _FORMAT.unpack_from(answer)
    if fourcc.to_bytes(4, "little") not in _YUV:
        return None
    matrix = _ENCODINGS.get(encoding or _DEFAULTS.get(colorspace, 1))
    full = "full range" if span == _FULL or (not span and colorspace == _JPEG) else None
    return ", ".join(filter(None, (matrix, full))) or None


def driver_colours(path: str) -> str | None:
    """Ask the driver of ``path``; None if it says nothing or what OpenCV does is right."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(fd, _G_FMT, _CAPTURE.to_bytes(4, "little").ljust(208, b"\0"))
    except OSError:
        return None
    finally:
        os.close(fd)
    return colours_of(answer)
