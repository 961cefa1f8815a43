"""What a hostile writer may say of its packets: an error, or nothing that costs."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from mmedge.errors import SourceError
from mmedge.ipc.control import Ring
from mmedge.ipc.frame_record import FrameRecords
from mmedge.ipc.frames import FramePool
from mmedge.ipc.limits import MAX_SAMPLES
from mmedge.ipc.records import Lent, Small, TensorHeader, stamp_of
from mmedge.ipc.sound import packets_of
from mmedge.types import Block, Frame, Packet, Tensor
from tests.border import STAMP, Border, sound


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


@pytest.fixture
def border() -> Iterator[Border]:
    with Border() as both:
        yield both


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
