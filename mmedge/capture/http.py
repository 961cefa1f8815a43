"""HTTP streams: MJPEG as IP cameras send it, HLS, and endless streams of a known format.

Python asks for every document, so that each is bounded and comes from the one origin that was named: FFmpeg gets no
password, follows no redirect and opens nothing that a playlist names on another host or in another way.
"""

from __future__ import annotations

import errno
import http.client
import io
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from mmedge.capture.network import FORMATS
from mmedge.capture.times import ticks_ns
from mmedge.errors import MmedgeError, SourceError
from mmedge.types import NS_PER_S

OPEN_S = 3.0  # for an answer and a recognised stream
_PLAYLIST_BYTES = 1 << 20
_SEGMENT_BYTES, _SEGMENT_S = 64 << 20, 10.0
_PICTURE_BYTES = 32 << 20
_SNIFFED = 4096  # bytes
_REDIRECTS = 3
_BEHIND_NS = 2 * NS_PER_S  # a paced stream that is later than this goes on from where it is
_JUMP_NS = 10 * NS_PER_S
_PORTS = {"http": 80, "https": 443}
_HLS = {
    "analyzeduration": "2000000",
    "http_persistent": "0",  # so that every document is asked for here
    "http_multiple": "0",
    "extension_picky": "0",  # what a segment may be is decided by its format, where it may lie by its origin
    "allowed_segment_extensions": "ALL",
    "seg_max_retry": "0",
    "max_reload": "8",
    "protocol_whitelist": "http,https",
    "format_whitelist": "hls,mpegts,mov,aac,mp3,ac3,eac3,webvtt",
}
_STREAM = {"analyzeduration": "200000", "fpsprobesize": "0", "protocol_whitelist": "none"}


