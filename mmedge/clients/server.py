"""The pipeline's side of programs that attach to it: they get its results, see its pictures, and push data of theirs.

Nobody waits for them: one that reads slowly loses its own oldest results, one that dies is forgotten.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from mmedge._native import core
from mmedge.clients.socket_file import SocketFile, may
from mmedge.clients.wire import DTYPES, MAX_PUSH, NAME, SAID, Kind, Message, Place, Pushed, receive, record
from mmedge.errors import ConfigError, MmedgeError, internal
from mmedge.ipc.frames import Loan
from mmedge.ipc.records import frame_header
from mmedge.ipc.wake import ShownWake, Wake
from mmedge.types import AnyArray, ByteArray, Description, Frame, Result

MOST = 16  # programs at once
REST_S = 0.002  # in which packets may be taken at once
HELLO_S = 5.0  # who has not said who it is by then makes room for others
WAITING = 64  # results that wait for one of them
_ROOM = 1 << 18  # bytes of one result, a slot
_SMALL, _MANY, _FEW = 1 << 16, 64, 4  # packets up to so many bytes wait in so many slots, larger ones in a few
log = logging.getLogger("mmedge.clients")


class Takes(Protocol):
    """What programs push goes there: ``pipeline.pushed.Pushes``."""

    @property
    def inputs(self) -> Collection[str]:
        """Names of the bundle's inputs."""

    def push(
        self, name: str, array: AnyArray, capture_ns: int, *, description: Description | None, started: bool
    ) -> None:
        """Take an array [...] of the input's dtype, as ``Pipeline.push`` does; ConfigError where it does not fit."""

    def text(self, text: str, name: str | None, *, capture_ns: int | None, started: bool) -> None:
        """Take a text as ``Pipeline.text`` does; raises ConfigError where it does not fit."""


@dataclass(eq=False)
class _Pushing:
    number: int
    name: str
    ring: Any
    wake: ShownWake


@dataclass(eq=False)
class _Client:
    line: socket.socket
    ring: Any
    wake: ShownWake
    greeted: bool = False
    given: int = 0  # results
    told: dict[str, int] = field(default_factory=dict)  # input -> the ring of its pictures that it has been given
    pushing: dict[str, _Pushing] = field(default_factory=dict)
    opened: int = 0
    since_s: float = field(default_factory=time.monotonic)

    @property
    def unread(self) -> int:
        """Results that it lost: of those it was given, whatever it has written where the ring counts them."""
        return min(int(self.ring.dropped), self.given)


