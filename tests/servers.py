"""HTTP servers on loopback that send what cameras do, and a listener that keeps what came."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.types import Block, EndOfStream, Frame, Packet

av = pytest.importorskip("av")
SIZE = (64, 48)
Answer = Callable[[BaseHTTPRequestHandler], None]


class Listener:
    """Keeps packets; pictures are kept as the brightness of their middle."""

    def __init__(self) -> None:
        self.frames: list[tuple[Frame, int]] = []
        self.blocks: list[Block] = []
        self.ends: list[EndOfStream] = []

    def __call__(self, packet: Packet) -> None:
        """Take a packet."""
        if isinstance(packet, Frame):
            self.frames.append((packet, int(packet.data[packet.height // 2, packet.width // 2])))
            if packet.release is not None:
                packet.release()
        elif isinstance(packet, Block):
            self.blocks.append(packet)
        elif isinstance(packet, EndOfStream):
            self.ends.append(packet)


class Server:
    """An HTTP server on loopback.

    Attributes:
        asked: Paths that were asked for, in order.
        pages: Path -> what answers; the query does not count.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, Answer] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                page = server.pages.get(self.path.partition("?")[0])
                if page is None:
                    self.send_error(404)
                    return
                try:
                    page(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def secure(self, certificate: Path, key: Path) -> None:
        """Speak TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def close(self) -> None:
        """End it."""
        self._http.shutdown()
        self._http.server_close()


def document(data: bytes, kind: str = "application/octet-stream") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(url: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def playlist(*lines: str) -> Answer:
    head = ("#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0")
    return document("\n".join([*head, *lines, ""]).encode(), "application/vnd.apple.mpegurl")


def picture(level: int, pixels: str = "yuv420p") -> Any:
    planes = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
    planes[: SIZE[1]] = level
    return av.VideoFrame.from_ndarray(planes, format=pixels)


def jpegs(count: int) -> list[bytes]:
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = *SIZE, "yuvj420p", Fraction(1, 25)
    return [bytes(packet) for k in range(count) for packet in codec.encode(picture(40 + 10 * (k % 16), "yuvj420p"))]


def camera(pictures: list[bytes], fps: float = 25) -> Answer:
    """Return an MJPEG camera's answer: pictures without end, each in its time."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        number = 0
        while True:
            data = pictures[number % len(pictures)]
            handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
            handler.wfile.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n")
            number += 1
            time.sleep(1 / fps)

    return answer


def segments(folder: Path, seconds: int, fps: int = 25) -> list[Path]:
    """Write MPEG-TS segments of a second each, with sound; the first picture of each is a key frame."""
    name = folder / "out.m3u8"
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_filename": str(folder / "s%d.ts")}
    with av.open(str(name), "w", format="hls", options=options) as out:
        video = out.add_stream("libx264", rate=fps, options={"g": str(fps), "tune": "zerolatency", "bf": "0"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = out.add_stream("aac", rate=48000, layout="mono")
        for k in range(seconds * fps):
            frame = picture(40 + (k * 3) % 160)
            frame.pts = k
            out.mux(video.encode(frame))
            sound = av.AudioFrame.from_ndarray(
                np.sin(np.arange(1920) / 10, dtype=np.float32)[None], format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts = 48000, k * 1920
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return sorted(folder.glob("s*.ts"), key=lambda path: int(path.stem[1:]))
