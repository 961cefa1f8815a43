"""Frames that cross a process border: what changes with each is a record of fixed size, what seldom does is cached."""

from __future__ import annotations

import math
import struct

import msgspec

from mmedge.ipc.records import Shape
from mmedge.learn import learn
from mmedge.types import ByteArray, ClockQuality, Description, Frame, PixelFormat, Slot

FRAME = 2  # the first byte of such a record; one of msgpack begins with an array
_NUMBERS = struct.Struct("<BBHI8q")
_KINDS = 64  # of the frames of one writer, so many are remembered


class FrameKind(msgspec.Struct, frozen=True, array_like=True):
    """What the frames of a camera have in common."""

    stream: str
    quality: ClockQuality
    shape: Shape
    format: PixelFormat
    width: int
    height: int
    description: Description


class FrameRecord(msgspec.Struct, frozen=True):
    """A frame without its data, which lies in slot ``index`` of a ring as long as that holds ``slot_seq``."""

    kind: FrameKind
    damaged: bool
    ring: int
    index: int
    slot_seq: int
    seq: int
    capture_ns: int
    arrive_ns: int
    epoch: int
    uncertainty_ns: int
    unchanged_ns: int

    def frame(self, data: ByteArray, release: Slot) -> Frame:
        """Return the frame.

        ``data`` is uint8 and has the shape [...] of its kind.
        """
        kind = self.kind
        return Frame(
            stream=kind.stream,
            seq=self.seq,
            capture_ns=self.capture_ns,
            arrive_ns=self.arrive_ns,
            epoch=self.epoch,
            uncertainty_ns=self.uncertainty_ns,
            quality=kind.quality,
            data=data,
            format=kind.format,
            width=kind.width,
            height=kind.height,
            description=kind.description,
            release=release,
            unchanged_ns=self.unchanged_ns,
            damaged=self.damaged,
        )


def decode_kind(told: bytes) -> FrameKind:
    """Return what ``FrameRecords`` has encoded of a kind of frames; raises ``msgspec.MsgspecError`` if it is none."""
    return msgspec.msgpack.decode(told, type=learn(FrameKind))


def lay_out(kind: FrameKind, slot: ByteArray) -> ByteArray:
    """Return the part of a slot that holds a picture: a view, uint8 [...] in the shape of its kind.

    ``slot`` is uint8 [bytes].
    """
    return slot[: math.prod(kind.shape)].reshape(kind.shape)


class FrameRecords:
    """Encodes and decodes the frames of one writer; remembers their kinds."""

    def __init__(self) -> None:
        self._decoded: dict[bytes, FrameKind] = {}
        self._encoded: dict[str, tuple[FrameKind, bytes]] = {}

    def encode(self, frame: Frame, ring: int, index: int, slot_seq: int) -> bytes:
        """Return a frame's record: its data lies in a slot of a ring."""
        kind = FrameKind(
            frame.stream, frame.quality, frame.data.shape, frame.format, frame.width, frame.height, frame.description
        )
        known, encoded = self._encoded.get(frame.stream, (None, b""))
        if known != kind:
            encoded = msgspec.msgpack.encode(kind)
            self._encoded[frame.stream] = kind, encoded
        numbers = frame.seq, frame.capture_ns, frame.arrive_ns, frame.epoch, frame.uncertainty_ns, frame.unchanged_ns
        return _NUMBERS.pack(FRAME, frame.damaged, 0, ring, index, slot_seq, *numbers) + encoded

    def decode(self, record: bytes) -> FrameRecord:
        """Return what a record says.

        Raises:
            ValueError, struct.error, msgspec.MsgspecError: If it is not one.
        """
        _, damaged, zero, ring, *numbers = _NUMBERS.unpack_from(record)
        if damaged > 1 or zero:
            raise ValueError("a frame's record has a flag that does not exist")
        told = record[_NUMBERS.size :]
        kind = self._decoded.get(told)
        if kind is None:
            kind = decode_kind(told)
            if len(self._decoded) >= _KINDS:
                self._decoded.clear()
            self._decoded[told] = kind
        return FrameRecord(kind, bool(damaged), ring, *numbers)