class Body(io.RawIOBase):
    """What a server sends, read with bounds; PyAV reads from it as from a file."""

    def __init__(self, answer: Any, origin: Origin, *, limit: int | None, deadline_s: float | None) -> None:
        super().__init__()
        self._answer, self._origin = answer, origin
        self._left, self.deadline_s = limit, deadline_s
        self.between, self._since = b"", 0  # what parts two pictures, and bytes since it was seen
        self._first = b""
        origin.bodies.add(self)

    def peek(self) -> bytes:
        """Return some first bytes without taking them."""
        while len(self._first) < 16 and (more := self._take(_SNIFFED)):
            self._first += more
        return self._first

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes as they come; nothing at the end."""
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._take(size)

    def _take(self, size: int) -> bytes:
        if self._origin.stop.is_set():
            raise OSError(errno.ECANCELED, "stopped")
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            self._origin.refuse("it does not end, or comes too slowly")
        try:
            data: bytes = self._answer.read1(size)
        except http.client.HTTPException:
            raise OSError(errno.EPROTO, "the server does not speak HTTP") from None
        if self.between:
            at = data.rfind(self.between)
            self._since = self._since + len(data) if at < 0 else len(data) - at
            if self._since > _PICTURE_BYTES:
                self._origin.refuse("one of its pictures does not end")
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._origin.refuse("it is too long")
        return data

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._origin.bodies.discard(self)
        self._answer.close()
        super().close()


class Origin(urllib.request.HTTPRedirectHandler):
    """One server: scheme, host and port. Nothing else is asked, with the user name and password that were given.

    Attributes:
        refusal: What was refused, None while there is nothing.
        problem: Why the newest document of a playlist that is not there could not be had.
        stop: Set when the reader stops.
    """

    max_redirections = _REDIRECTS
    max_repeats = _REDIRECTS

    def __init__(self, target: str, *, silence_s: float, stop: threading.Event, name: str) -> None:
        self.stop = stop
        parts = urlsplit(target)
        self._key = _origin(target)
        self._silence_s, self._name = silence_s, name
        self.bodies: set[Body] = set()  # open ones: FFmpeg may forget to close one when it gives up
        self.refusal: SourceError | None = None
        self.problem: OSError | None = None
        host = parts.netloc.rpartition("@")[2]
        self.base = urlunsplit((parts.scheme, host, parts.path or "/", "", ""))  # for FFmpeg: without any secret
        self._whole = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
        handlers: list[urllib.request.BaseHandler] = [self]
        if parts.username is not None:
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            root = urlunsplit((parts.scheme, host, "/", "", ""))
            passwords.add_password(None, root, unquote(parts.username), unquote(parts.password or ""))
            handlers += [
                urllib.request.HTTPBasicAuthHandler(passwords),
                urllib.request.HTTPDigestAuthHandler(passwords),
            ]
        self._opener = urllib.request.build_opener(*handlers)

    def refuse(self, what: str) -> NoReturn:
        """Raise the SourceError of something that is not taken from this server."""
        self.refusal = SourceError(
            f"what the server sends is refused: {what}",
            where=self._name,
            fix="name the stream's own address; playlists and redirects must stay on its host",
        )
        raise self.refusal

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Follow a redirect only to the same server."""
        if _origin(newurl) != self._key:
            fp.close()
            self.refuse("it redirects to another server")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def open(self, url: str | None = None) -> Body:
        """Ask for a document of this server; the stream itself by default.

        Raises:
            OSError: If it is not there.
            SourceError: If it lies on another server, or is no document of a server at all.
        """
        if url is not None and _origin(url) != self._key:
            self.refuse("its playlist names an address that is not on this server")
        own = url is None or url == self.base
        request = urllib.request.Request(self._whole if own else str(url), headers={"User-Agent": "mmedge"})
        try:
            answer = self._opener.open(request, timeout=self._silence_s)
        except urllib.error.HTTPError as error:
            error.close()
            if 300 <= error.code < 400:
                self.refuse("it redirects in another way than to the same server")
            wrong = ": the user name or password is missing or wrong" if error.code == 401 else ""
            raise OSError(errno.EACCES, f"the server answers {error.code} {error.reason}{wrong}") from None
        except (MmedgeError, TimeoutError):
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                raise TimeoutError(errno.ETIMEDOUT, "the server does not answer") from None
            said = reason.strerror if isinstance(reason, OSError) else None
            if isinstance(reason, ssl.SSLCertVerificationError):
                said = f"its certificate is not trusted: {reason.verify_message}"
            number = reason.errno if isinstance(reason, OSError) else None
            raise OSError(number or errno.EPROTO, said or "the server does not speak HTTP as it should") from None
        now_s = time.monotonic()
        nested = None if own else _SEGMENT_BYTES
        body = Body(answer, self, limit=nested, deadline_s=now_s + (OPEN_S if own else _SEGMENT_S))
        try:
            if body.peek().lstrip(b"\xef\xbb\xbf").startswith(b"#EXTM3U"):
                return _Playlist(body, answer, self, answer.url)
        except BaseException:
            body.close()
            raise
        return body

    def close(self) -> None:
        """Close all connections; idempotent."""
        for body in list(self.bodies):
            body.close()

    def check(self, playlist: bytes, base: str) -> None:
        """Refuse a playlist that names anything but documents of this server."""
        for line in playlist.decode("utf-8", "replace").splitlines():
            named = re.findall(r'URI="([^"]*)"', line) if line.startswith("#") else [line.strip()]
            if any(name and _origin(urljoin(base, name)) != self._key for name in named):
                self.refuse("its playlist names an address that is not on this server")
            if re.match(r"#EXT-X-(SESSION-)?KEY:(?!.*METHOD=NONE)", line):
                self.refuse("its playlist is encrypted")

    def __call__(self, url: str, flags: int, options: Any) -> Any:
        """Open what FFmpeg wants to read, PyAV's ``io_open``: what is not there is empty, and FFmpeg goes on."""
        try:
            body = self.open(url)
        except OSError as error:
            self.problem = error
            return io.BytesIO()
        self.problem = None
        return body


