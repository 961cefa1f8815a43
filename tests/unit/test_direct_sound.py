"""Sound of a microphone that goes into rings without packets: what a reader finds there, and what health says."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import AudioInput, Input
from mmedge.capture import open_sources
from mmedge.clock import now_ns
from mmedge.ipc.channel import PacketReader, PacketWriter
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.wake import Wake
from mmedge.types import Block, EndOfStream, Packet
from tests.portaudio import PortAudio, portaudio
from tests.processes import until

RATE_HZ, FRAMES = 16000, 160
EAR = AudioInput(sample_rate_hz=RATE_HZ, window_ms=100)
INPUTS: dict[str, Input] = {"a": EAR, "b": EAR, "low": AudioInput(sample_rate_hz=8000, window_ms=100)}


class Listener:
    """Reads what a source writes, as the other process does; without rings it hears its packets."""

    def __init__(self, uris: dict[str, str], *, rings: bool = True) -> None:
        self.here, self.there = Control.pair()
        self.flow = Wake()
        self.reader = PacketReader("test", flow=self.flow)
        self.packets: list[Packet] = []
        self.emitted: list[Packet] = []
        (self.source,) = open_sources(INPUTS, uris)
        self.source.epoch = 5
        if rings:
            self.source.writer = PacketWriter(self.here, self.reader.wake, self.flow)  # type: ignore[attr-defined]

    def start(self) -> None:
        self.source.start(self.emitted.append)

    def close(self) -> None:
        self.source.stop()
        self.here.close()
        self.there.close()

    def blocks(self, stream: str) -> list[Block]:
        while (received := self.there.receive(0)) is not None:
            message, fds = received
            assert isinstance(message, Ring)
            self.reader.add(message, fds[0])
            for fd in fds:
                os.close(fd)
        self.packets += self.reader.take()
        return [p for p in [*self.packets, *self.emitted] if isinstance(p, Block) and p.stream == stream]

    def hear(self, stream: str, count: int) -> list[Block]:
        assert until(lambda: len(self.blocks(stream)) >= count, 60), self.source.health()
        return self.blocks(stream)


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[PortAudio, Listener]]]:
    listeners: list[Listener] = []

    def open_and_start(
        uris: dict[str, str], *, rings: bool = True, offered_hz: int = RATE_HZ, **options: Any
    ) -> tuple[PortAudio, Listener]:
        device = portaudio(monkeypatch, offered_hz, **options)
        listeners.append(Listener(uris, rings=rings))
        listeners[-1].start()
        return device, listeners[-1]

    yield open_and_start
    for listener in listeners:
        listener.close()


def noise(block: int, channels: int) -> Any:
    return np.random.default_rng(block).uniform(-1, 1, (FRAMES, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "uris"),
    [
        (1, {"a": "mic://usb"}),
        (2, {"a": "mic://usb?channel=1", "b": "mic://usb?channels=1,0"}),
        (5, {"a": "mic://usb?channels=0,2,3", "b": "mic://usb?channel=4"}),
    ],
)
def test_a_reader_finds_what_packets_would_say(channels: int, uris: dict[str, str], listen: Any) -> None:
    heard = []
    for rings in (True, False):
        device, listener = listen(uris, rings=rings, channels=channels)
        for number in range(30):
            device.deliver(noise(number, channels), now_ns())
        heard.append({name: listener.hear(name, 30) for name in uris})
        health = listener.source.health()
        assert health.state == "OK"
        assert health.counters["blocks"] == 30 * len(uris)
        assert health.counters["lost_samples"] == 0
        assert set(health.clocks) == set(uris)
        assert health.clocks["a"].quality == "C"
        assert (listener.emitted == []) == rings
        listener.source.stop()
    for name in uris:
        for direct, packet in zip(heard[0][name], heard[1][name], strict=True):
            assert (direct.seq, direct.epoch, direct.quality) == (packet.seq, packet.epoch, packet.quality)
            assert direct.lost == packet.lost == 0
            np.testing.assert_array_equal(direct.samples, packet.samples)
        times_ns = [block.capture_ns for block in heard[0][name]]
        assert times_ns == sorted(times_ns)
        assert 0 <= heard[0][name][-1].arrive_ns - times_ns[-1] < 10**9


def test_what_is_missing_is_lost_before_the_next(listen: Any) -> None:
    device, listener = listen({"a": "mic://usb", "b": "mic://USB Audio"})
    device.send(0.3)
    device.send(0.3, lost_s=0.2)
    for name in ("a", "b"):
        blocks = listener.hear(name, 60)
        (lost,) = [block.lost for block in blocks if block.lost]
        assert lost / RATE_HZ == pytest.approx(0.2, abs=0.05)  # a busy machine is late
        assert [block.seq for block in blocks] == list(range(60))
        assert {block.epoch for block in blocks} == {5}
    health = listener.source.health()
    assert health.counters["lost_samples"] == 2 * lost
    assert health.counters["overflows"] == 1
    assert "clock_jumps" not in health.counters


def test_a_clock_that_jumps_begins_an_epoch(listen: Any, caplog: pytest.LogCaptureFixture) -> None:
    device, listener = listen({"a": "mic://usb"})
    device.deliver(noise(0, 1), now_ns())
    listener.hear("a", 1)
    device.deliver(np.zeros((20 * RATE_HZ, 1)), now_ns())  # more than a block can have
    device.deliver(noise(1, 1), now_ns())
    first, later = listener.hear("a", 2)
    assert (first.epoch, later.epoch, later.seq, later.lost) == (5, 6, 0, 20 * RATE_HZ)
    assert until(lambda: "its clock jumped" in caplog.text, 60)
    assert listener.source.health().counters["clock_jumps"] == 1
    assert listener.source.epoch == 6


def test_what_no_reader_takes_is_counted(listen: Any) -> None:
    device, listener = listen({"a": "mic://usb"})
    sent = 0
    while not listener.source.writer.dropped["a"]:
        device.deliver(noise(0, 1), now_ns())
        sent += 1
        listener.source.health()
    blocks = listener.blocks("a")
    assert blocks[-1].seq < sent
    device.deliver(noise(1, 1), now_ns())
    assert until(lambda: listener.blocks("a")[-1].lost > 0, 60)
    newest = listener.blocks("a")[-1]
    assert newest.lost == (newest.seq - len(blocks)) * FRAMES


def test_a_weak_mix_and_the_class_of_its_stamps_are_said(listen: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mmedge.capture"):
        device, listener = listen({"a": "mic://usb?channels=0,1"}, channels=2)
        tone = np.sin(np.arange(FRAMES) / 3)
        began_ns = now_ns()
        for number in range(250):  # the classes are probed for two seconds
            threading.Event().wait(max(0, began_ns + number * 10_000_000 - now_ns()) / 1e9)
            device.deliver(0.3 * np.stack([tone, -tone], axis=1), now_ns() - 10_000_000)
        assert until(lambda: "clock quality" in caplog.text and "they cancel each other" in caplog.text, 60)
    reason = str(listener.source.health().reason)
    assert "the mean of 2 channels" in reason
    assert listener.source.health().state == "OK"


def test_the_end_says_why_and_comes_as_a_packet(listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.capture.microphone._SILENCE_MS", 300)
    device, listener = listen({"a": "mic://usb"})
    device.deliver(noise(0, 1), now_ns())
    assert until(lambda: listener.emitted, 60)
    (block,) = listener.blocks("a")
    (end,) = listener.emitted
    assert isinstance(end, EndOfStream)
    assert (end.seq, end.epoch, end.capture_ns) == (1, 5, block.capture_ns)
    assert "has sent no data for 0.3 s" in str(listener.source.error)
    assert listener.source.health().state == "MISSING"
    assert listener.source.health().counters["blocks"] == 1
    assert listener.source.health().clocks["a"].quality == "C"


def test_what_must_be_resampled_goes_as_packets(listen: Any) -> None:
    device, listener = listen({"a": "mic://usb", "low": "mic://usb"})
    device.send(0.2)
    assert until(lambda: {packet.stream for packet in listener.emitted} == {"a", "low"}, 60)
    assert listener.reader.take() == []
