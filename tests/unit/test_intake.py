"""What the loop waits for: sound wakes it only where it can change what is due, and the answers are the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import Missing, Sync, TensorInput
from mmedge.calibration.offsets import Shift
from mmedge.ipc.channel import PacketReader, PacketWriter
from mmedge.ipc.control import Control, Ring
from mmedge.pipeline.inbox import Inbox, release
from mmedge.pipeline.intake import Intake
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, EndOfStream, Frame, Packet, Snapshot, Tensor
from tests.unit.test_sync_load import INPUTS as TWO
from tests.unit.test_sync_load import MS, S, deliveries

INPUTS = {**TWO, "imu": TensorInput(shape=(6,), dtype="float32", rate_hz=200.0)}
ATTACHED = dict.fromkeys(INPUTS, True)
LOOK_NS = 100 * MS


def intake(
    inbox: Inbox, sync: Synchronizer, trigger: str = "image", pushed: Any = None, shifts: dict[str, Shift] | None = None
) -> Intake:
    manifest: Any = SimpleNamespace(inputs=INPUTS, sync=Sync(trigger=trigger))
    return Intake(inbox, [], pushed, shifts or {}, sync, manifest=manifest, attached=ATTACHED, lossless=False)


def synchronizer(trigger: str = "image", started_ns: int = 0, deadline_ms: float = 30.0) -> Synchronizer:
    rules = Sync(trigger=trigger, deadline_ms=deadline_ms)
    return Synchronizer(plan_sync(INPUTS, ATTACHED, {"image": Missing(policy="zero")}, rules), started_ns=started_ns)


def block(now_ns: int, seq: int = 0) -> Block:
    return Block(stream="audio", seq=seq, capture_ns=now_ns, arrive_ns=now_ns, samples=np.ones(80, np.float32))


def frame(now_ns: int) -> Frame:
    stamp = {"stream": "image", "seq": 0, "capture_ns": now_ns, "arrive_ns": now_ns}
    return Frame(**stamp, data=np.zeros((8, 8), np.uint8), format="gray8", width=8, height=8)  # type: ignore[arg-type]


def waited_s(reading: Intake) -> float:
    began = time.monotonic()
    reading.wait(200 * MS, None)
    return time.monotonic() - began


def woken(reading: Intake) -> bool:
    """Tell whether it wakes long before the time is over."""
    began = time.monotonic()
    reading.wait(60_000 * MS, None)
    return time.monotonic() - began < 50


def test_sound_alone_wakes_nobody_and_comes_with_what_does() -> None:
    inbox, sync = Inbox(), synchronizer(started_ns=time.monotonic_ns(), deadline_ms=100_000.0)
    reading = intake(inbox, sync)
    inbox.put(block(time.monotonic_ns()))
    assert waited_s(reading) > 0.15
    now_ns = time.monotonic_ns()
    inbox.put(frame(now_ns))
    assert woken(reading)
    packets = reading.take()
    assert [type(packet) for packet in packets] == [Block, Frame]
    for packet in packets:
        sync.push(packet)
    assert sync.pending == 1, "the picture waits for sound that is as new"
    threading.Timer(0.02, lambda: inbox.put(block(now_ns + 1, 1))).start()
    assert woken(reading)
    assert [packet.seq for packet in reading.take()] == [1]


@pytest.mark.parametrize("trigger", ["audio", "imu", "timer"])
def test_sound_that_makes_triggers_wakes(trigger: str) -> None:
    now_ns = time.monotonic_ns()
    inbox = Inbox()
    reading = intake(inbox, synchronizer(trigger, now_ns), trigger)
    inbox.put(block(now_ns))
    assert woken(reading)


def test_the_end_wakes_at_once() -> None:
    inbox = Inbox()
    reading = intake(inbox, synchronizer(started_ns=time.monotonic_ns()))
    threading.Timer(0.02, inbox.close).start()
    assert woken(reading)


@pytest.fixture
def border() -> Iterator[tuple[PacketReader, PacketWriter]]:
    here, there = Control.pair()
    reader = PacketReader("test")
    writer = PacketWriter(here, reader.wake, reader.flow)
    writer.put(block(1))
    writer.put(frame(1))
    while (received := there.receive(0)) is not None:
        assert isinstance(received[0], Ring)
        reader.add(received[0], received[1][0])
        os.close(received[1][0])
    for packet in reader.take():
        release(packet)
    yield reader, writer
    here.close()
    there.close()


def test_rings_and_threads_are_read_together_in_order_of_arrival(border: tuple[PacketReader, PacketWriter]) -> None:
    now_ns = time.monotonic_ns()
    reader, writer = border
    inbox, sync = Inbox(), synchronizer(started_ns=now_ns)
    reading = intake(inbox, sync, pushed=reader, shifts={"audio": Shift(earlier_ns=3)})
    reading.take()
    for k in range(1, 6):
        writer.put(block(now_ns + 2 * k, k))
        inbox.put(frame(now_ns + 2 * k + 1))
    assert woken(reading)
    packets = reading.take()
    assert [packet.arrive_ns - now_ns for packet in packets] == list(range(2, 12))
    assert all(p.capture_ns == p.arrive_ns - 3 for p in packets if isinstance(p, Block)), "as calibrated"
    writer.put(block(now_ns + 20, 9))
    assert waited_s(reading) > 0.15, "what was read does not wake again, nor does sound"
    writer.put(EndOfStream(stream="audio", seq=10, capture_ns=now_ns, arrive_ns=now_ns + 21))
    assert woken(reading)
    assert [packet.seq for packet in reading.take()] == [9, 10]


def test_a_calibrated_picture_does_not_say_the_time_that_its_writer_knew(
    border: tuple[PacketReader, PacketWriter],
) -> None:
    now_ns = time.monotonic_ns()
    reader, writer = border
    for shifts, kept in (({}, True), ({"image": Shift(earlier_ns=3)}, False)):
        reading = intake(Inbox(), synchronizer(started_ns=now_ns), pushed=reader, shifts=shifts)
        writer.put(frame(now_ns))
        (packet,) = reading.take(runs=True)
        assert isinstance(packet, Frame)
        assert packet.capture_ns == now_ns - 3 * (not kept)
        assert isinstance(packet.release, core.RingSlot)
        assert bool(packet.release.record) == kept
        packet.release()
        reading.close()


def answers(packets: Sequence[Packet], trigger: str, *, lazy: bool) -> list[tuple[Any, ...]]:
    """Return what a run cuts that is woken by every packet, or (``lazy``) by what its intake waits for."""
    sync, inbox = synchronizer(trigger), Inbox()
    reading, cut = intake(inbox, sync, trigger), []
    now, at = 0, 0
    while at < len(packets):
        hears = not lazy or reading.awaits_flow(now)
        wakes = next((p.arrive_ns for p in packets[at:] if hears or isinstance(p, Frame)), now + LOOK_NS)
        due = sync.next_deadline_ns()
        now = max(now, min(ns for ns in (wakes, due, now + LOOK_NS) if ns is not None))
        while at < len(packets) and packets[at].arrive_ns <= now:
            sync.push(packets[at])
            at += 1
        sync.advance(now)
        cut += [told(snapshot) for snapshot in sync.poll()]
        sync.trim()
    return cut


def measured() -> Iterator[Tensor]:
    data = np.zeros(6, np.float32)
    for k in range(1, 1000):
        yield Tensor(stream="imu", seq=k, capture_ns=5 * k * MS, arrive_ns=5 * k * MS + 700_000, data=data)


def told(snapshot: Snapshot) -> tuple[Any, ...]:
    used = {name: value.seq for name, value in snapshot.values.items()}
    return used, snapshot.t_ns, snapshot.present, snapshot.audio_end, snapshot.age_ms, snapshot.epoch, snapshot.reason


@settings(max_examples=20, deadline=None)
@given(
    trigger=st.sampled_from(["image", "audio", "imu", "timer"]),
    fps=st.sampled_from([10, 30]),
    seed=st.integers(0, 99),
    gap=st.none() | st.tuples(st.integers(0, 3000), st.integers(50, 2000)),
)
def test_the_answers_are_those_of_who_reads_every_packet_as_it_comes(
    trigger: str, fps: int, seed: int, gap: tuple[int, int] | None
) -> None:
    start, length = (0, 0) if gap is None else (gap[0] * MS, gap[1] * MS)
    packets = [
        packet
        for packet in sorted((*deliveries(fps, 10, seed), *measured()), key=lambda packet: packet.arrive_ns)
        if packet.arrive_ns < 5 * S and not (isinstance(packet, Frame) and start <= packet.arrive_ns < start + length)
    ]
    assert answers(packets, trigger, lazy=True) == answers(packets, trigger, lazy=False)
