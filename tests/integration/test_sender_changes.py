"""A network sender is alive while its packets become pictures, whatever it was before."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import media_clips as clips
from benchmarks.media_damage import FIRST, SENDERS
from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.capture import open_sources
from mmedge.capture.datagrams import Datagrams, ProgrammeChanged
from mmedge.types import Block, Frame
from tests.oracle.programme import Programme
from tests.processes import free_port, until

pytestmark = pytest.mark.parallel

SEATS: dict[str, Any] = {
    "image": ImageInput(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=500),
}


class Watch:
    """Counts pictures and sound of a source."""

    def __init__(self, uri: str, *, workers: bool, audio: bool = False) -> None:
        names = ("image", "audio") if audio else ("image",)
        (self.source,) = open_sources({n: SEATS[n] for n in names}, dict.fromkeys(names, uri), workers=workers)
        self.frames: list[Frame] = []
        self.blocks: list[Block] = []
        self.source.start(self)

    def __call__(self, packet: Any) -> None:
        if isinstance(packet, Frame):
            if not packet.damaged:
                self.frames.append(packet)
            if packet.release is not None:
                packet.release()
        elif isinstance(packet, Block):
            self.blocks.append(packet)

    def wait(self, condition: Any) -> None:
        assert until(condition, 60), self.source.health()


def send(uri: str, *codec: str, seconds: float = 20.0, fps: int = 25, gop: int = 25, sound: bool = False) -> Any:
    tone = ("-f", "lavfi", "-i", "sine=f=440:r=48000") if sound else ()
    pictures = ("-re", "-f", "lavfi", "-i", f"testsrc2=s=320x240:r={fps}")
    stream = ("-t", str(seconds), "-g", str(gop), "-f", "mpegts", f"{uri}?pkt_size=1316")
    command = ["ffmpeg", "-nostdin", "-loglevel", "quiet", *pictures, *tone, *codec, *stream]
    return subprocess.Popen(command)


@pytest.fixture
def senders(camera: Any) -> Iterator[list[Any]]:
    started: list[Any] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize("second", list(SENDERS))
def test_a_sender_that_comes_back_as_another_one_is_received(
    camera: Any, senders: list[Any], second: str, workers: bool
) -> None:
    watch = Watch(camera.uri, workers=workers)
    try:
        time.sleep(0.5)
        senders.append(send(camera.uri, *FIRST, seconds=60))
        watch.wait(lambda: len(watch.frames) > 20)
        senders[0].kill()
        senders[0].wait()
        before, epoch = len(watch.frames), watch.frames[-1].epoch
        time.sleep(0.8)
        senders.append(send(camera.uri, *SENDERS[second]))
        watch.wait(lambda: sum(f.epoch > epoch for f in watch.frames[before:]) > 5)
        watch.wait(lambda: watch.source.health().state == "OK")
        health = watch.source.health()
        if second != "other size":  # the same decoder reads it: a new epoch is enough
            assert health.counters["reconnects"] >= 1  # or a second time, where the sender was slow to start
    finally:
        watch.source.stop()


def test_sound_comes_back_with_its_pictures(camera: Any, senders: list[Any]) -> None:
    watch = Watch(camera.uri, workers=False, audio=True)
    try:
        time.sleep(0.5)
        senders.append(send(camera.uri, *FIRST, "-c:a", "aac", seconds=60, sound=True))
        watch.wait(lambda: len(watch.frames) > 20 and len(watch.blocks) > 50)
        senders[0].kill()
        senders[0].wait()
        frames, blocks = len(watch.frames), len(watch.blocks)
        time.sleep(0.8)
        senders.append(send(camera.uri, "-c:v", "mpeg2video", "-c:a", "mp2", sound=True))
        watch.wait(lambda: len(watch.frames) > frames + 5 and len(watch.blocks) > blocks + 20)
    finally:
        watch.source.stop()


def test_a_slow_camera_and_a_rare_key_frame_are_waited_for(camera: Any, senders: list[Any]) -> None:
    """One picture a second, then a stream that is joined three seconds before its next key frame."""
    watch = Watch(camera.uri, workers=True)
    try:
        time.sleep(0.5)
        senders.append(send(camera.uri, *FIRST, fps=1, gop=4))
        watch.wait(lambda: len(watch.frames) >= 4)
        health = watch.source.health()
        assert not health.counters.get("reconnects")
        assert not health.counters.get("restarts")
    finally:
        watch.source.stop()
        senders[0].kill()
    senders.append(send(camera.uri, *FIRST, gop=100))
    time.sleep(1.5)
    watch = Watch(camera.uri, workers=True)
    try:
        watch.wait(lambda: bool(watch.frames))
        health = watch.source.health()
        assert not health.counters.get("reconnects")
        assert not health.counters.get("restarts")
    finally:
        watch.source.stop()


def test_the_programme_of_a_stream_is_told_from_another(tmp_path: Path) -> None:
    first = clips.moving(tmp_path / "a.ts", "h264", 5).read_bytes()
    same = clips.moving(tmp_path / "b.ts", "h264", 8).read_bytes()
    other = clips.moving(tmp_path / "c.ts", "mpeg2", 5).read_bytes()
    programme = core.Programme()
    assert not programme.changed(first)
    assert not programme.changed(same)
    assert not programme.changed(b"no transport stream")
    assert not programme.changed(bytes(188))
    assert programme.changed(other)


STRANGE = st.binary(max_size=184) | st.builds(
    lambda head, number, length, body: b"\0" + head + length.to_bytes(2, "big") + bytes([0, 1, number, 0, 0]) + body,
    st.sampled_from([b"\0", b"\2"]),
    st.integers(0, 1),
    st.integers(0, 400),
    st.binary(max_size=60),
)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0x10, 0x30]), STRANGE), max_size=8))
def test_a_strangers_tables_are_no_error(bodies: list[tuple[int, int, bytes]]) -> None:
    programme, plain = core.Programme(), Programme()
    maps = b"G\x40\x00\x10\x00" + bytes.fromhex("00b00d0001c100000001e001") + bytes(171)  # a map at 1
    tracks = b"G\x40\x01\x10\x00" + bytes.fromhex("02b01200010000000000001be100f00003e101") + bytes(164)
    bare = b"G\x40\x01\x10\x00" + bytes.fromhex("02b009000100000000000000") + bytes(171)  # without a body
    strange = [b"G\x40" + bytes([number, flags]) + body.ljust(184, b"\xff") for number, flags, body in bodies]
    for packet in (maps, tracks, *strange, bare, maps + tracks):
        assert programme.changed(packet) == plain.changed(packet)


def test_very_small_datagrams_fill_no_memory() -> None:
    port = free_port(socket.SOCK_DGRAM)
    receiver = Datagrams(f"udp://127.0.0.1:{port}", 0.3)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            give_up = time.monotonic() + 60
            while not receiver.lost and time.monotonic() < give_up:
                sender.sendto(b"x", ("127.0.0.1", port))
        assert receiver.lost
    finally:
        receiver.end()


def test_datagrams_are_read_as_bytes(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_DGRAM)
    receiver = Datagrams(f"udp://127.0.0.1:{port}", 0.3)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in (b"abcdef", b"", b"gh"):  # an empty one is no end of the stream
                sender.sendto(data, ("127.0.0.1", port))
            assert receiver.read(4) == b"abcd"
            rest = receiver.read(4)
            assert rest in (b"ef", b"efgh")  # as much as has come
            assert rest == b"efgh" or receiver.read(4) == b"gh"
            with pytest.raises(TimeoutError):
                receiver.read(4)
            tables = [clips.moving(tmp_path / f"{c}.ts", c, 5).read_bytes()[: 188 * 3] for c in ("h264", "mpeg2")]
            for data in tables:
                sender.sendto(data, ("127.0.0.1", port))
            assert receiver.read(65536) == tables[0]  # and nothing of the other programme
            with pytest.raises(ProgrammeChanged):
                receiver.read(65536)
            assert receiver.begin().read(65536) == tables[1]
    finally:
        receiver.end()
    with pytest.raises(TimeoutError):
        receiver.read(4)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("udp://127.0.0.1:5000", True),
        ("udp://239.0.0.1:5000?localaddr=127.0.0.1", True),
        ("udp://127.0.0.1:5000?sources=10.0.0.1", False),  # left to FFmpeg
        ("rtsp://127.0.0.1/x", False),
    ],
)
def test_what_is_received_without_ffmpeg(url: str, ours: bool) -> None:
    assert Datagrams.takes(url) == ours


@pytest.mark.parametrize("both", [False, True])
def test_a_sender_that_comes_back_without_a_track_is_waited_for(both: bool) -> None:
    """Both, sound alone, pictures alone, both: no input ends for good."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        uri = f"udp://127.0.0.1:{port.getsockname()[1]}"
    watch = Watch(uri, workers=True, audio=both)
    tone = ["-re", "-f", "lavfi", "-i", "sine=f=440:r=48000"]
    alone = ["ffmpeg", "-nostdin", "-loglevel", "quiet", *tone, "-c:a", "mp2", "-f", "mpegts", f"{uri}?pkt_size=1316"]
    senders = [
        (lambda: send(uri, *FIRST, "-c:a", "mp2", sound=True), True, both),
        (lambda: subprocess.Popen(alone), False, both),
        (lambda: send(uri, *FIRST), True, False),
        (lambda: send(uri, *FIRST, "-c:a", "mp2", sound=True), True, both),
    ]
    try:
        time.sleep(0.5)
        for start, pictures, sound in senders:
            process = start()
            try:
                before = len(watch.frames), len(watch.blocks)
                watch.wait(lambda n=before[0], want=pictures: not want or len(watch.frames) > n + 10)
                watch.wait(lambda n=before[1], want=sound: not want or len(watch.blocks) > n + 10)
                if not pictures and not sound:
                    watch.wait(lambda: "no video track" in str(watch.source.health().reason))
            finally:
                process.kill()
                process.wait()
            time.sleep(0.8)
    finally:
        watch.source.stop()