class Server:
    """Lets programs attach to a run.

    Args:
        path: Where it listens; relative to the working folder.
        take: Takes what is pushed, in the server's thread.

    Raises:
        ConfigError: If it cannot listen there.
    """

    def __init__(self, path: str, take: Takes) -> None:
        for name in take.inputs:
            if len(name.encode()) >= NAME:
                what = f"an input's name has {len(name.encode())} bytes, a program that attaches knows {NAME - 1}"
                raise ConfigError(what, where=f"input '{name}'", fix="give it a shorter name, or leave out attach")
        self._path, self._take = path, take
        self._file = SocketFile(path)
        self._listener = self._file.listener
        self._clients: list[_Client] = []
        self._lock = threading.Lock()  # of the list, of what is said to clients, and of their rings
        self._rings: dict[str, tuple[int, Any]] = {}
        self._numbers = 0
        self._owed_s = self._rested_s = 0.0
        self._counters: Counter[str] = Counter(attached=0, lost=0, refused=0)
        self._stop = Wake()
        self._select = selectors.DefaultSelector()
        self._select.register(self._listener, selectors.EVENT_READ, self._accept)
        self._select.register(self._stop, selectors.EVENT_READ, lambda: None)
        self._closing = False
        self._thread = threading.Thread(target=self._main, name="mmedge-attach", daemon=True)
        self._thread.start()

    def report(self) -> dict[str, object]:
        """Return its entry of ``health``."""
        with self._lock:
            unread = sum(client.unread for client in self._clients)
            counters = {**self._counters, "lost": self._counters["lost"] + unread, "programs": len(self._clients)}
        return {"state": "OK", "reason": None, "counters": counters, "path": self._path}

    # In the thread of the run.

    @property
    def attached(self) -> bool:
        """Whether anybody is."""
        return bool(self._clients)

    def put(self, result: Result) -> None:
        """Give a result to all who are attached; never waits."""
        copies = result.origin.frames
        with self._lock:
            places = {n: place for n, copy in copies.items() if (place := self._place(copy)) is not None}
            data = np.frombuffer(record(result, places), np.uint8)
            clients = [client for client in self._clients if client.greeted]
            for client in clients:
                for name, place in places.items():
                    self._show(client, name, place.ring)
                try:
                    self._counters["lost"] += not self._give(client, data)
                except ValueError:  # it wrote where it must not: its thread hears that the line is cut
                    client.greeted = False
                    client.line.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _give(client: _Client, data: ByteArray) -> bool:
        """Publish a result, uint8 [n]; False where the program holds all slots, or it is too large for one."""
        index = client.ring.acquire(steal=True) if data.size <= _ROOM else -1
        if index < 0:
            return False
        client.ring.data(index)[: data.size] = data
        client.ring.publish(index, data.size.to_bytes(4, "little"))
        client.given += 1
        client.wake.set()
        return True

    def _place(self, copy: Any) -> Place | None:
        frame = getattr(copy, "__self__", None)
        slot = frame.release if isinstance(frame, Frame) else None
        if isinstance(slot, Loan):  # of a file, which is read in this process
            ring, seq = slot.pool.ring, slot.hold()
        elif isinstance(slot, core.RingSlot):
            ring, seq = slot.ring, slot.seq
        else:  # of somebody's array
            return None
        assert isinstance(frame, Frame)
        number, known = self._rings.get(frame.stream, (0, None))
        if known is not ring:
            self._numbers += 1
            number = self._numbers
            self._rings[frame.stream] = number, ring
        return Place(number, slot.index, seq, frame_header(frame)) if seq else None

    def _show(self, client: _Client, name: str, number: int) -> None:
        """Give a program the ring of pictures, unless it has it; if it does not listen, the picture is gone for it."""
        if client.told.get(name) != number:
            ring = next(ring for known, ring in self._rings.values() if known == number)
            with _readable(ring.fd) as fd:
                if Message(Kind.RING, number, ring.slot_bytes, name).send(client.line, [fd]):
                    client.told[name] = number

    # In its own thread.

    def _main(self) -> None:
        while not self._closing:
            self._serve()

    def _serve(self) -> None:
        """Wait, and do what is to be done; nothing of a program that left is kept while nothing happens."""
        for key, _ in self._select.select():
            try:
                key.data()
            except Exception:  # what a program does must not end the others' line
                log.exception("a program that is attached could not be served")

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:  # it has left already, or this process has no more descriptors
            return
        line.setblocking(False)
        if len(self._clients) >= MOST:
            for silent in [c for c in self._clients if not c.greeted and time.monotonic() - c.since_s > HELLO_S]:
                self._forget(silent, f"nothing was said within {HELLO_S:g} s")
        full = len(self._clients) >= MOST
        if full or not may(line):
            why = f"{MOST} programs are attached already" if full else "the run is another user's"
            Message(Kind.ENDED, text=why).send(line)
            line.close()
            return
        try:
            client = _Client(line, core.SlotRing(WAITING, _ROOM), ShownWake())
        except OSError as error:
            Message(Kind.ENDED, text=f"the pipeline cannot take one more: {error.strerror}").send(line)
            line.close()
            return
        with self._lock:
            self._clients.append(client)
        self._select.register(line, selectors.EVENT_READ, partial(self._hear, client))

    def _hear(self, client: _Client) -> None:
        try:
            message = receive(client.line)
            if message is None:
                self._forget(client)
                return
            self._obey(client, message)
        except BlockingIOError:
            return
        except ValueError as error:
            self._forget(client, str(error))
        except OSError:
            self._forget(client)

    def _obey(self, client: _Client, message: Message) -> None:
        if message.kind == Kind.HELLO and not client.greeted:
            with self._lock:
                if not Message(Kind.WELCOME).send(client.line, [client.ring.fd, client.wake.fileno()]):
                    raise ValueError("the program does not listen")
                client.greeted = True
                self._counters["attached"] += 1
        elif message.kind == Kind.OPEN and client.greeted:
            self._open(client, message.name, message.bytes)
        else:
            raise ValueError(f"a message of kind {message.kind} was not expected")

    def _open(self, client: _Client, name: str, size: int) -> None:
        if name not in self._take.inputs or not 0 < size <= MAX_PUSH:
            what = f"the bundle has no input '{name}'" if name not in self._take.inputs else f"a packet of {size} bytes"
            self._say(client, Message(Kind.REFUSED, 0, 0, name, what))
            return
        before = client.pushing.pop(name, None)
        if before is not None:
            self._take_from(client, before)
            self._select.unregister(before.wake)
        ring = core.SlotRing(_MANY if size <= _SMALL else _FEW, size)
        client.opened += 1
        pushing = client.pushing[name] = _Pushing(client.opened, name, ring, ShownWake())
        self._select.register(pushing.wake, selectors.EVENT_READ, partial(self._take_from, client, pushing))
        self._say(client, Message(Kind.OPENED, pushing.number, size, name), [ring.fd, pushing.wake.fileno()])

    def _take_from(self, client: _Client, pushing: _Pushing) -> None:
        began_s = time.monotonic()
        pushing.wake.clear()
        for _ in range(pushing.ring.slots):  # then the others have their turn: a picture takes milliseconds
            taken = pushing.ring.take()
            if taken is None:
                break
            index, _, header = taken
            try:
                self._take_one(pushing, index, header)
            except Exception as error:  # whatever was pushed, the program is told and the run goes on
                self._counters["refused"] += 1
                self._say(client, Message(Kind.REFUSED, pushing.number, 0, pushing.name, _why(error)))
            finally:
                pushing.ring.release(index)
        else:
            pushing.wake.set()
        self._rest(began_s)

    def _rest(self, began_s: float) -> None:
        """Leave the interpreter to the run for as long as packets had it: a flood of them must not hold up triggers."""
        now_s = time.monotonic()
        self._owed_s = max(0.0, self._owed_s - (began_s - self._rested_s)) + now_s - began_s
        if self._owed_s > REST_S:
            time.sleep(self._owed_s)
            self._owed_s, now_s = 0.0, time.monotonic()
        self._rested_s = now_s

    def _take_one(self, pushing: _Pushing, index: int, header: bytes) -> None:
        told = Pushed.read(header, pushing.ring.slot_bytes)
        data = pushing.ring.data(index)[: told.size]
        if told.dtype == SAID:
            self._take.text(data.tobytes().decode(), pushing.name, capture_ns=told.capture_ns, started=True)
        else:
            array = data.view(DTYPES[told.dtype]).reshape(told.shape)
            self._take.push(pushing.name, array, told.capture_ns, description=None, started=True)

    def _say(self, client: _Client, message: Message, fds: list[int] | None = None) -> None:
        with self._lock:
            message.send(client.line, fds or [])

    def _forget(self, client: _Client, why: str | None = None) -> None:
        if client not in self._clients:  # made room for another one just now
            return
        with self._lock:
            self._clients.remove(client)
            self._counters["lost"] += client.unread
            if why is not None:
                Message(Kind.ENDED, text=why).send(client.line)
        for pushing in client.pushing.values():
            self._select.unregister(pushing.wake)
        self._select.unregister(client.line)
        client.line.close()

    def close(self, error: MmedgeError | None = None) -> None:
        """Tell all who are attached that the run has ended, and why; idempotent."""
        if self._closing:
            return
        self._closing = True
        self._stop.set()
        self._thread.join()
        self._file.close()
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            Message(Kind.ENDED, text="" if error is None else error.message).send(client.line)
            client.line.close()
        self._select.close()


@contextmanager
def _readable(fd: int) -> Iterator[int]:
    """Lend a descriptor of the same memory that nobody maps to write to it: pictures are the pipeline's."""
    lent = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        yield lent
    finally:
        os.close(lent)


def _why(error: Exception) -> str:
    """Return the words for a program; not where it is caught, or what was caught would keep what it knows alive."""
    known = error if isinstance(error, MmedgeError) else internal(error)
    return str(error) if isinstance(error, ValueError) else known.message
