"""What goes over the socket of a pipeline and lies in its rings, as ``native/attach/protocol.hpp`` has it."""

from __future__ import annotations

import array
import math
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from mmedge.ipc.records import FrameHeader
from mmedge.types import Result

MAGIC, VERSION = 0x61656D6D, 1
NAME, LABEL, TEXT = 64, 128, 512  # bytes, a NUL included
MAX_PUSH = 1 << 28  # bytes of one packet
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "bool",
}
SAID = 0  # the dtype of a text
_MESSAGE = struct.Struct(f"=IIIIQ{NAME}s{TEXT}s")
_RECORD = struct.Struct("=IIqqIIIIQ")
_TASK = struct.Struct(f"={NAME}s{LABEL}sIIdd")
_PICTURE = struct.Struct(f"={NAME}s16s16sIiQQqqIIIIIIII")
PUSHED = struct.Struct("=qIIQ8Q")


class Kind(IntEnum):
    """What a message is about."""

    HELLO = 1
    OPEN = 2
    WELCOME = 3
    RING = 4
    OPENED = 5
    REFUSED = 6
    ENDED = 7


class Message(NamedTuple):
    """One message, of either side."""

    kind: int
    number: int = 0
    bytes: int = 0
    name: str = ""
    text: str = ""

    def send(self, line: socket.socket, fds: Sequence[int] = ()) -> bool:
        """Send it with descriptors; False where the peer does not read, or is gone."""
        data = _MESSAGE.pack(
            MAGIC, VERSION, self.kind, self.number, self.bytes, _text(self.name, NAME), _text(self.text, TEXT)
        )
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return line.sendmsg([data], beside, socket.MSG_NOSIGNAL) == len(data)
        except OSError:
            return False


def receive(line: socket.socket) -> Message | None:
    """Return what the peer says; None if it has left.

    Raises:
        BlockingIOError: If there is nothing.
        ValueError: If it is not a message of this version.
        OSError: If the line is broken.
    """
    # Descriptors that nobody asked for do not come in: without room for them the kernel closes them.
    data, _, flags, _ = line.recvmsg(_MESSAGE.size + 1)
    if not data:
        return None
    if len(data) != _MESSAGE.size or flags & socket.MSG_CTRUNC:
        raise ValueError("what came is not a message of mmedge")
    magic, version, kind, number, size, name, text = _MESSAGE.unpack(data)
    if magic != MAGIC:
        raise ValueError("what came is not a message of mmedge")
    if version != VERSION:
        raise ValueError(f"the program speaks version {version} of the protocol, the pipeline version {VERSION}")
    return Message(kind, number, size, _string(name), _string(text))


class Place(NamedTuple):
    """Where a picture lies: a slot of a ring, as long as that holds ``seq``."""

    ring: int
    slot: int
    seq: int
    header: FrameHeader


def record(result: Result, places: dict[str, Place]) -> bytes:
    """Return a result as it lies in a slot."""
    tasks = b"".join(
        _TASK.pack(
            _text(name, NAME),
            _text(task.label or "", LABEL),
            task.label is not None,
            0,
            _or_nan(task.score),
            _or_nan(task.value),
        )
        for name, task in result.tasks.items()
    )
    pictures = b"".join(_picture(name, place) for name, place in places.items())
    line = result.to_json()
    at = _RECORD.size + len(tasks) + len(pictures)
    size = at + len(line) + 1
    ok = result.status == "ok"
    head = _RECORD.pack(VERSION, size, result.t_ns, result.unix_ns, ok, len(result.tasks), len(places), at, len(line))
    return b"".join((head, tasks, pictures, line, b"\0"))


def _picture(name: str, place: Place) -> bytes:
    header = place.header
    said, stamp = header.description, header.stamp
    return _PICTURE.pack(
        _text(name, NAME),
        _text(header.format, 16),
        _text(said.matrix, 16),
        place.ring,
        place.slot,
        place.seq,
        math.prod(header.shape),
        stamp.capture_ns,
        stamp.uncertainty_ns,
        header.width,
        header.height,
        said.rotation,
        said.mirrored,
        said.full_range,
        *said.pixel_aspect,
        0,
    )


class Pushed(NamedTuple):
    """What a slot holds that a program has pushed."""

    capture_ns: int
    dtype: int
    size: int
    shape: tuple[int, ...]

    @classmethod
    def read(cls, header: bytes, room: int) -> Pushed:
        """Return what the header of a slot of ``room`` bytes says.

        Raises:
            ValueError: If it cannot be.
        """
        if len(header) != PUSHED.size:
            raise ValueError("a slot has no header of a packet")
        capture_ns, dtype, ndim, size, *shape = PUSHED.unpack(header)
        if dtype == SAID:
            told = cls(capture_ns, dtype, size, ())
            wanted = size
        elif dtype in DTYPES and 1 <= ndim <= 8:
            told = cls(capture_ns, dtype, size, tuple(shape[:ndim]))
            wanted = math.prod(told.shape) * np.dtype(DTYPES[dtype]).itemsize
        else:
            raise ValueError(f"a packet of dtype {dtype} with {ndim} dimensions")
        if wanted != size or size > room:
            raise ValueError(f"a packet of {size} bytes in a slot of {room}, its shape takes {wanted}")
        return told


def _text(text: str, room: int) -> bytes:
    """Return what fits beside a NUL, whole characters."""
    return text.encode(errors="replace")[: room - 1].decode(errors="ignore").encode()


def _string(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
