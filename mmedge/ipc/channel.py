"""Packets across a process border: their data lies in rings that both sides map, one eventfd wakes the reader."""

from __future__ import annotations

import math
import threading
from collections import Counter
from itertools import count
from typing import Any, TypeAlias

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import SourceError
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.frames import FramePool, Loan
from mmedge.ipc.wake import Wake
from mmedge.types import (
    Block,
    ByteArray,
    ClockQuality,
    Description,
    EndOfStream,
    Frame,
    Packet,
    PixelFormat,
    Slot,
    Tensor,
    Text,
)

EVENTS = 1024  # texts and ends that wait: slots of MAX_TEXT bytes
MAX_TEXT = 64 * 1024  # bytes of one text
MAX_SAMPLES = 1 << 18  # of the ring of one microphone: 5 s at 48 kHz
_SLOTS, _MAX_SLOTS, _TENSOR_BYTES = 16, 64, 1 << 24


class PacketStamp(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What every packet carries."""

    stream: str
    seq: int
    capture_ns: int
    arrive_ns: int
    epoch: int
    uncertainty_ns: int
    quality: ClockQuality


def _stamp(packet: Packet) -> PacketStamp:
    return PacketStamp(**packet.stamp())


def _fields(stamp: PacketStamp) -> dict[str, Any]:
    return {name: getattr(stamp, name) for name in PacketStamp.__struct_fields__}


class FrameHeader(msgspec.Struct, frozen=True, array_like=True, tag="frame"):
    """A frame without its data."""

    stamp: PacketStamp
    shape: tuple[int, ...]
    format: PixelFormat
    width: int
    height: int
    description: Description
    unchanged_ns: int
    damaged: bool = False


def frame_header(frame: Frame) -> FrameHeader:
    """Return all that is to be said of a frame but its data."""
    names = FrameHeader.__struct_fields__[2:]
    return FrameHeader(_stamp(frame), frame.data.shape, *(getattr(frame, name) for name in names))


def frame_of(header: FrameHeader, slot: ByteArray, release: Slot) -> Frame:
    """Return the frame whose data lies in ``slot``.

    ``slot`` is uint8, its first bytes hold the picture; the frame's data has the shape [...] of its format.
    """
    data = slot[: math.prod(header.shape)].reshape(header.shape)
    names = FrameHeader.__struct_fields__[2:]
    fields: dict[str, Any] = {name: getattr(header, name) for name in names} | _fields(header.stamp)
    return Frame(data=data, release=release, **fields)


class _Tensor(msgspec.Struct, frozen=True, array_like=True, tag="tensor"):
    stamp: PacketStamp
    shape: tuple[int, ...]
    dtype: str


class _Block(msgspec.Struct, frozen=True, array_like=True, tag="block"):
    stamp: PacketStamp
    ring: int
    end: int
    n: int
    lost: int


class _Text(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    stamp: PacketStamp
    n: int


class _End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    stamp: PacketStamp
    reason: str | None


_Header: TypeAlias = FrameHeader | _Tensor | _Block | _Text | _End


class PacketWriter:
    """The writing side, for any thread; it never waits, what does not fit is counted (sound as timed silence).

    Args:
        control: The line on which rings are announced.
        wake: Wakes the reader.
        slots: How many frames without a pool of their own (pushed ones) may be in use at once.

    Attributes:
        dropped: Packets that found no room, by stream.
    """

    def __init__(self, control: Control, wake: Wake, *, slots: int = _SLOTS) -> None:
        self._control = control
        self._wake = wake
        self._slots = slots
        self._numbers = count()
        self._events = core.SlotRing(EVENTS, MAX_TEXT)
        self._announce(self._events.fd, "slots", "")
        self._samples: dict[str, tuple[int, Any]] = {}
        self._pools: dict[str, FramePool] = {}
        self._announced: dict[str, FramePool] = {}
        self._lost: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.dropped: Counter[str] = Counter()

    def _announce(self, fd: int, kind: Any, stream: str) -> int:
        number = next(self._numbers)
        self._control.send(Ring(number, kind, stream), [fd])
        return number

    def put(self, packet: Packet) -> bool:
        """Hand a packet over; False when it found no room. A frame's slot is the reader's from now on."""
        with self._lock:
            done = self._put(packet)
            if not done:
                self.dropped[packet.stream] += 1
        self._wake.set()
        return done

    def _put(self, packet: Packet) -> bool:
        if isinstance(packet, Frame):
            return self._put_frame(packet)
        if isinstance(packet, Tensor):
            return self._put_tensor(packet)
        if isinstance(packet, Block):
            return self._put_block(packet)
        if isinstance(packet, Text):
            data = packet.text.encode()
            return len(data) <= MAX_TEXT and self._event(_Text(_stamp(packet), len(data)), data)
        if isinstance(packet, EndOfStream):
            return self._event(_End(_stamp(packet), packet.reason))
        raise TypeError(f"a {type(packet).__name__} cannot be sent to another process")

    def _put_frame(self, frame: Frame) -> bool:
        header = frame_header(frame)
        loan = frame.release
        if isinstance(loan, Loan):
            if self._announced.get(frame.stream) is not loan.pool:
                self._announced[frame.stream] = loan.pool
                self._announce(loan.pool.ring.fd, "slots", frame.stream)
            loan.hand_over()
            loan.pool.ring.publish(loan.index, msgspec.msgpack.encode(header))
            return True
        return self._put_array(frame.stream, frame.data, header)

    def _put_tensor(self, tensor: Tensor) -> bool:
        return self._put_array(
            tensor.stream, tensor.data, _Tensor(_stamp(tensor), tensor.data.shape, tensor.data.dtype.str)
        )

    def _put_array(self, stream: str, array: np.ndarray[Any, Any], header: _Header) -> bool:
        pool = self._pools.get(stream)
        if pool is None or pool.shape != (array.nbytes,):
            few = isinstance(header, FrameHeader)
            slots = self._slots if few else max(4, min(_MAX_SLOTS, _TENSOR_BYTES // array.nbytes))
            pool = self._pools[stream] = FramePool((array.nbytes,), slots=slots)
            self._announce(pool.ring.fd, "slots", stream)
        lent = pool.acquire()
        if lent is None:
            return False
        slot, loan = lent
        slot[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        loan.hand_over()
        loan.pool.ring.publish(loan.index, msgspec.msgpack.encode(header))
        return True

    def _put_block(self, block: Block) -> bool:
        stream, n = block.stream, len(block.samples)
        if stream not in self._samples:
            ring = core.SampleRing.shared(MAX_SAMPLES)
            self._samples[stream] = self._announce(ring.fd, "samples", stream), ring
        number, ring = self._samples[stream]
        end: int = ring.write(block.samples)
        if self._event(_Block(_stamp(block), number, end, n, block.lost + self._lost[stream])):
            self._lost[stream] = 0
            return True
        self._lost[stream] += n + block.lost
        return False

    def _event(self, header: _Header, data: bytes = b"") -> bool:
        index = self._events.acquire()
        if index < 0:
            return False
        if data:
            self._events.data(index)[: len(data)] = np.frombuffer(data, np.uint8)
        self._events.publish(index, msgspec.msgpack.encode(header))
        return True


class PacketReader:
    """The reading side.

    Args:
        where: Who writes, for error messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._slots: list[tuple[str, Any]] = []
        self._samples: dict[int, Any] = {}
        self._decoder: msgspec.msgpack.Decoder[_Header] = msgspec.msgpack.Decoder(_Header)
        self._dropped: Counter[str] = Counter()
        self._held: tuple[Any, int, int, _Header] | None = None

    def add(self, ring: Ring, fd: int) -> None:
        """Take in a ring the writer announced; its descriptor stays the caller's."""
        if ring.kind == "samples":
            self._samples[ring.number] = core.SampleRing.attach(fd)
        else:
            self._slots.append((ring.stream, core.SlotRing.attach(fd)))

    @property
    def dropped(self) -> dict[str, int]:
        """Packets of each stream that were overwritten before they were read."""
        dropped = self._dropped.copy()
        for stream, ring in list(self._slots):
            dropped[stream] += ring.dropped
        return {stream: count for stream, count in dropped.items() if count}

    def _leave_empty(self) -> None:
        # A camera that changed its size writes into another ring: the one before is read to its end, then left.
        for index, (stream, ring) in enumerate(self._slots[:-1]):
            if any(later == stream for later, _ in self._slots[index + 1 :]) and not ring.ready:
                self._dropped[stream] += ring.dropped
                self._slots.remove((stream, ring))
                return

    def take(self) -> list[Packet]:
        """Return what is there, in order of arrival.

        Frames lie in the ring until they are released, tensors and sound are copies.

        Raises:
            SourceError: If the writer left something that cannot be.
        """
        packets: list[Packet] = []
        # The ring of events comes first: whatever was published before an end of stream is then still found.
        for _, ring in list(self._slots):
            while (taken := self._next(ring)) is not None:
                packets.append(taken)
        self._leave_empty()
        packets.sort(key=lambda packet: packet.arrive_ns)
        return packets

    def _next(self, ring: Any) -> Packet | None:
        try:
            if self._held is not None and self._held[0] is ring:
                (_, index, seq, header), self._held = self._held, None
            else:
                taken = ring.take()
                if taken is None:
                    return None
                index, seq, data = taken
                header = self._decoder.decode(data)
            if isinstance(header, _Block) and header.ring not in self._samples:
                self._held = ring, index, seq, header  # its samples' ring is still on its way
                return None
            return self._packet(ring, index, seq, header)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise SourceError(f"a packet is damaged: {error}", where=self._where, fix="please report it") from error

    def _packet(self, ring: Any, index: int, seq: int, header: _Header) -> Packet:
        if isinstance(header, FrameHeader):
            return frame_of(header, ring.data(index), RingSlot(ring, index, seq))
        stamp = _fields(header.stamp)
        try:
            if isinstance(header, _Tensor):
                dtype = np.dtype(header.dtype)
                size = math.prod(header.shape) * dtype.itemsize
                return Tensor(data=ring.data(index)[:size].copy().view(dtype).reshape(header.shape), **stamp)
            if isinstance(header, _Text):
                return Text(text=ring.data(index)[: header.n].tobytes().decode(), **stamp)
            if isinstance(header, _End):
                return EndOfStream(reason=header.reason, **stamp)
            if not 0 <= header.n <= MAX_SAMPLES:
                raise ValueError(f"{header.n} samples in one block")
            samples = np.empty(header.n, np.float32)
            real = self._samples[header.ring].read(header.end, samples)
            # Overwritten before they were read: the oldest are gone, and their time stays.
            return Block(samples=samples[header.n - real :], lost=header.lost + header.n - real, **stamp)
        finally:
            ring.release(index)


class RingSlot:
    """A slot that its reader holds; called, it goes back to its writer, once.

    Args:
        ring: The ``SlotRing`` it is one of.
        index: Its number.
        seq: What it holds.
        held: False for a holder who only knows of it, and may copy it while it lasts.
    """

    __slots__ = ("_held", "index", "ring", "seq")

    def __init__(self, ring: Any, index: int, seq: int, *, held: bool = True) -> None:
        self.ring: Any = ring
        self.index = index
        self.seq = seq
        self._held = held

    def __call__(self) -> None:
        """Give the slot back."""
        held, self._held = self._held, False
        if held:
            self.ring.release(self.index)

    def copy(self, data: ByteArray, out: ByteArray) -> bool:
        """Copy what lies in the slot to ``out``; False if it holds something else by now.

        Both are uint8 of one shape, [...].
        """
        return bool(self.ring.copy(self.index, self.seq, out.reshape(-1)))
