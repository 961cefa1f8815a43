"""Rings that nobody reads for a while: the device is judged by what lies there, and nothing of it is out of order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.capture import open_sources
from mmedge.capture.supervisor import WorkerSource
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.flow import FRAMES
from mmedge.types import Arrival, Block, Frame, Packet

pytestmark = pytest.mark.parallel

SEATS: dict[str, Any] = {
    "image": ImageInput(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=500),
}


@pytest.fixture
def opened() -> Iterator[Callable[[str], WorkerSource]]:
    sources: list[WorkerSource] = []

    def supervised(uri: str) -> WorkerSource:
        (source,) = open_sources(SEATS, dict.fromkeys(SEATS, uri), workers=True)
        assert isinstance(source, WorkerSource)
        sources.append(source)
        source.supervise()
        return source

    yield supervised
    for source in sources:
        source.stop()


def released(packets: list[Packet]) -> list[Packet]:
    for packet in packets:
        if isinstance(packet, Frame) and packet.release is not None:
            packet.release()
    return packets


def taken_until(source: WorkerSource, done: Callable[[list[Packet]], bool], within_s: float = 60.0) -> list[Packet]:
    packets: list[Packet] = []
    deadline = time.monotonic() + within_s
    while not done(packets):
        assert time.monotonic() < deadline, source.health()
        time.sleep(0.02)
        packets += released(source.take(newest=True))
    return packets


def test_a_device_whose_reader_is_busy_is_not_thought_dead(opened: Callable[[str], WorkerSource]) -> None:
    source = opened("test://?width=160&height=120&fps=30&seed=3")
    before = taken_until(source, lambda packets: len(packets) > 20)
    time.sleep(3.5)  # longer than a device may be silent
    packets = released(source.take(newest=True))
    health = source.health()
    assert (health.state, health.counters.get("restarts")) == ("OK", None)
    assert len({packet.epoch for packet in (*before, *packets)}) == 1
    assert all(a.arrive_ns <= b.arrive_ns for a, b in pairwise(packets))
    for name in SEATS:
        seen = [packet for packet in (*before, *packets) if packet.stream == name]
        assert [packet.seq for packet in seen] == list(range(len(seen))), "each packet, or that it came"
    pictures = [packet for packet in packets if packet.stream == "image"]
    assert len(pictures) > 2 * FRAMES
    assert all(isinstance(packet, Arrival) for packet in pictures[:-FRAMES])
    assert all(isinstance(packet, Frame) for packet in pictures[-FRAMES:])
    assert all(isinstance(p, Block) and not p.lost for p in packets if p.stream == "audio"), "no sound is lost"
    assert not health.counters.get("dropped_frames"), "the newest picture always finds a slot"


def test_what_a_dead_worker_has_left_comes_before_what_the_next_one_gives(
    opened: Callable[[str], WorkerSource],
) -> None:
    source = opened("test://?width=160&height=120&fps=30&seed=3")
    packets = taken_until(source, lambda packets: all(sum(p.stream == name for p in packets) > 9 for name in SEATS))
    time.sleep(0.3)
    os.kill(source._child.pid, signal.SIGKILL)
    time.sleep(2.0)  # it is started again, and nobody has read what lies in either ring
    packets += taken_until(source, lambda packets: any(packet.epoch == 1 for packet in packets))
    assert source.health().counters["restarts"] == 1
    epochs = [packet.epoch for packet in packets]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1}
    for name in SEATS:
        first = [packet.seq for packet in packets if packet.stream == name and packet.epoch == 0]
        assert first == list(range(len(first))), "what was captured is not lost with the worker"
        assert len(first) > 9


def test_a_worker_that_leaves_nonsense_is_replaced(
    opened: Callable[[str], WorkerSource], caplog: pytest.LogCaptureFixture
) -> None:
    source = opened("test://?width=160&height=120&fps=30&seed=3")
    taken_until(source, lambda packets: len(packets) > 20)
    os.kill(source._child.pid, signal.SIGSTOP)  # or a record of its own could overwrite this one
    time.sleep(0.2)
    released(source.take(newest=True))
    assert core.RecordQueue.attach(source._delivered.reader._core.fd).put(b"\x93nonsense", 0, 0, 0)
    packets = taken_until(source, lambda packets: any(packet.epoch == 1 for packet in packets))
    assert "a packet is damaged" in caplog.text
    assert packets[-1].epoch == 1


def test_a_ring_that_is_none_is_the_worker_s_damage_and_no_bug_of_ours(opened: Callable[[str], WorkerSource]) -> None:
    source = opened("test://?width=160&height=120&fps=30")
    taken_until(source, lambda packets: len(packets) > 2)
    source._stop.set()
    source._nudge.set()
    assert source._thread is not None
    source._thread.join()
    worker, (source._child.control, hostile) = source._child.control, Control.pair()
    memory = os.memfd_create("no ring")
    try:
        for fds in ([memory], []):
            source._delivered.damage = None
            assert hostile.send(Ring(7, "slots", "image"), fds)
            source._listen(0)
            assert str(source._delivered.damage).startswith("a ring is damaged")
    finally:
        os.close(memory)
        hostile.close()
        source._child.control.close()
        source._child.control = worker
