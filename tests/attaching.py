"""What tests of programs that attach to a pipeline share."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

import mmedge
from mmedge.clients import wire
from mmedge.clients.wire import Kind, Message
from mmedge.types import Result

Isolation = Literal["thread", "process"]


@contextmanager
def pushed(bundle: Path, door: Path, isolation: Isolation = "process", **options: Any) -> Iterator[mmedge.Pipeline]:
    with mmedge.Pipeline(bundle, {"image": "push://"}, attach=door, isolation=isolation, **options) as pipe:
        yield pipe


def push(into: Any, value: int) -> int:
    now = time.monotonic_ns()
    into.push("image", np.full((8, 8), value, np.uint8), now)
    return now


def following(pipe: Any) -> Result:
    """Return the next result, of a pipeline or of one that a program is attached to."""
    return next(iter(pipe.results(time.monotonic() + 60)))


def programs(pipe: mmedge.Pipeline, counter: str = "programs") -> int:
    return int(pipe.health()["@attach"]["counters"][counter])  # type: ignore[index]


def hello(door: Path) -> socket.socket:
    """Return a line of a program that speaks for itself."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(str(door))  # it waits for its turn, which it would not with a timeout
    line.settimeout(60)
    return line


def asks_to_push(line: socket.socket, size: int) -> list[int]:
    """Return the ring and the eventfd that a program may push by."""
    Message(Kind.OPEN, bytes=size, name="image").send(line)
    while True:
        data, fds, _, _ = socket.recv_fds(line, 600, 2)
        if wire._MESSAGE.unpack(data)[2] == Kind.OPENED:
            return fds
        for fd in fds:  # a ring of pictures
            os.close(fd)
