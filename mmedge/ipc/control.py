"""The control line between a process and its child: whole messages, with descriptors, in both directions."""

from __future__ import annotations

import array
import errno
import json
import os
import select
import socket
import threading
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from mmedge.address import decode_address, encode_address
from mmedge.learn import learn

MAX_MESSAGE = 1 << 17  # bytes
_MAX_FDS = 6
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class Start(msgspec.Struct, frozen=True, tag=True):
    """Parent: run ``entry`` (``"pkg.mod:function"``); descriptors of the entry's own come with it."""

    entry: str
    payload: bytes
    path: list[bytes]
    cwd: bytes


class Load(msgspec.Struct, frozen=True, tag=True):
    """To the spawner: import these modules now, as far as they are there; they are looked for in ``path``."""

    modules: tuple[str, ...]
    path: list[bytes]


class Fork(msgspec.Struct, frozen=True, tag=True):
    """To the spawner: import these modules and fork a child. With it come the descriptors of ``mmedge.ipc.spawned``."""

    name: str
    load: Load


class Forked(msgspec.Struct, frozen=True, tag=True):
    """Spawner: the child runs, and its pidfd comes with this; or ``errno`` says why there is none.

    ``threads`` are those that its imports have started, with which it must not fork: it executes Python anew.
    """

    pid: int = 0
    errno: int = 0
    threads: int = 0


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Spawner: the child has ended, with this code: below 0 a signal."""

    code: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Parent: end soon."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Child: everything is open."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Parent: do something while the entry runs; it is answered with the same number."""

    number: int
    body: bytes


class Answer(msgspec.Struct, frozen=True, tag=True):
    """Child: what has come of an ``Ask``; or the error, as ``MmedgeError.to_dict`` gives it."""

    number: int
    body: bytes = b""
    error: dict[str, Any] | None = None


class Log(msgspec.Struct, frozen=True, tag=True):
    """Child: a log record."""

    level: int
    name: str
    text: str


class Ring(msgspec.Struct, frozen=True, tag=True):
    """Either: a new ring, in place of the one of the same stream, if it has any; its descriptor comes with it."""

    number: int
    kind: Literal["slots", "samples", "records"]
    stream: str = ""


class State(msgspec.Struct, frozen=True, tag=True):
    """Child: a sign of life, with whatever its entry reports."""

    body: bytes


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Child: the error that ended it, as ``MmedgeError.to_dict`` gives it; of a bug, the traceback of its cause."""

    error: dict[str, Any]
    traceback: str = ""
    logged: bool = True


class Done(msgspec.Struct, frozen=True, tag=True):
    """Child: the entry has returned."""


Message: TypeAlias = (
    Start | Load | Fork | Forked | Ended | Stop | Ready | Ask | Answer | Log | Ring | State | Failed | Done
)


def pack(order: msgspec.Struct) -> bytes:
    """Return the payload of a child: its text may hold names of files that are not UTF-8, and secrets of addresses.

    They go by this line alone: arguments and environments of processes can be read by others.
    """
    return json.dumps(msgspec.to_builtins(order, enc_hook=encode_address)).encode()


def unpack(payload: bytes, kind: type[_Struct]) -> _Struct:
    """Return what ``pack`` was given."""
    return msgspec.convert(json.loads(payload), learn(kind), dec_hook=decode_address)


class Control:
    """One end of a SOCK_SEQPACKET socket pair; ``send`` may be called from any thread, ``receive`` from one.

    Example:
        >>> here, there = Control.pair()
        >>> here.send(Ready()), there.receive(1.0)
        (True, (Ready(), []))
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        self._decoder = msgspec.msgpack.Decoder(learn(Message))

    @classmethod
    def pair(cls) -> tuple[Control, Control]:
        """Return two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """Return the descriptor, to poll on or to pass on."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = (), *, wait: bool = True) -> bool:
        """Send a message; False when the other end is closed.

        Args:
            message: What to say.
            fds: Descriptors that go with it; the caller keeps its own.
            wait: False: rather give up than wait for an other end that does not read, and return False.
        """
        data = msgspec.msgpack.encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with self._lock:
                self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT))
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return False
        return True

    def receive(self, timeout_s: float | None = None) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors (the caller closes them), None if none came in time.

        Raises:
            EOFError: If the other end is closed: its process has ended.
        """
        if timeout_s is not None:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(1000 * timeout_s):
                return None
        try:
            data, fds = self._receive()
        except ConnectionResetError:
            # It ended with something of ours unread. What it had sent is still there: this comes first, but once.
            data, fds = self._receive()
        if not data:
            raise EOFError
        return self._decoder.decode(data), fds

    def _receive(self) -> tuple[bytes, list[int]]:
        # Not by socket.recv_fds, which of Python 3.11 forgets its flags.
        fds = array.array("i")
        room = socket.CMSG_LEN(_MAX_FDS * fds.itemsize)
        data, rights, flags, _ = self._socket.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
        for _, _, numbers in rights:
            fds.frombytes(numbers[: len(numbers) - len(numbers) % fds.itemsize])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for fd in fds:
                os.close(fd)
            raise OSError(errno.EMSGSIZE, "a message came in part: it is too long, or no descriptor is free")
        return data, list(fds)

    def close(self) -> None:
        """Close this end; idempotent."""
        self._socket.close()
