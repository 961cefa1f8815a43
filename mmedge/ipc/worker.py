"""What runs in a child process. The death of the process that asked for it is its own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib import import_module

from mmedge._native import core
from mmedge.address import scrub
from mmedge.errors import InternalError, MmedgeError, internal, trace
from mmedge.ipc import spawned
from mmedge.ipc.control import Answer, Ask, Control, Done, Failed, Log, Message, Ready, Ring, Start, State, Stop
from mmedge.plain import printable

_MAX_TEXT = 16_000  # characters of a traceback


class Link:
    """What an entry gets: the line to its parent.

    Attributes:
        payload: What the parent sent along.
        fds: Descriptors the parent sent along.
        stopping: Set when the parent asks for the end.
    """

    def __init__(self, control: Control, start: Start, fds: list[int]) -> None:
        self.control = control
        self.payload = start.payload
        self.fds = fds
        self.stopping = threading.Event()
        self._rings: list[tuple[Ring, int]] = []
        self._on_ring: Callable[[Ring, int], None] | None = None
        self._on_ask: Callable[[bytes], Future[bytes]] | None = None
        self._lock = threading.Lock()

    def ready(self) -> None:
        """Say that everything is open."""
        self.control.send(Ready())

    def report(self, body: bytes) -> None:
        """Send a sign of life."""
        self.control.send(State(body), wait=False)  # a parent that is stopped must not stop this process

    def on_ring(self, take: Callable[[Ring, int], None]) -> None:
        """Have ``take`` called with each ring the parent sends (and has sent); it leaves the descriptor alone."""
        with self._lock:
            self._on_ring = take
            while self._rings:
                self._hand_over(*self._rings.pop(0))

    def on_ask(self, do: Callable[[bytes], Future[bytes]]) -> None:
        """Have ``do`` called with what the parent asks for, before ``ready``; it returns at once."""
        self._on_ask = do

    def _hand_over(self, ring: Ring, fd: int) -> None:
        assert self._on_ring is not None
        self._on_ring(ring, fd)
        os.close(fd)

    def listen(self) -> None:
        """Follow the parent's messages; its death ends this process at once, whatever it is doing."""
        try:
            while True:
                received = self.control.receive()
                assert received is not None
                self._take(*received)
        except EOFError:
            os._exit(0)

    def _take(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, Stop):
            self.stopping.set()
        elif isinstance(message, Ask) and self._on_ask is not None:
            self._on_ask(message.body).add_done_callback(partial(self._answer, message.number))
        elif isinstance(message, Ring):
            with self._lock:
                if self._on_ring is None:
                    self._rings.append((message, fds[0]))
                else:
                    self._hand_over(message, fds[0])

    def _answer(self, number: int, done: Future[bytes]) -> None:
        error = done.exception()
        if error is None:
            self.control.send(Answer(number, done.result()))
        else:
            told = error if isinstance(error, MmedgeError) else internal(error)
            self.control.send(Answer(number, error=_document(told)))


class _ToParent(logging.Handler):
    """Hands log records over: the parent's logging decides what becomes of them."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
            self._control.send(Log(record.levelno, record.name, printable(scrub(text)[:_MAX_TEXT])), wait=False)
        except Exception:
            self.handleError(record)


def leave_signals() -> None:
    """Leave signals to a whole group to the user's process, which ends the others in order.

    By handlers, not by a mask: programs that are started from here inherit masks.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def _document(error: MmedgeError) -> dict[str, object]:
    return {key: v[:_MAX_TEXT] if isinstance(v, str) else v for key, v in error.to_dict().items()}


def _failed(error: MmedgeError, *, logged: bool) -> Failed:
    return Failed(_document(error), trace(error.__cause__) if isinstance(error, InternalError) else "", logged)


def serve(control: int, line: int, parent: int) -> None:
    """Run what the parent orders, and end this process.

    Args:
        control: Descriptor of the line to the parent.
        line: That of the line to the spawner, for children of its own.
        parent: The parent's pidfd.
    """
    core.end_with(parent)  # the kernel kills this process then, also while a driver holds the interpreter
    leave_signals()
    end = Control(socket.socket(fileno=control))
    spawned.adopt(line)
    received = end.receive()
    if received is None or not isinstance(received[0], Start):
        raise RuntimeError("the first message must be Start")
    start, fds = received
    assert isinstance(start, Start)
    os.chdir(start.cwd)
    sys.path[:] = map(os.fsdecode, start.path)
    logging.basicConfig(handlers=[_ToParent(end)], level=logging.INFO, force=True)
    link = Link(end, start, fds)
    threading.Thread(target=link.listen, name="mmedge-control", daemon=True).start()
    module, _, function = start.entry.partition(":")
    try:
        getattr(import_module(module), function)(link)
    except MmedgeError as error:
        end.send(_failed(error, logged=True))
    except Exception as error:
        end.send(_failed(internal(error, where=start.entry), logged=False))
    else:
        end.send(Done())
    # Not through the interpreter's own end: a thread left behind in a driver must not hold it up.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    inherited = [int(number) for number in sys.argv[1:4]]
    for descriptor in inherited:  # or a program that is started from here would keep it open after this process
        os.set_inheritable(descriptor, False)
    serve(*inherited)