class _Playlist(Body):
    """A playlist, read to its end at once."""

    def __init__(self, body: Body, answer: Any, origin: Origin, base: str) -> None:
        body._left, body.deadline_s = _PLAYLIST_BYTES, time.monotonic() + OPEN_S
        super().__init__(answer, origin, limit=None, deadline_s=None)
        while piece := body.read(1 << 16):
            self._first += piece
        origin.check(self._first, base)

    def _take(self, size: int) -> bytes:
        return b""


class Served:
    """A container that is read from a server, and closes its connections.

    Args:
        container: The container.
        origin: Where it comes from.
    """

    def __init__(self, container: Any, origin: Origin) -> None:
        self._container, self._origin = container, origin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._origin.close()


class Paced(Served):
    """One whose packets come at their own pace: the segments of HLS arrive each at once."""

    def demux(self, *streams: Any) -> Iterator[Any]:
        """Yield packets as ``InputContainer.demux`` does, none before its time."""
        base_ns: int | None = None
        last_ns = 0
        try:
            for packet in self._container.demux(*streams):
                ticks = packet.pts if packet.dts is None else packet.dts
                if ticks is not None:
                    time_ns, now_ns = ticks_ns(ticks, packet.time_base), time.monotonic_ns()
                    if base_ns is None or abs(time_ns - last_ns) > _JUMP_NS or now_ns - base_ns - time_ns > _BEHIND_NS:
                        base_ns = now_ns - time_ns
                    last_ns = time_ns
                    if self._origin.stop.wait(max(0, base_ns + time_ns - now_ns) / NS_PER_S):
                        return
                yield packet
        except Exception:
            problem = self._origin.refusal or self._origin.problem
            if problem is None:
                raise
            raise problem from None
        problem = self._origin.refusal or self._origin.problem
        if problem is not None:
            raise problem


def open_http(av: Any, target: str, *, silence_s: float, stop: threading.Event, name: str) -> Any:
    """Open a stream over HTTP.

    Args:
        av: The module.
        target: The address, with its secrets.
        silence_s: How long a read may wait.
        stop: Set when the reader stops.
        name: The address as it may be shown.

    Returns:
        A container.

    Raises:
        OSError: If the server does not answer as it should, or an error of PyAV.
        SourceError: If it is a file, or something of it is refused.
    """
    origin = Origin(target, silence_s=silence_s, stop=stop, name=name)
    body = origin.open()
    answer = body._answer
    kind = answer.headers.get_content_type()
    if isinstance(body, _Playlist):
        return _open_hls(av, origin, body, silence_s)
    size = answer.headers.get("Content-Length")
    if size is not None and kind != "multipart/x-mixed-replace":
        body.close()
        raise SourceError(
            f"this address is a file of {int(size) if size.isdigit() else '?'} bytes ({kind}), not a stream",
            where=name,
            fix="download it and name the file; or name the camera's stream (MJPEG or HLS), not a single picture",
        )
    multipart = kind == "multipart/x-mixed-replace"
    body.between = answer.headers.get_boundary("").strip('"').encode() if multipart else b""
    options = _STREAM | {"format_whitelist": FORMATS}
    container = _open(av, origin, body, format="mpjpeg" if multipart else None, options=options)
    body.deadline_s = None
    return Served(container, origin)


def _open_hls(av: Any, origin: Origin, playlist: Body, silence_s: float) -> Paced:
    first: list[Body] = [playlist]

    def again(url: str, flags: int, options: Any) -> Any:
        return first.pop() if first and url == origin.base else origin(url, flags, options)

    times_s = max(OPEN_S, 2 * silence_s), silence_s
    return Paced(_open(av, origin, origin.base, format="hls", io_open=again, options=_HLS, timeout=times_s), origin)


def _open(av: Any, origin: Origin, what: Any, **options: Any) -> Any:
    try:
        return av.open(what, **options)
    except BaseException as error:
        origin.close()
        # What ended it here says more than what FFmpeg makes of it; and FFmpeg's own error holds the address.
        ours = origin.refusal or origin.problem
        if not isinstance(error, av.error.FFmpegError):
            raise
        problem, number, said = type(error), error.errno, error.strerror
    raise ours or problem(number, said)


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme.lower())
    except ValueError:
        return "", "", None
