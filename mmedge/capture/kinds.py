"""The kinds of sources: everything about each kind in one entry. A new kind is an entry here and a file of its own.

Nothing of a source is imported before one is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from mmedge.address import shown_name
from mmedge.capture.channels import CHOICE, Choice, check_choice, split_choice
from mmedge.errors import ConfigError
from mmedge.types import ClockQuality

if TYPE_CHECKING:
    from mmedge.capture.base import StartTime, ThreadSource
    from mmedge.capture.uri import Uri

Params = dict[str, str]
_SIZE = ("width", "height", "fps")
_NETWORK = ("rtsp", "rtsps", "udp", "http", "https", "rtmp", "rtmps", "srt", "tcp", "rtp")
_ESCAPE = "write / ? # and @ in user names, passwords, paths and queries as %2F %3F %23 and %40"


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """One source that is to be opened.

    Attributes:
        uri: Its address.
        images: Names of the inputs that take its pictures.
        sounds: Names and sample rates in Hz of the inputs that take its sound.
        texts: Names of the inputs that take its text.
        choices: Which track and channels an input takes, by name; one that is not here takes the usual ones.
        realtime: Play a file at its own pace; otherwise as fast as it is taken.
        speed: How many times faster than real time a file is played.
        base: The start of the run, shared by all its files.
    """

    uri: Uri
    images: tuple[str, ...]
    sounds: Mapping[str, int]
    texts: tuple[str, ...]
    realtime: bool
    speed: float
    base: StartTime
    choices: Mapping[str, Choice] = msgspec.field(default_factory=dict)


def _target(target: str, params: Mapping[str, str]) -> tuple[str, ...]:
    return (target,)  # a camera has one size at a time: its parameters do not make it another device


def _path(target: str, params: Mapping[str, str]) -> tuple[str, ...]:
    return (str(Path(target).resolve()),)


def _pipeline(target: str, params: Mapping[str, str]) -> tuple[str, ...]:
    return target, *sorted(f"{name}={value}" for name, value in params.items())  # another size: another pipeline


class SourceKind(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of one kind of source.

    Attributes:
        schemes: How its addresses begin; the first is used where a device has one name.
        plain: What its addresses without a scheme look like, as a regular expression.
        forms: Its addresses as help texts and errors show them; the first can be used as it is.
        read: Returns target and parameters of an address. Raises ConfigError with what is wrong, no more: of the
            address nothing but names of parameters may be in it.
        feeds: Modalities of the inputs that it can feed.
        open: Opens it; its module is imported then.
        modules: What a process imports to read it, but for what touches a device as it is imported.
        live: A device or a peer feeds it: it can hang, vanish and come back, and is read in a process of its own.
        device: Returns what ``target`` and ``params`` open, the same for all spellings, as far as text and links show.
        same: Returns an equal value for two targets that are one device, where only a driver knows; else None.
        shared: Several inputs may take from one.
        whole: Its target is the whole address.
        password: Its address may hold a secret, which is never shown: ``Uri.target`` is masked.
        played: A speed can be asked for.
        queue_seen: What was waiting in the device when it was opened is counted (``flushed_...``).
        constant_ns: What a packet's uncertainty holds, by class of its stamp, of a constant delay that cannot be seen:
            a calibration measures it. Stamps of arrival without an envelope (class C of cameras, GStreamer) keep all of
            theirs, as it covers their jitter too.
    """

    schemes: tuple[str, ...]
    forms: str
    read: Callable[[str], tuple[str, Params]]
    feeds: tuple[Literal["image", "audio", "text"], ...]
    open: Callable[[Opening], ThreadSource]
    modules: tuple[str, ...] = ()
    plain: str | None = None
    live: bool = True
    device: Callable[[str, Mapping[str, str]], tuple[str, ...]] = _target
    same: Callable[[Iterable[str]], Mapping[str, int]] | None = None
    shared: bool = True
    whole: bool = False
    password: bool = False
    played: bool = False
    queue_seen: bool = False
    constant_ns: Mapping[ClockQuality, int] = msgspec.field(default_factory=dict)


def read_params(kind: str, query: str, allowed: Iterable[str]) -> Params:
    """Return the parameters after ``?``, each given once.

    ``width``, ``height`` and ``fps`` are whole numbers from 1; ``track``, ``channel`` and those of ``channels`` from 0.

    Args:
        kind: Name of the kind, for the message.
        query: What stands after ``?``; may be empty.
        allowed: The parameters that the kind takes.

    Raises:
        ConfigError: If one is unknown, given twice, or has no such value.

    Example:
        >>> read_params("csi", "width=640&fps=30", ("width", "height", "fps"))
        {'width': '640', 'fps': '30'}
    """
    params: Params = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in allowed:
            raise ConfigError(f"unknown parameter '{shown_name(name)}', {kind} takes {', '.join(allowed)}")
        if name in params:
            raise ConfigError(f"parameter '{name}' is given twice")
        if name in _SIZE and not re.fullmatch(r"[1-9]\d{0,4}", value):
            raise ConfigError(f"parameter '{name}' must be a whole number from 1")
        if name == "fourcc" and len(value) != 4:
            raise ConfigError("parameter 'fourcc' must have four characters")
        if name == "decode" and value not in ("cpu", "hardware", "auto"):
            raise ConfigError("parameter 'decode' must be cpu, hardware or auto")
        params[name] = value
    check_choice(params)
    return params


