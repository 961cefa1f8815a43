"""Streams over HTTP, HLS, RTMP, TCP and RTP from real servers on loopback; and servers that want something else."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.capture import Source, open_sources
from tests.integration.conftest import need
from tests.processes import free_port, listens, until
from tests.servers import Answer, Listener, Server, camera, document, jpegs, playlist, redirect, segments

pytestmark = pytest.mark.parallel

av = pytest.importorskip("av")
SEATS: dict[str, Input] = {
    "image": ImageInput(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=100),
}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def listen(uri: str, *names: str) -> tuple[Source, Listener]:
    listener = Listener()
    (source,) = open_sources({n: SEATS[n] for n in names}, dict.fromkeys(names, uri))
    source.start(listener)
    return source, listener


def reason(source: Source) -> str:
    return str(source.error) if source.error is not None else str(source.health().reason)


# Streams as cameras send them.


def test_an_mjpeg_camera_over_http(server: Server) -> None:
    server.pages["/video.mjpg"] = camera(jpegs(16))
    source, heard = listen(f"http://{server.host}/video.mjpg?fps=25", "image")
    try:
        assert until(lambda: len(heard.frames) > 30, 60), reason(source)
    finally:
        began = time.monotonic()
        source.stop()
        assert time.monotonic() - began < 60
    levels = [level for _, level in heard.frames]
    assert len(set(levels)) > 8
    assert all(min(abs(level - 40 - 10 * k) for k in range(16)) <= 3 for level in levels)
    times_ms = np.diff([frame.capture_ns for frame, _ in heard.frames]) / 1e6
    assert 30 < np.median(times_ms) < 120
    assert server.asked == ["/video.mjpg?fps=25"]


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_a_camera_that_wants_a_password_gets_it_and_nobody_sees_it(
    scheme: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    heads: list[str] = []

    def guarded(handler: BaseHTTPRequestHandler) -> None:
        head = handler.headers.get("Authorization", "")
        heads.append(head)
        right = base64.b64encode(b"me:p@ss/word").decode() in head if scheme == "Basic" else 'username="me"' in head
        if right:
            camera(jpegs(4))(handler)
            return
        handler.send_response(401)
        more = "" if scheme == "Basic" else ', nonce="abc", qop="auth", algorithm=MD5'
        handler.send_header("WWW-Authenticate", f'{scheme} realm="camera"{more}')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.pages["/v"] = guarded
    source, heard = listen(f"http://me:p%40ss%2Fword@{server.host}/v", "image")
    try:
        assert until(lambda: len(heard.frames) > 3, 60), reason(source)
    finally:
        source.stop()
    assert heads[0] == ""
    assert heads[1].startswith(scheme)
    wrong, _ = listen(f"http://{server.host}/v", "image")
    try:
        assert until(lambda: "401" in reason(wrong), 60), reason(wrong)
        assert "password is missing or wrong" in reason(wrong)
    finally:
        wrong.stop()
    said = caplog.text + repr(source.health()) + reason(wrong)
    assert "word" not in said.replace("password", "")


@pytest.mark.parametrize("master", [False, True])
def test_a_live_playlist_comes_at_its_own_pace(master: bool, server: Server, tmp_path: Path) -> None:
    parts = segments(tmp_path, 5)
    began = time.monotonic()

    def live(handler: BaseHTTPRequestHandler) -> None:
        there = min(len(parts), 2 + int(time.monotonic() - began))
        lines = [line for part in parts[:there] for line in ("#EXTINF:1.0,", part.name)]
        playlist(*lines)(handler)

    server.pages["/live/token/index"] = live  # no name that ends in .m3u8
    for part in parts:
        server.pages[f"/live/token/{part.name}"] = document(part.read_bytes(), "video/mp2t")
    server.pages["/all"] = playlist("#EXT-X-STREAM-INF:BANDWIDTH=100000", "live/token/index?key=abc")
    path = "all" if master else "live/token/index?key=abc"
    source, heard = listen(f"http://me:you@{server.host}/{path}", "image", "audio")
    try:
        assert until(lambda: len(heard.frames) > 60, 60), (reason(source), server.asked)
    finally:
        source.stop()
    arrivals = np.array([frame.arrive_ns for frame, _ in heard.frames[:60]]) / 1e9
    # Most of them: where this machine stood still, what is owed comes at once.
    assert np.quantile(np.diff(arrivals), 0.7) > 0.02, "a segment's pictures do not come all at once"
    assert sum(len(block.samples) for block in heard.blocks) > 8000
    times_ms = np.diff([frame.capture_ns for frame, _ in heard.frames]) / 1e6
    assert 30 < np.median(times_ms) < 120
    assert any(path == "/live/token/index?key=abc" for path in server.asked)
    assert not any("you" in path for path in server.asked)


def test_a_certificate_is_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server.secure(certificate, key)
    server.pages["/v"] = camera(jpegs(4))
    uri = f"https://me:correct-horse@localhost:{server.port}/v"
    source, heard = listen(uri, "image")
    try:
        assert until(lambda: "certificate" in reason(source), 60), reason(source)
        assert not heard.frames
        assert not server.asked
    finally:
        source.stop()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    source, heard = listen(uri, "image")
    try:
        assert until(lambda: len(heard.frames) > 3, 60), reason(source)
    finally:
        source.stop()


def test_a_redirect_on_the_same_server_is_followed(server: Server) -> None:
    server.pages["/v"] = redirect("/w/video.mjpg")
    server.pages["/w/video.mjpg"] = camera(jpegs(4))
    source, heard = listen(f"http://{server.host}/v", "image")
    try:
        assert until(lambda: len(heard.frames) > 3, 60), reason(source)
    finally:
        source.stop()


@pytest.mark.parametrize("kind", ["video/mp4", "image/jpeg"])
def test_a_file_over_http_is_refused_with_what_to_do(kind: str, server: Server, write_clip: Any) -> None:
    data = write_clip("clip.mp4", video_codec="libx264").read_bytes() if kind == "video/mp4" else jpegs(1)[0]
    server.pages["/clip"] = document(data, kind)
    source, heard = listen(f"http://{server.host}/clip", "image")
    try:
        assert until(lambda: source.error is not None, 60)
    finally:
        source.stop()
    assert source.error is not None
    assert f"a file of {len(data)} bytes ({kind}), not a stream" in source.error.message
    assert "download it" in str(source.error.fix)
    assert not heard.frames


# Servers that want something else.

PASSWD = "file:///etc/passwd"


def drip(handler: BaseHTTPRequestHandler, first: bytes, more: bytes, pause_s: float) -> None:
    handler.send_response(200)
    multipart = first.startswith(b"--b")
    kind = "multipart/x-mixed-replace; boundary=b" if multipart else "application/vnd.apple.mpegurl"
    handler.send_header("Content-Type", kind)
    handler.end_headers()
    handler.wfile.write(first)
    while True:
        handler.wfile.write(more)
        time.sleep(pause_s)


HOSTILE: dict[str, Callable[[str], Answer]] = {
    "a file as segment": lambda there: playlist("#EXTINF:1.0,", PASSWD),
    "a file by another spelling": lambda there: playlist("#EXTINF:1.0,", "/../../etc/passwd", "FILE:/etc/passwd"),
    "concat": lambda there: playlist("#EXTINF:1.0,", f"concat:http://{there}/inside|{PASSWD}"),
    "data": lambda there: playlist("#EXTINF:1.0,", "data:video/mp2t;base64,R0lGODlhAQABAAAAACw="),
    "pipe": lambda there: playlist("#EXTINF:1.0,", "pipe:0"),
    "another port": lambda there: playlist("#EXTINF:1.0,", f"http://{there}/inside"),
    "another host as playlist": lambda there: playlist("#EXT-X-STREAM-INF:BANDWIDTH=1", f"http://{there}/inside"),
    "a key elsewhere": lambda there: playlist(f'#EXT-X-KEY:METHOD=AES-128,URI="http://{there}/inside"', "s0.ts"),
    "a map elsewhere": lambda there: playlist(f'#EXT-X-MAP:URI="http://{there}/inside"', "#EXTINF:1,", "s0.ts"),
    "a segment that redirects": lambda there: playlist("#EXTINF:1.0,", "/away"),
    "a redirect to another port": lambda there: redirect(f"http://{there}/inside"),
    "a redirect to a file": lambda there: redirect(PASSWD),
    "a redirect to itself": lambda there: redirect("/v"),
    "an endless playlist": lambda there: lambda h: drip(h, b"#EXTM3U\n", b"#EXTINF:1.0,\nx.ts\n" * 4000, 0),
    "a slow playlist": lambda there: lambda h: drip(h, b"#EXTM3U\n#EXTINF:1.0,\n", b"x", 0.1),
    "an endless segment": lambda there: playlist("#EXTINF:1.0,", "/endless"),
    "an endless picture": lambda there: lambda h: drip(h, b"--b\r\nX: y\r\n\r\n", bytes(1 << 20), 0.0),
    "concat in the open": lambda there: lambda h: drip(h, b"ffconcat version 1.0\nfile /etc/passwd\n", b"#\n", 0.1),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_server_gets_nothing_and_is_an_error_within_seconds(
    what: str, server: Server, other: Server, tmp_path: Path
) -> None:
    server.pages["/v"] = HOSTILE[what](other.host)
    server.pages["/away"] = redirect(f"http://{other.host}/inside")
    server.pages["/endless"] = lambda h: drip(h, b"", bytes(65536), 0)
    part = segments(tmp_path, 1)[0]
    server.pages["/s0.ts"] = document(part.read_bytes())
    other.pages["/inside"] = document(part.read_bytes())
    source, heard = listen(f"http://{server.host}/v", "image")
    began = time.monotonic()
    try:
        assert until(lambda: source.error is not None or source.health().state == "RECONNECTING", 60), reason(source)
        said = reason(source)
    finally:
        source.stop()
    assert time.monotonic() - began < 60
    assert not heard.frames
    assert other.asked == []
    assert "root:" not in said
    if "endless" not in what and "open" not in what:
        assert "refused" in said, said


def test_a_network_sender_cannot_name_files(tmp_path: Path) -> None:
    """A sender over TCP that sends a list of files, which FFmpeg would open."""
    clip = tmp_path / "secret.ts"
    clip.write_bytes(segments(tmp_path, 1)[0].read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        source, heard = listen(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "image")
        try:
            with listener.accept()[0] as peer:
                peer.sendall(f"ffconcat version 1.0\nfile {clip}\n".encode() * 200)
            assert until(lambda: source.health().state == "RECONNECTING", 60)
        finally:
            source.stop()
    assert not heard.frames


# Senders by ffmpeg.


def ffmpeg(*arguments: str) -> subprocess.Popen[bytes]:
    need("ffmpeg")
    return subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-re", *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


PATTERN = (
    *("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25"),
    *("-c:v", "libx264", "-g", "10", "-tune", "zerolatency"),
)


def check_pictures(uri: str, sender: subprocess.Popen[bytes]) -> None:
    """Assert that the pictures of ``sender`` arrive, and end it."""
    try:
        source, heard = listen(uri, "image")
        try:
            assert until(lambda: len(heard.frames) > 20, 60), reason(source)
        finally:
            source.stop()
    finally:
        sender.kill()
        sender.communicate()


@pytest.mark.devices
@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtp"])
def test_streams_that_ffmpeg_sends(scheme: str) -> None:
    port = free_port()
    uri = f"{scheme}://127.0.0.1:{port}"
    if scheme == "tcp":
        sender = ffmpeg(*PATTERN, "-f", "mpegts", f"{uri}?listen=1")
    elif scheme == "rtp":
        sender = ffmpeg(*PATTERN, "-f", "rtp_mpegts", uri)
    else:
        uri += "/live/key"
        sender = ffmpeg(*PATTERN, "-f", "flv", "-listen", "1", uri)
    assert scheme == "rtp" or until(lambda: listens(port), 60)
    check_pictures(uri, sender)


@pytest.mark.devices
@pytest.mark.parametrize("how", ["sdp:{}", "{}"])
def test_rtp_by_its_description_in_a_file(how: str, tmp_path: Path) -> None:
    port, file = free_port(socket.SOCK_DGRAM) & ~1, tmp_path / "camera.sdp"
    sender = ffmpeg(*PATTERN, "-f", "rtp", f"rtp://127.0.0.1:{port}", "-sdp_file", str(file))
    until(lambda: file.exists() and file.stat().st_size > 100, 60)
    check_pictures(how.format(file), sender)


def test_a_protocol_that_this_pyav_lacks_is_said(server: Server) -> None:
    try:
        av.open("srt://127.0.0.1:9", timeout=0.5).close()
    except av.error.ProtocolNotFoundError:
        pass
    except (av.error.FFmpegError, OSError):
        pytest.skip("this PyAV has srt://")
    source, _ = listen("srt://127.0.0.1:9?passphrase=0123456789ab", "image")
    try:
        assert until(lambda: source.error is not None, 60)
    finally:
        source.stop()
    assert "this build of PyAV has no srt://" in str(source.error)
    assert "0123456789ab" not in str(source.error)
