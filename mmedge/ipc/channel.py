"""Packets across a process border: their data lies in rings that both sides map, two eventfds wake the reader."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import SourceError
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.flow import FRAMES, SMALL, TENSORS, flows
from mmedge.ipc.frame_record import FrameRecords, decode_kind, lay_out
from mmedge.ipc.frames import FramePool, Loan
from mmedge.ipc.limits import MAX_SAMPLES, MAX_TEXT
from mmedge.ipc.records import (
    End,
    Lent,
    Record,
    Said,
    Small,
    fields_of,
    stamp_of,
    tensor_header,
)
from mmedge.ipc.sound import Found, SoundRecord, packets_of
from mmedge.ipc.wake import Wake
from mmedge.learn import learn
from mmedge.types import Arrival, Block, EndOfStream, Frame, Packet, Tensor, Text

RECORDS = 1 << 20  # bytes of what waits to be read: half a minute of a camera and a microphone
_SLOTS, _MAX_SLOTS, _TENSOR_BYTES = 16, 64, 1 << 24


class PacketWriter:
    """The writing side, for any thread; it never waits, what does not fit is counted (sound as timed silence).

    Every packet is a record of one queue, in the order in which it was put. What is large lies beside it: pictures in
    slots, of which the newest take those of the oldest that nobody has read, and sound in a ring of samples.

    Args:
        control: The line on which rings are announced.
        wake: Wakes the reader.
        flow: Wakes a reader that waits for what ``flows``; ``wake`` by default.
        slots: How many frames without a pool of their own (pushed ones) may be in use at once.
        texts: How many of the longest texts may wait at once, beside what waits anyway.

    Attributes:
        dropped: Packets that found no room, by stream.
    """

    def __init__(
        self, control: Control, wake: Wake, flow: Wake | None = None, *, slots: int = _SLOTS, texts: int = 0
    ) -> None:
        self._control = control
        self._wake, self._flow = wake, flow or wake
        self._slots = slots
        self._numbers = count()
        self._records = core.RecordQueue(RECORDS + texts * MAX_TEXT)
        self._announce(self._records.fd, "records", "")
        self._samples: dict[str, tuple[int, Any]] = {}
        self._pools: dict[str, FramePool] = {}
        self._announced: dict[str, tuple[int, FramePool]] = {}
        self._frames = FrameRecords()
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
        (self._flow if flows(packet) else self._wake).set()
        return done

    def _put(self, packet: Packet) -> bool:
        if isinstance(packet, Frame):
            return self._put_frame(packet)
        if isinstance(packet, Tensor):
            return self._put_tensor(packet)
        if isinstance(packet, Block):
            return self._put_block(packet)
        if isinstance(packet, Text):
            return len(packet.text.encode()) <= MAX_TEXT and self._record(packet, Said(stamp_of(packet), packet.text))
        if isinstance(packet, EndOfStream):
            return self._record(packet, End(stamp_of(packet), packet.reason))
        raise TypeError(f"a {type(packet).__name__} cannot be sent to another process")

    def _put_frame(self, frame: Frame) -> bool:
        loan = frame.release
        return self._lend(frame, loan) if isinstance(loan, Loan) else self._put_array(frame, frame.data)

    def _put_tensor(self, tensor: Tensor) -> bool:
        if tensor.data.nbytes <= SMALL:
            return self._record(tensor, Small(tensor_header(tensor), tensor.data.tobytes()))
        return self._put_array(tensor, tensor.data)

    def _put_array(self, packet: Frame | Tensor, array: np.ndarray[Any, Any]) -> bool:
        pool = self._pools.get(packet.stream)
        if pool is None or pool.shape != (array.nbytes,):
            few = isinstance(packet, Frame)
            slots = self._slots if few else max(4, min(_MAX_SLOTS, _TENSOR_BYTES // array.nbytes))
            pool = self._pools[packet.stream] = FramePool((array.nbytes,), slots=slots)
        lent = pool.acquire()
        if lent is None:
            return False
        slot, loan = lent
        slot[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self._lend(packet, loan)

    def _lend(self, packet: Frame | Tensor, loan: Loan) -> bool:
        number, pool = self._announced.get(packet.stream, (-1, None))
        if pool is not loan.pool:
            number = self._announce(loan.pool.ring.fd, "slots", packet.stream)
            self._announced[packet.stream] = number, loan.pool
        loan.hand_over()
        ring = loan.pool.ring
        seq = ring.publish(loan.index, b"")
        if isinstance(packet, Frame):
            done = self._put_record(packet, self._frames.encode(packet, number, loan.index, seq))
        else:
            done = self._record(packet, Lent(number, loan.index, seq, tensor_header(packet)))
        if not done and ring.claim(loan.index, seq):  # nobody will ever ask for it
            ring.release(loan.index)
        return done

    def _put_block(self, block: Block) -> bool:
        stream, n = block.stream, len(block.samples)
        if stream not in self._samples:
            ring = core.SampleRing.shared(MAX_SAMPLES)
            self._samples[stream] = self._announce(ring.fd, "samples", stream), ring
        number, ring = self._samples[stream]
        end: int = ring.write(block.samples)
        record = SoundRecord(
            block.quality,
            number,
            block.seq,
            block.capture_ns,
            block.arrive_ns,
            block.epoch,
            block.uncertainty_ns,
            end,
            n,
            block.lost + self._lost[stream],
        )
        if self._put_record(block, record.encode()):
            self._lost[stream] = 0
            return True
        self._lost[stream] += n + block.lost
        return False

    def sound_writer(self, streams: Iterable[str]) -> Any:
        """Return a native writer of the sound of ``streams``, of which nothing was put yet.

        It writes into the same queue: as long as it does, ``put`` must not be called.
        """
        writer = core.SoundWriter(self._records, self._flow.fileno())
        with self._lock:
            for stream in streams:
                ring = core.SampleRing.shared(MAX_SAMPLES)
                self._samples[stream] = self._announce(ring.fd, "samples", stream), ring
                writer.add(ring, self._samples[stream][0])
        return writer

    def _record(self, packet: Packet, record: Record) -> bool:
        return self._put_record(packet, msgspec.msgpack.encode(record))

    def _put_record(self, packet: Packet, record: bytes) -> bool:
        return self._records.put(record, packet.arrive_ns, packet.capture_ns, packet.epoch)


class PacketReader:
    """The reading side; ``add`` may be called by another thread than ``take``.

    Args:
        where: Who writes, for error messages.
        wake: Set by the writer; a new one by default.
        flow: Set by the writer when something has come that ``flows``; a new one by default.

    Attributes:
        wake: Set when something may be there that does not flow.
        flow: Set when something may be there that ``flows``.
    """

    def __init__(self, where: str, wake: Wake | None = None, flow: Wake | None = None) -> None:
        self.wake, self.flow = wake or Wake(), flow or Wake()
        self._where = where
        self._core = core.PacketReader(decode=decode_kind, lay_out=lay_out, frame=Frame, arrival=Arrival)
        self._waiting: list[bytes | Found] = []  # the first of them lies in a ring that is still on its way
        self._decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(learn(Record))

    def add(self, ring: Ring, fd: int) -> None:
        """Take in a ring the writer announced; its descriptor stays the caller's."""
        if ring.kind == "records":
            self._core.add_records(fd)
        elif ring.kind == "samples":
            self._core.add_samples(ring.number, ring.stream, fd)
        else:
            self._core.add_slots(ring.number, fd)
        self.wake.set()  # what lies in it may have come before

    @property
    def newest(self) -> tuple[int, int, int]:
        """Arrival and capture time in ns and epoch of the newest packet, taken or not; zeros before the first."""
        return self._core.newest

    def take(self, *, newest: bool = False) -> list[Packet]:
        """Return what is there, in order of arrival.

        Frames lie in the ring until they are released, all else is a copy. What was overwritten before it was taken
        is an ``Arrival``.

        Args:
            newest: Of the pictures and tensors of a stream take the newest few, see ``mmedge.ipc.flow``; those
                before them are arrivals, too.

        Raises:
            SourceError: If the writer left something that cannot be.
        """
        return sorted(packets_of(self.take_runs(newest=newest)), key=attrgetter("arrive_ns"))

    def take_runs(self, *, newest: bool = False) -> list[Found]:
        """Return what ``take`` does as it was put, and blocks that follow each other as a run; see ``in_order``."""
        try:
            if self._waiting:
                found = self._packets(self._waiting, newest=newest)
                if self._waiting:
                    return found
                found += self._packets(self._core.take(FRAMES if newest else 0), newest=newest)
                return found
            found = self._core.take(FRAMES if newest else 0)
            return found if self._core.plain else self._packets(found, newest=newest)
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise SourceError(f"a packet is damaged: {error}", where=self._where, fix="please report it") from error

    def _packets(self, taken: Sequence[bytes | Found], *, newest: bool) -> list[Found]:
        """Read the records among what was taken; from the first on whose ring is still on its way, all of it waits."""
        self._waiting = []
        said = [self._decoder.decode(each) if isinstance(each, bytes) else each for each in taken]
        spare = _spare(said) if newest else {}
        found: list[Found] = []
        for at, record in enumerate(said):
            if isinstance(record, Lent) and record.ring > self._core.newest_ring:
                self._waiting = list(taken[at:])
                break
            found.append(self._packet(record, spare) if isinstance(record, Record) else record)
        return found

    def _packet(self, record: Record, spare: dict[str, int]) -> Packet:
        if isinstance(record, Lent):
            return self._tensor(record, spare)
        stamp = fields_of((record.header if isinstance(record, Small) else record).stamp)
        if isinstance(record, Small):
            if _passed_over(record.header.stamp.stream, spare):
                return Arrival(**stamp)
            data = np.frombuffer(bytearray(record.data), np.dtype(record.header.dtype))
            return Tensor(data=data.reshape(record.header.shape), **stamp)
        if isinstance(record, Said):
            return Text(text=record.text, **stamp)
        return EndOfStream(reason=record.reason, **stamp)

    def _tensor(self, record: Lent, spare: dict[str, int]) -> Packet:
        header, index = record.header, record.index
        ring = self._core.slots(header.stamp.stream, record.ring)
        taken = ring.claim(index, record.seq)
        if _passed_over(header.stamp.stream, spare) and taken:
            ring.release(index)
            taken = False
        if not taken:
            return Arrival(**fields_of(header.stamp))
        try:
            dtype = np.dtype(header.dtype)
            size = math.prod(header.shape) * dtype.itemsize
            data = ring.data(index)[:size].copy().view(dtype).reshape(header.shape)
            return Tensor(data=data, **fields_of(header.stamp))
        finally:
            ring.release(index)


def _spare(records: Iterable[Record | Found]) -> dict[str, int]:
    """Return how many of the oldest tensors of each stream are not worth taking."""
    found = Counter(record.header.stamp.stream for record in records if isinstance(record, (Lent, Small)))
    return {stream: count - TENSORS for stream, count in found.items()}


def _passed_over(stream: str, spare: dict[str, int]) -> bool:
    """Tell whether a tensor makes room for newer ones."""
    left = spare.get(stream, 0)
    spare[stream] = left - 1
    return left > 0