def _read_v4l2(uri: str) -> tuple[str, Params]:
    if not uri.startswith("v4l2://"):
        return uri if uri.startswith("/") else f"/dev/video{uri}", {}
    target, _, query = uri.removeprefix("v4l2://").partition("?")
    params = read_params("v4l2", query, (*_SIZE, "fourcc", "decode"))
    if not target.startswith("/dev/"):
        raise ConfigError("v4l2:// needs a device path")
    return target, params


def _open_v4l2(order: Opening) -> ThreadSource:
    from mmedge.capture.v4l2 import CameraSource, hardware_reads

    if hardware_reads(order.uri):
        return _open_gstreamer(order)
    return CameraSource(order.uri, images=order.images)


def _read_csi(uri: str) -> tuple[str, Params]:
    target, _, query = uri.removeprefix("csi://").partition("?")
    params = read_params("csi", query, _SIZE)
    if not re.fullmatch(r"\d{1,2}", target):
        raise ConfigError("csi:// needs a sensor number")
    return target, params


def _read_gst(uri: str) -> tuple[str, Params]:
    # A pipeline may hold any character, so only a tail of our own parameters is taken off.
    pattern = r"(.*?)\s*(?:\?((?:&?(?:width|height|fps)=[^&\s!?]*)+))?"
    match = re.fullmatch(pattern, uri.removeprefix("gst:").strip(), re.DOTALL)
    if not match or not match[1]:
        raise ConfigError("gst: needs a pipeline")
    return match[1], read_params("gst", match[2] or "", _SIZE)


def _open_gstreamer(order: Opening) -> ThreadSource:
    from mmedge.capture.gstreamer import GStreamerSource

    return GStreamerSource(order.uri, images=order.images)


def _read_network(uri: str) -> tuple[str, Params]:
    uri, choice = split_choice(uri, query=True)
    params = read_params("network", choice, CHOICE)
    if "://" not in uri:  # a description of an RTP stream, in a file
        path = uri.removeprefix("sdp:")
        if not path:
            raise ConfigError("sdp: needs a file")
        return f"sdp:{path}", params
    try:
        parts, port = (split := urlsplit(uri)), split.port
    except ValueError:  # its text quotes what stands there: no error of ours has it as its cause
        parts = None
    if parts is None:
        raise ConfigError("not a network address: its host or port is malformed", fix=_ESCAPE)
    if "@" in uri.partition("://")[2].replace(parts.netloc, "", 1):  # FFmpeg would look for a host inside the password
        raise ConfigError("not a network address: it is not clear where its password ends", fix=_ESCAPE)
    if parts.scheme in ("udp", "tcp", "rtp", "srt") and port is None:
        raise ConfigError(f"{parts.scheme}:// needs a port")
    if parts.scheme != "udp" and not parts.hostname:
        raise ConfigError(f"{parts.scheme}:// needs a host")
    return uri, params


def _open_network(order: Opening) -> ThreadSource:
    from mmedge.capture.stream_url import NetworkSource

    return NetworkSource(order.uri, images=order.images, sounds=order.sounds, choices=order.choices)


def _read_file(uri: str) -> tuple[str, Params]:
    def path(text: str) -> str:
        return unquote(text.removeprefix("file://")) if text.startswith("file://") else text

    rest, choice = split_choice(uri)
    if choice and os.path.exists(path(uri)):  # noqa: PTH110  it has that very name; Path's raises if it is too long
        rest, choice = uri, ""
    if rest.startswith("file://") and not path(rest).startswith("/"):
        raise no_address()
    return path(rest), read_params("file", choice, CHOICE)


def _open_file(order: Opening) -> ThreadSource:
    from mmedge.capture.media import MediaSource

    return MediaSource(
        order.uri.target,
        images=order.images,
        sounds=order.sounds,
        choices=order.choices,
        realtime=order.realtime,
        speed=order.speed,
        base=order.base,
    )


def _read_microphone(uri: str) -> tuple[str, Params]:
    match = re.fullmatch(r"(?s)mic://([^?].*?)(?:\?((?:&?\w+=[^&?]*)+))?", uri)
    if match is None:
        raise no_address()
    return unquote(match[1]), read_params("microphone", match[2] or "", ("channel", "channels"))


