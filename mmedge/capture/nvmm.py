"""Pipelines through NVIDIA's GStreamer elements: the board's hardware decodes and converts, in NVMM memory."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote
from typing import NamedTuple

from mmedge.capture.uri import Uri
from mmedge.errors import ConfigError, DeviceError

CSI = "nvarguscamerasrc"
_SIZE, _FPS = (1280, 720), 30
# FOURCC of a camera -> caps of GStreamer, and what decodes them: the first that is installed.
_DECODERS = {
    "MJPG": ("image/jpeg", ("nvv4l2decoder mjpeg=1", "nvjpegdec")),
    "H264": ("video/x-h264", ("h264parse ! nvv4l2decoder",)),
    "HEVC": ("video/x-h265", ("h265parse ! nvv4l2decoder",)),
    "YUYV": ("video/x-raw,format=YUY2", ()),
    "UYVY": ("video/x-raw,format=UYVY", ()),
    "NV12": ("video/x-raw,format=NV12", ()),
}


class Chain(NamedTuple):
    """From a sensor to pictures in the memory of the CPU.

    Attributes:
        text: The pipeline up to there.
        width: Of its frames, pixels.
        height: The same.
        fps: Frames a second; None where only the pipeline knows.
        by: What of the board's hardware does the work.
    """

    text: str
    width: int
    height: int
    fps: int | None
    by: str = ""


def chain(uri: Uri, has: Callable[[str], bool]) -> Chain:
    """Return the pipeline of a ``csi`` address, or of a ``v4l2`` one whose pictures the hardware is to decode.

    Args:
        uri: Parsed address.
        has: Whether the installed GStreamer has an element of a name.

    Raises:
        DeviceError: If an element is missing.
        ConfigError: If the hardware decodes no pictures of the ``fourcc`` that is asked for.

    Example:
        >>> from mmedge.capture.uri import parse
        >>> chain(parse("csi://0?fps=60"), lambda name: True).by
        'nvarguscamerasrc, nvvidconv'
    """
    width, height, fps = uri.number("width") or _SIZE[0], uri.number("height") or _SIZE[1], uri.number("fps") or _FPS
    size = f"width={width},height={height}"
    if uri.kind == "csi":
        source = [f"{CSI} sensor-id={uri.target}"]
        source += [f"video/x-raw(memory:NVMM),{size},framerate={fps}/1,format=NV12"]
        known: tuple[str, ...] = ()
    else:
        fourcc = uri.params.get("fourcc", "MJPG")
        if fourcc not in _DECODERS:
            raise ConfigError(
                f"the hardware decodes no pictures of '{fourcc}'",
                where=uri.target,
                fix=f"use fourcc={', '.join(_DECODERS)}; or decode=cpu",
            )
        caps, known = _DECODERS[fourcc]
        source = [f"v4l2src device={quote(uri.target)}", f"{caps},{size},framerate={fps}/1"]
    decoder = next((text for text in known if all(map(has, elements(text)))), known[0] if known else None)
    parts = [*source, *([] if decoder is None else [decoder]), "nvvidconv"]
    text = " ! ".join(parts)
    missing = [name for name in elements(text) if not has(name)]
    if missing:
        other = "another camera" if uri.kind == "csi" else "decode=cpu, or another camera"
        raise DeviceError(
            f"{uri.kind} '{uri.target}' cannot be read through the board's hardware: GStreamer has no element"
            f" '{missing[0]}'",
            where=uri.name,
            fix="on a Jetson: sudo apt-get install gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
            f" nvidia-l4t-gstreamer; elsewhere {other}: mmedge devices",
        )
    by = ", ".join(name for name in elements(text) if name.startswith("nv"))
    return Chain(f"{text} ! video/x-raw,format=NV12,{size} ! videoconvert", width, height, fps, by)


def elements(text: str) -> list[str]:
    """Return the elements of a pipeline, without its caps.

    Example:
        >>> elements("v4l2src device=/dev/video0 ! image/jpeg,width=64 ! nvjpegdec")
        ['v4l2src', 'nvjpegdec']
    """
    names = (part.split()[0] for part in text.split(" ! "))
    return [name for name in names if "/" not in name]
