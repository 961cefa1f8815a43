"""Opens network addresses by PyAV, bounded: which protocols and formats each scheme may lead to, and for how long."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmedge.address import scrub
from mmedge.capture.uri import Uri
from mmedge.errors import SourceError

# What a sender may send. Playlists and descriptions that name further addresses (concat, HLS, DASH, SDP) are not here.
FORMATS = (
    "mpegts,h264,hevc,mjpeg,mpjpeg,m4v,mpegvideo,mpeg,flv,live_flv,matroska,nut,ivf,obu,av1,asf,avi,ogg,mov,aac,mp3,wav"
)
_LOOPBACK = ("127.0.0.1", "localhost")
# What FFmpeg may open on behalf of an address: never a file, nor what a stranger's text names.
_PROTOCOLS = {
    "udp": "udp",
    "rtp": "rtp,udp",
    "sdp": "file,rtp,udp",
    "rtsp": "rtp,udp,tcp",
    "rtsps": "rtp,udp,tcp,tls",
    "tcp": "tcp",
    "srt": "srt",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
}
_lock = threading.Lock()
_cleaned = False


def open_network(av: Any, uri: Uri, silence_s: float, stop: threading.Event) -> Any:
    """Open a network address.

    Args:
        av: The module.
        uri: Parsed address of kind ``network``.
        silence_s: How long a read may wait.
        stop: Set when the reader stops.

    Returns:
        An ``av.container.InputContainer``, or what behaves like one; close it.

    Raises:
        OSError: If no server answers in time, or what comes is no stream. Such an error, or one of PyAV, does not name
            the address.
        SourceError: If what the address leads to is refused.
    """
    _clean_logs()
    target = uri.reveal()
    scheme = target.partition(":")[0].lower()
    if scheme in ("http", "https"):
        from mmedge.capture.http import open_http  # with TLS, which the other schemes do without

        return open_http(av, target, silence_s=silence_s, stop=stop, name=str(uri))
    form = None
    if scheme == "sdp":
        path = target.removeprefix("sdp:")
        if not Path(path).is_file():
            raise SourceError(f"there is no file '{path}'", where=str(uri), fix="check the path")
        target, form = f"file:{path}", "sdp"
    try:
        return av.open(target, format=form, timeout=(2 * silence_s, silence_s), options=_options(target, scheme))
    except av.error.ProtocolNotFoundError:
        raise SourceError(
            f"this build of PyAV has no {scheme}://",
            where=str(uri),
            fix="let the sender use another protocol, or receive it with gst:",
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        problem, number, said = type(error), error.errno, error.strerror
    raise problem(number or errno.EIO, said)  # not the same error: its text holds the address


def _options(target: str, scheme: str) -> dict[str, str]:
    options = {
        "analyzeduration": "200000",
        "fpsprobesize": "0",
        "protocol_whitelist": _PROTOCOLS[scheme],
    }
    if scheme in ("udp", "tcp", "srt", "rtmp", "rtmps"):
        options["format_whitelist"] = FORMATS
    if scheme in ("udp", "rtp", "rtsp", "rtsps", "tcp"):  # of rtmp it would be a time to listen
        options["timeout"] = "1000000"
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_flags"] = "prefer_tcp"
    if scheme in ("rtmp", "rtmps"):
        options["rtmp_live"] = "live"
    if scheme == "udp":
        options["overrun_nonfatal"] = "1"
    if scheme in ("udp", "rtp") and urlsplit(target).hostname in _LOOPBACK:
        options["localaddr"] = "127.0.0.1"  # FFmpeg would listen on every interface
    return options


def _clean_logs() -> None:
    """Take secrets out of what FFmpeg logs, should the user have asked PyAV for its log: it names addresses."""
    global _cleaned
    with _lock:
        if _cleaned:
            return
        _cleaned = True
        before = logging.getLogRecordFactory()

        def clean(*arguments: Any, **more: Any) -> logging.LogRecord:
            record = before(*arguments, **more)
            if record.name.startswith("libav"):
                record.msg, record.args = scrub(record.getMessage()), ()
            return record

        logging.setLogRecordFactory(clean)
