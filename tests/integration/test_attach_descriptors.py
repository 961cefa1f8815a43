"""What programs that attach to a pipeline hold of it, and what is left of them."""

from __future__ import annotations

import mmap
import os
import socket
import time
from pathlib import Path

import pytest

from mmedge._native import core
from mmedge.clients import wire
from mmedge.clients.wire import Kind, Message
from tests.attaching import asks_to_push, following, hello, push, pushed
from tests.processes import family, until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def held(process: int) -> tuple[int, int]:
    """Return how many descriptors a process has, and how often it maps shared memory of ours."""
    descriptors = list(Path(f"/proc/{process}/fd").iterdir())
    return len(descriptors), Path(f"/proc/{process}/maps").read_text().count("memfd:mmedge")


def test_nothing_is_left_of_who_has_left(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe:
        process = family(pipe)[0]
        push(pipe, 1)
        assert following(pipe)
        before = held(process)
        for _ in range(40):
            with hello(door) as line:
                Message(Kind.HELLO).send(line)
                results = socket.recv_fds(line, 600, 2)[1]
                way = asks_to_push(line, 1 << 20)
                ring = core.SlotRing.attach(way[0])
                ring.publish(ring.acquire(), wire.PUSHED.pack(time.monotonic_ns(), 99, 2, 64, 8, 8, *[0] * 6))
                os.eventfd_write(way[1], 1)
                assert wire._MESSAGE.unpack(line.recv(600))[2] == Kind.REFUSED
                for fd in results + way:
                    os.close(fd)
        assert until(lambda: held(process) == before, 60)


def test_a_program_gets_pictures_to_read_and_not_to_write(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, hello(door) as line:
        Message(Kind.HELLO).send(line)
        for fd in socket.recv_fds(line, 600, 2)[1]:
            os.close(fd)
        Message(Kind.OPEN, bytes=1, name="nobody").send(line)
        assert wire._MESSAGE.unpack(line.recv(600))[2] == Kind.REFUSED  # it is one of those who get results by now
        push(pipe, 7)
        assert following(pipe)
        data, (ring,), _, _ = socket.recv_fds(line, 600, 2)
        assert wire._MESSAGE.unpack(data)[2] == Kind.RING
        with pytest.raises(PermissionError):
            mmap.mmap(ring, 0)
        with mmap.mmap(ring, 0, prot=mmap.PROT_READ) as memory:
            assert bytes([7]) * 64 in memory[:]
        os.close(ring)