def _open_microphone(order: Opening) -> ThreadSource:
    from mmedge.capture.microphone import MicrophoneSource

    return MicrophoneSource(order.uri.target, sounds=order.sounds, choices=order.choices)


def _same_microphone(targets: Iterable[str]) -> Mapping[str, int]:
    from mmedge.capture.microphone import microphone_numbers

    return microphone_numbers(targets)


def _read_text(uri: str) -> tuple[str, Params]:
    if uri == "text://":
        raise no_address()
    return uri.removeprefix("text://"), {}


def _open_text(order: Opening) -> ThreadSource:
    from mmedge.capture.text import TextSource

    (name,) = order.texts
    return TextSource(name, order.uri.target)


def _read_test(uri: str) -> tuple[str, Params]:
    from mmedge.capture.simulator import Settings

    target, _, query = uri.removeprefix("test://").partition("?")
    if target:
        raise ConfigError("test:// takes parameters only")
    params = read_params("test", query, Settings.__struct_fields__)
    Settings.read(params)
    # Its parameters make the device: the same ones in another order are the same device.
    return "test://?" + "&".join(f"{k}={v}" for k, v in sorted(params.items())), params


def _open_test(order: Opening) -> ThreadSource:
    from mmedge.capture.synthetic import SyntheticSource

    return SyntheticSource(order.uri, images=order.images, sounds=order.sounds)


def no_address() -> ConfigError:
    """Return the error for what has none of the forms."""
    return ConfigError("this is not a source address")


KINDS: Mapping[str, SourceKind] = {
    "v4l2": SourceKind(
        schemes=("v4l2://",),
        plain=r"\d{1,3}|/dev/video\d+",
        forms="0 or v4l2:///dev/video0 (camera)",
        read=_read_v4l2,
        device=_path,
        feeds=("image",),
        open=_open_v4l2,
        modules=("mmedge.capture.v4l2", "cv2"),
        queue_seen=True,
        constant_ns={"A": 5_000_000, "B": 20_000_000},
    ),
    "csi": SourceKind(
        schemes=("csi://",),
        forms="csi://0 (Jetson camera)",
        read=_read_csi,
        feeds=("image",),
        open=_open_gstreamer,
        modules=("mmedge.capture.gstreamer",),
        constant_ns={"B": 20_000_000},
    ),
    "network": SourceKind(
        schemes=(*(f"{scheme}://" for scheme in _NETWORK), "sdp:"),
        plain=r"(?si)(?!.*://).*\.sdp",
        forms="rtsp://HOST/PATH, udp://HOST:PORT, http(s)://HOST/PATH (MJPEG, HLS), rtmp, tcp, rtp, srt, FILE.sdp",
        read=_read_network,
        feeds=("image", "audio"),
        open=_open_network,
        modules=("mmedge.capture.stream_url", "av", "av.subtitles.stream"),
        whole=True,
        password=True,
        queue_seen=True,
        # What the first packet's delay holds: encoder, network, parser.
        constant_ns={"B": 40_000_000},
    ),
    "file": SourceKind(
        schemes=("file://",),
        plain=r"(?s)(?!.*://).*",
        forms="clip.mp4 (media file)",
        read=_read_file,
        device=_path,
        feeds=("image", "audio"),
        open=_open_file,
        modules=("mmedge.capture.media", "av"),
        live=False,
        whole=True,
        played=True,
    ),
    "microphone": SourceKind(
        schemes=("mic://",),
        forms="mic://default, mic://NAME?channel=0",
        read=_read_microphone,
        same=_same_microphone,
        feeds=("audio",),
        open=_open_microphone,
        # Not sounddevice, but what it imports: it asks for all devices, and a new process must see new ones.
        modules=("mmedge.capture.microphone", "_sounddevice", "ctypes.util", "sysconfig", "soxr"),
        constant_ns={"A": 500_000, "B": 3_000_000, "C": 10_000_000},
    ),
    "text": SourceKind(
        schemes=("text://",),
        forms="text://stdin, text://FILE",
        read=_read_text,
        feeds=("text",),
        open=_open_text,
        live=False,
        shared=False,
    ),
    "gst": SourceKind(
        schemes=("gst:",),
        forms="gst:PIPELINE",
        read=_read_gst,
        device=_pipeline,
        feeds=("image",),
        open=_open_gstreamer,
        modules=("mmedge.capture.gstreamer",),
        constant_ns={"B": 20_000_000},
        password=True,
    ),
    "test": SourceKind(
        schemes=("test://",),
        forms="test://?fps=30 (simulated)",
        read=_read_test,
        feeds=("image", "audio"),
        open=_open_test,
        modules=("mmedge.capture.synthetic", "numpy.random"),
        whole=True,
        constant_ns={"B": 1_000_000},
    ),
}
"""Name -> kind, in the order in which help texts show them."""
