"""Packets across the process border."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace

from mmedge.ipc.channel import RECORDS, PacketReader, PacketWriter
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.flow import FRAMES, TENSORS
from mmedge.ipc.frames import FramePool
from mmedge.ipc.limits import MAX_TEXT
from mmedge.ipc.sound import in_order, packets_of
from mmedge.ipc.wake import Wake
from mmedge.types import Arrival, Block, Description, EndOfStream, Frame, Packet, Tensor, Text
from tests.border import STAMP, Border
from tests.processes import child


@pytest.fixture
def border() -> Iterator[Border]:
    with Border() as both:
        yield both


def plain(packet: Packet) -> Any:
    fields = msgspec.structs.asdict(packet)
    fields.pop("release", None)
    return {k: (v.tobytes(), v.shape, v.dtype.str) if isinstance(v, np.ndarray) else v for k, v in fields.items()}


PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(lambda text: Text(text=text, **STAMP), st.text(max_size=50)),
    st.builds(lambda reason: EndOfStream(reason=reason, **STAMP), st.none() | st.text(max_size=20)),
    st.builds(
        lambda samples, lost: Block(samples=samples, lost=lost, **STAMP),
        arrays(np.float32, st.integers(0, 300), elements=st.floats(-1, 1, width=32)),
        st.integers(0, 1000),
    ),
    st.builds(
        lambda data: Tensor(data=data, **STAMP),
        arrays(st.sampled_from([np.float32, np.int16, np.uint8]), st.tuples(st.integers(1, 3), st.integers(1, 4))),
    ),
    st.builds(
        lambda data, said: Frame(
            data=data,
            format="gray8",
            width=data.shape[1],
            height=data.shape[0],
            description=said,
            **STAMP,
        ),
        arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))),
        st.builds(
            Description,
            matrix=st.sampled_from(["bt601", "bt2020"]),
            full_range=st.booleans(),
            transfer=st.sampled_from(["sdr", "hlg"]),
            rotation=st.sampled_from([0, 90, 180, 270]),
            mirrored=st.booleans(),
            pixel_aspect=st.tuples(st.integers(1, 65_536), st.integers(1, 65_536)),
            fields=st.sampled_from(["progressive", "top"]),
        ),
    ),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(PACKETS, max_size=12))
def test_packets_come_out_as_they_went_in(packets: list[Packet]) -> None:
    packets = [replace(packet, arrive_ns=11 + k) for k, packet in enumerate(packets)]
    with Border() as border:
        for packet in packets:
            assert border.writer.put(packet)
        out = border.take()
        assert border.wake.wait(0)
        assert border.flow.wait(0) == any(isinstance(packet, (Block, Tensor)) for packet in packets)
    assert [(type(packet), plain(packet)) for packet in out] == [(type(packet), plain(packet)) for packet in packets]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abt"), st.integers(0, 9)), max_size=14))
def test_runs_and_other_packets_come_in_order_of_arrival(sent: list[tuple[str, int]]) -> None:
    """Blocks of ``a`` and ``b`` and texts, put in any order, with any arrival times."""
    with Border() as border:
        for number, (kind, arrive_ns) in enumerate(sent):
            stamp = {**STAMP, "stream": kind, "seq": number, "arrive_ns": arrive_ns}
            samples = np.full(3, number, np.float32)
            packet = Text(text="", **stamp) if kind == "t" else Block(samples=samples, **stamp)  # type: ignore[arg-type]
            assert border.writer.put(packet)
        border.read_announcements()
        found = in_order(border.reader.take_runs())
    wanted = sorted(range(len(sent)), key=lambda number: sent[number][1])
    packets = packets_of(found)
    assert [packet.seq for packet in packets] == wanted
    for packet in packets:
        assert not isinstance(packet, Block) or packet.samples.tolist() == [packet.seq] * 3


def frame(pool: FramePool, seq: int) -> Frame | None:
    lent = pool.acquire()
    if lent is None:
        return None
    slot, release = lent
    slot[...] = seq
    stamp = {**STAMP, "seq": seq, "arrive_ns": seq}
    return Frame(data=slot, format="gray8", width=4, height=2, release=release, **stamp)  # type: ignore[arg-type]


def test_a_frame_is_not_copied_and_its_slot_comes_back(border: Border) -> None:
    pool = FramePool((2, 4), slots=2)
    first = frame(pool, 1)
    assert first is not None
    border.writer.put(first)
    (got,) = border.take()
    assert isinstance(got, Frame)
    first.data[0, 0] = 99
    assert got.data[0, 0] == 99
    assert pool.free == 1
    assert first.release is not None
    first.release()  # handed over: no longer the writer's to give back
    assert pool.free == 1
    assert got.release is not None
    got.release()
    got.release()
    assert pool.free == 2


def test_the_newest_frames_win_and_the_others_are_arrivals(border: Border) -> None:
    pool = FramePool((2, 4), slots=3)
    for seq in range(10):
        packet = frame(pool, seq)
        assert packet is not None
        border.writer.put(packet)
    taken = border.take()
    assert [packet.seq for packet in taken] == list(range(10))
    assert [isinstance(packet, Frame) for packet in taken] == [False] * 7 + [True] * 3
    assert all(isinstance(packet, Arrival) for packet in taken[:7])
    assert frame(pool, 10) is None  # all three are being read


def test_a_reader_that_comes_late_leaves_slots_for_what_the_camera_sees_now(border: Border) -> None:
    pool = FramePool((2, 4), slots=8)
    for seq in range(20):
        packet = frame(pool, seq)
        assert packet is not None
        border.writer.put(packet)
        border.writer.put(Tensor(data=np.full(2, seq, np.int16), **{**STAMP, "stream": "t"}))  # type: ignore[arg-type]
    taken = [packet for packet in border.take(newest=True) if packet.stream == "s"]
    assert [packet.seq for packet in taken if isinstance(packet, Frame)] == list(range(20 - FRAMES, 20))
    assert [packet.seq for packet in taken] == list(range(20))
    assert pool.free == 8 - FRAMES


@pytest.mark.parametrize("size", [6, 3000])  # in its record, and in a slot
def test_of_very_many_tensors_the_newest_are_taken(border: Border, size: int) -> None:
    for seq in range(TENSORS + 90):
        data = np.full(size, seq, np.float32)
        border.writer.put(Tensor(data=data, **{**STAMP, "seq": seq, "arrive_ns": seq}))  # type: ignore[arg-type]
    taken = border.take(newest=True)
    kept = [packet for packet in taken if isinstance(packet, Tensor)]
    assert [packet.seq for packet in taken] == list(range(TENSORS + 90))
    assert [packet.seq for packet in kept] == list(range(TENSORS + 90 - len(kept), TENSORS + 90))
    assert all((packet.data == packet.seq).all() for packet in kept)
    assert len(kept) == (TENSORS if size == 6 else 64)


def test_the_newest_stamps_can_be_seen_by_who_takes_nothing(border: Border) -> None:
    border.take()
    assert border.reader.newest == (0, 0, 0)
    for seq in range(3):
        border.writer.put(Text(text="x", **{**STAMP, "arrive_ns": 20 + seq, "epoch": seq}))  # type: ignore[arg-type]
    assert border.reader.newest == (22, 10, 2)
    assert len(border.take()) == 3
    assert border.reader.newest == (22, 10, 2)


def test_a_camera_that_changes_its_size_is_read_to_the_end(border: Border) -> None:
    sizes = [2 + k % 12 for k in range(36)]
    for size in sizes:
        data = np.full((size, size), size, np.uint8)
        border.writer.put(Frame(data=data, format="gray8", width=size, height=size, **STAMP))  # type: ignore[arg-type]
    got = [packet for packet in border.take() if isinstance(packet, Frame)]
    assert [packet.width for packet in got] == sizes
    for packet in got:
        assert packet.release is not None
        packet.release()
    assert border.reader._core.slot_rings == 1  # the newest size


def test_a_packet_waits_for_its_ring_and_those_after_it_with_it(border: Border) -> None:
    border.take()
    border.writer.put(Block(samples=np.ones(10, np.float32), **STAMP))  # type: ignore[arg-type]
    border.writer.put(Text(text="after", **{**STAMP, "stream": "t", "arrive_ns": 12}))  # type: ignore[arg-type]
    assert border.reader.take() == []  # the line that brings the ring was not read yet
    border.wake.clear()
    assert [type(packet) for packet in border.take()] == [Block, Text]
    assert border.wake.wait(0), "the ring that came wakes the reader"


def test_sound_that_finds_no_room_stays_a_timed_gap(border: Border) -> None:
    block = Block(samples=np.ones(10, np.float32), **STAMP)  # type: ignore[arg-type]
    sent = 0
    while border.writer.put(block):
        sent += 1
    assert RECORDS // 200 < sent < RECORDS // 20
    for _ in range(4):
        assert not border.writer.put(block)
    assert len(border.take()) == sent
    assert border.writer.put(block)
    (late,) = border.take()
    assert isinstance(late, Block)
    assert late.lost == 50
    assert border.writer.dropped["s"] == 5


def test_a_picture_that_finds_no_room_gives_its_slot_back(border: Border) -> None:
    while border.writer.put(Text(text="x" * 1000, **STAMP)):  # type: ignore[arg-type]
        pass
    while border.writer.put(EndOfStream(reason=None, **STAMP)):  # type: ignore[arg-type]
        pass
    pool = FramePool((2, 4), slots=2)
    packet = frame(pool, 1)
    assert packet is not None
    assert not border.writer.put(packet)
    assert pool.free == 2


def test_sound_that_was_overwritten_before_it_was_read_is_lost_and_its_time_stays(border: Border) -> None:
    for _ in range(4):
        border.writer.put(Block(samples=np.ones(100_000, np.float32), **STAMP))  # type: ignore[arg-type]
    blocks = [packet for packet in border.take() if isinstance(packet, Block)]
    assert sum(len(block.samples) + block.lost for block in blocks) == 400_000
    assert sum(block.lost for block in blocks) == 400_000 - (1 << 18)


def test_long_texts_wait_where_they_are_expected() -> None:
    here, there = Control.pair()
    counts = []
    for texts in (0, 64):
        writer = PacketWriter(here, Wake(), texts=texts)
        counts.append(sum(writer.put(Text(text="x" * MAX_TEXT, **STAMP)) for _ in range(90)))  # type: ignore[arg-type]
    assert counts == [15, 79]
    here.close()
    there.close()


def test_text_that_is_too_long_is_counted(border: Border) -> None:
    assert border.writer.put(Text(text="x" * MAX_TEXT, **STAMP))  # type: ignore[arg-type]
    assert not border.writer.put(Text(text="x" * (MAX_TEXT + 1), **STAMP))  # type: ignore[arg-type]


def test_packets_cross_two_processes_and_back() -> None:
    to_child, to_us = Wake(), Wake()
    reader = PacketReader("echo")
    with child("echo", fds=(to_child.fileno(), to_us.fileno())) as started:
        writer = PacketWriter(started.control, to_child)
        sent = [
            Block(samples=np.full(80, k, np.float32), **{**STAMP, "seq": k})  # type: ignore[arg-type]
            for k in range(500)
        ]
        got: list[Packet] = []
        deadline = time.monotonic() + 60
        for block in sent:
            writer.put(block)
        while len(got) < len(sent) and time.monotonic() < deadline:
            received = started.receive(0.01)
            if received is not None and isinstance(received[0], Ring):
                reader.add(received[0], received[1][0])
            to_us.wait(0.01)
            got += reader.take()
        assert [plain(packet) for packet in got] == [plain(packet) for packet in sent]
