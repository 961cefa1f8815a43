"""Packets across the process border."""

from __future__ import annotations

import os
import resource
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

from mmedge.errors import SourceError
from mmedge.ipc.channel import RECORDS, PacketReader, PacketWriter
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.flow import FRAMES, TENSORS
from mmedge.ipc.frame_record import FrameRecords
from mmedge.ipc.frames import FramePool
from mmedge.ipc.limits import MAX_SAMPLES, MAX_TEXT
from mmedge.ipc.records import Lent, Small, TensorHeader, stamp_of
from mmedge.ipc.sound import SoundRecord, in_order, packets_of
from mmedge.ipc.wake import Wake
from mmedge.types import Arrival, Block, Description, EndOfStream, Frame, Packet, Tensor, Text
from tests.processes import child

STAMP = {"stream": "s", "seq": 3, "capture_ns": 10, "arrive_ns": 11, "epoch": 2, "uncertainty_ns": 5, "quality": "C"}


def sound(**other: Any) -> SoundRecord:
    stamp = {name: STAMP[name] for name in ("quality", "seq", "capture_ns", "arrive_ns", "epoch", "uncertainty_ns")}
    return SoundRecord(**{**stamp, "end": 3001, "n": 1, "lost": 0, **other})


def picture(*, ring: int = 1, index: int = 1, **other: Any) -> bytes:
    """Return what is said of a picture in a slot of the ring that the test's tensor lies in."""
    kind = {"shape": (2, 2), "format": "gray8", **other}
    data = np.zeros((2, 2), np.uint8)
    frame = Frame(data=data, format="gray8", width=2, height=2, **STAMP)  # type: ignore[arg-type]
    record = FrameRecords().encode(frame, ring, index, 2)
    told = msgspec.msgpack.decode(record[72:])
    told[2], told[3] = kind["shape"], kind["format"]
    return record[:72] + msgspec.msgpack.encode(told)


def header(shape: tuple[int, ...], dtype: str) -> TensorHeader:
    return TensorHeader(stamp_of(Packet(**STAMP)), shape, dtype)  # type: ignore[arg-type]


def tensor(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return a tensor of 8 bytes, as somebody says it is."""
    return msgspec.msgpack.encode(Small(header(shape, dtype), b"12345678"))


def lent(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return what is said of a tensor in a slot of the ring that the test's tensor lies in."""
    return msgspec.msgpack.encode(Lent(1, 1, 2, header(shape, dtype)))


class Border:
    """A writer and a reader as in two processes, in one."""

    def __init__(self) -> None:
        self.here, self.there = Control.pair()
        self.wake, self.flow = Wake(), Wake()
        self.writer = PacketWriter(self.here, self.wake, self.flow)
        self.reader = PacketReader("test", self.wake, self.flow)

    def __enter__(self) -> Border:
        return self

    def __exit__(self, *_: object) -> None:
        self.here.close()
        self.there.close()

    def take(self, *, newest: bool = False) -> list[Packet]:
        self.read_announcements()
        return self.reader.take(newest=newest)

    def read_announcements(self) -> None:
        while (received := self.there.receive(0)) is not None:
            message, fds = received
            assert isinstance(message, Ring)
            self.reader.add(message, fds[0])
            for fd in fds:
                os.close(fd)


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


@pytest.mark.parametrize(
    "record",
    [
        b"\x93nonsense",
        b"\x01nonsense",
        b"",
        sound(ring=0).encode(),  # the queue's number
        msgspec.msgpack.encode(Lent(1, 99, 1, TensorHeader(stamp_of(Packet(**STAMP)), (2,), "<i2"))),  # type: ignore[arg-type]
        sound(ring=1).encode(),  # a ring of slots
        *(sound(ring=2, lost=lost).encode() for lost in (-20, 2**63 - 1)),
        *(sound(ring=2, end=3000 + n, n=n).encode() for n in (-1, MAX_SAMPLES + 1)),
        sound(ring=2, end=3000).encode(),  # a sample that was read before
        sound(ring=2).encode()[:-1],
        sound(ring=2).encode() + b"x",
        b"\x01\x03" + sound(ring=2).encode()[2:],  # a quality that is none
        b"\x02nonsense",
        picture()[:72],
        picture() + b"x",
        b"\x02\x02" + picture()[2:],  # a flag that is none
        picture(ring=2),  # a ring of sound
        picture(index=99),
        picture(shape=(12_001,)),  # more than a slot holds
        picture(shape=(-1, 2)),
        picture(format="heic"),
        picture(shape=(0, 2**63)),
        *(tensor((2,), dtype) for dtype in ("O", "|O8", "<i4,O", "(2,)i4", "|V4", "<M8", "<i0", "<f4\n", "")),
        *(tensor(shape, "<f4") for shape in ((-1,), (-1, 2), (-2, 2), (2**63,), (0, 2**63), (2**40, 2**40), (3,))),
        *(lent(shape, "<f4") for shape in ((-1,), (-1, 2), (-2, 2), (2**63,), (0, 2**63), (2**40, 2**40), (3001,))),
    ],
)
def test_a_ring_that_says_nonsense_is_an_error(border: Border, record: bytes) -> None:
    border.writer.put(Tensor(data=np.zeros(3000, np.float32), **STAMP))  # type: ignore[arg-type]
    border.writer.put(Block(samples=np.zeros(3000, np.float32), **STAMP))  # type: ignore[arg-type]
    assert len(border.take()) == 2
    pool = border.writer._pools["s"]
    acquired = pool.acquire()
    assert acquired is not None
    assert (acquired[1].index, pool.ring.publish(acquired[1].index, b"")) == (1, 2)
    border.writer._records.put(record, 0, 0, 0)
    with pytest.raises(SourceError, match="damaged"):
        border.take()


def test_sound_that_no_ring_holds_takes_no_memory(border: Border) -> None:
    border.writer.put(Block(samples=np.zeros(3000, np.float32), **STAMP))  # type: ignore[arg-type]
    border.take()
    for k in range(1, 401):  # 400 MiB, were they believed
        border.writer._records.put(sound(ring=1, end=3000 + k * MAX_SAMPLES, n=MAX_SAMPLES).encode(), 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (run,) = border.reader.take_runs()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert all(len(block.samples) == 0 for block in packets_of([run]) if isinstance(block, Block))


def test_streams_and_rings_without_end_are_refused(border: Border) -> None:
    ring = FramePool((4,), slots=1).ring
    border.read_announcements()
    for number in range(1, 257):
        border.reader.add(Ring(number, "slots", "s"), ring.fd)
    with pytest.raises(ValueError, match="too many rings"):
        border.reader.add(Ring(257, "slots", "s"), ring.fd)
    for k in range(100):
        told = msgspec.msgpack.decode(picture(ring=1, index=0)[72:])
        told[0] = f"stream {k}"
        border.writer._records.put(picture(ring=1, index=0)[:72] + msgspec.msgpack.encode(told), 0, 0, 0)
    with pytest.raises(SourceError, match="more streams than a pipeline has"):
        border.take()


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
