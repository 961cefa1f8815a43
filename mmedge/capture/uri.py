"""The grammar of source addresses: what ``--input NAME=URI`` accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from mmedge.capture.simulator import Settings
from mmedge.errors import ConfigError, printable

Kind = Literal["v4l2", "csi", "network", "file", "microphone", "text", "gst", "test"]
LIVE: frozenset[Kind] = frozenset({"v4l2", "csi", "network", "microphone", "gst", "test"})
"""Kinds that a device or a peer feeds: they can hang, vanish and come back."""

FORMS = (
    "0 or v4l2:///dev/video0 (camera), csi://0 (Jetson camera), rtsp://HOST/PATH, udp://HOST:PORT, "
    "clip.mp4 (media file), mic://default, mic://NAME, text://stdin, text://FILE, gst:PIPELINE, "
    "test://?fps=30 (simulated)"
)
_NUMBERS = ("width", "height", "fps")
_PARAMS: dict[str, tuple[str, ...]] = {"v4l2": (*_NUMBERS, "fourcc"), "csi": _NUMBERS, "gst": _NUMBERS}
_PARAMS["test"] = Settings.__struct_fields__


@dataclass(frozen=True, kw_only=True, slots=True)
class Uri:
    """A parsed source address.

    Attributes:
        kind: Which source reads it.
        target: Device path, sensor number, full network or test address, file path, device name or pipeline.
        params: What stood after ``?``, checked.
    """

    kind: Kind
    target: str
    params: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the address as it may be shown: without a password."""
        shown = printable(self.target)
        return re.sub(r"(?<=://)[^/@]*@", "***@", shown) if self.kind == "network" else shown

    @property
    def device(self) -> tuple[str, ...]:
        """What the address opens, the same for all its spellings as far as text and links tell."""
        if self.kind in ("file", "v4l2"):
            return self.kind, str(Path(self.target).resolve())
        # A camera has one size at a time, but a pipeline of another size is another pipeline.
        params = self.params if self.kind == "gst" else {}
        return self.kind, self.target, *sorted(f"{name}={value}" for name, value in params.items())

    def number(self, name: str) -> int | None:
        """Return a whole-number parameter, None if it was not given."""
        return int(self.params[name]) if name in self.params else None


def parse(uri: str) -> Uri:
    """Parse a source address.

    Args:
        uri: One of the forms of ``FORMS``.

    Returns:
        Its parts, checked as far as text can be; nothing is opened.

    Raises:
        ConfigError: If it has none of these forms.

    Example:
        >>> parse("csi://0?width=1280&height=720&fps=30").params["width"]
        '1280'
        >>> parse("0").target
        '/dev/video0'
    """
    if not uri.strip():
        raise _refusal(uri, "a source address is empty")
    if uri.startswith("gst:"):
        # A pipeline may hold any character, so only a tail of our own parameters is taken off.
        match = re.fullmatch(r"(.*?)\s*(?:\?((?:&?(?:width|height|fps)=[^&\s!?]*)+))?", uri[4:].strip(), re.DOTALL)
        pipeline, query = (match[1], match[2]) if match else ("", None)
        if not pipeline:
            raise _refusal(uri, "gst: needs a pipeline")
        return Uri(kind="gst", target=pipeline, params=_params(uri, "gst", query))
    if re.fullmatch(r"\d{1,3}", uri):
        return Uri(kind="v4l2", target=f"/dev/video{uri}")
    if re.fullmatch(r"/dev/video\d+", uri):
        return Uri(kind="v4l2", target=uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Uri(kind="file", target=uri)
    if scheme in ("rtsp", "rtsps", "udp"):
        return _network(uri)
    if scheme in ("v4l2", "csi"):
        rest, _, query = rest.partition("?")
        params = _params(uri, scheme, query or None)
        if scheme == "v4l2" and rest.startswith("/dev/"):
            return Uri(kind="v4l2", target=rest, params=params)
        if scheme == "csi" and re.fullmatch(r"\d{1,2}", rest):
            return Uri(kind="csi", target=rest, params=params)
        raise _refusal(
            uri, f"{scheme}:// needs {'a device path' if scheme == 'v4l2' else 'a sensor number'}, got '{rest}'"
        )
    if scheme == "file" and rest.startswith("/"):
        return Uri(kind="file", target=unquote(rest))
    if scheme == "mic" and rest:
        return Uri(kind="microphone", target=unquote(rest))
    if scheme == "text" and rest:
        return Uri(kind="text", target=rest)
    if scheme == "test":
        return _test(uri, rest)
    raise _refusal(uri, f"'{uri}' is not a source address")


def _test(uri: str, rest: str) -> Uri:
    target, _, query = rest.partition("?")
    if target:
        raise _refusal(uri, f"test:// takes parameters alone, got '{target}'")
    params = _params(uri, "test", query)
    try:
        Settings.read(params)
    except ConfigError as error:
        raise _refusal(uri, error.message) from error
    # Its parameters make the device: the same ones in another order are the same device.
    return Uri(kind="test", target="test://?" + "&".join(f"{k}={v}" for k, v in sorted(params.items())), params=params)


def _network(uri: str) -> Uri:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise _refusal(uri, f"not a network address: {error}") from error
    if parts.scheme == "udp" and port is None:
        raise _refusal(uri, "udp:// needs a port")
    if parts.scheme != "udp" and not parts.hostname:
        raise _refusal(uri, f"{parts.scheme}:// needs a host")
    return Uri(kind="network", target=uri)


def _params(uri: str, kind: str, query: str | None) -> dict[str, str]:
    params: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in _PARAMS[kind]:
            raise _refusal(uri, f"unknown parameter '{name}', {kind} takes {', '.join(_PARAMS[kind])}")
        if name in params:
            raise _refusal(uri, f"parameter '{name}' is given twice")
        if name in _NUMBERS and not re.fullmatch(r"[1-9]\d{0,4}", value):
            raise _refusal(uri, f"parameter '{name}' must be a whole number from 1, got '{value}'")
        if name == "fourcc" and len(value) != 4:
            raise _refusal(uri, f"parameter 'fourcc' must have four characters, got '{value}'")
        params[name] = value
    return params


def _refusal(uri: str, message: str) -> ConfigError:
    return ConfigError(message, where=f"'{uri}'", fix=f"use one of: {FORMS}")
