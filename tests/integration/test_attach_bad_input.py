"""Programs that attach to a pipeline, and what may go wrong: strangers, garbage, ends, paths."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import mmedge
from mmedge.clients import socket_file, wire
from mmedge.clients.server import MOST
from mmedge.clients.wire import Kind, Message
from mmedge.errors import ConfigError, DeviceError
from mmedge.ipc.wake import Wake
from tests.attaching import Isolation, asks_to_push, following, hello, programs, push, pushed
from tests.processes import family, until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def said(line: socket.socket) -> Message | None:
    try:
        data, fds, _, _ = socket.recv_fds(line, 600, 2)
    except ConnectionResetError:
        return None
    for fd in fds:
        os.close(fd)
    if not data:
        return None
    _, _, kind, number, size, name, text = wire._MESSAGE.unpack(data)
    return Message(kind, number, size, name.rstrip(b"\0").decode(), text.rstrip(b"\0").decode())


def _struct(**changes: int) -> bytes:
    values = {"magic": wire.MAGIC, "version": wire.VERSION, "kind": Kind.HELLO, "number": 0, "bytes": 0} | changes
    return wire._MESSAGE.pack(*values.values(), b"\xff" * wire.NAME, b"\xff" * wire.TEXT)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a message"),
        (b"\0" * 600, "not a message"),
        (b"x" * 4000, "not a message"),
        (_struct(version=2), "version 2 of the protocol"),
        (_struct(kind=77), "kind 77 was not expected"),
        (_struct(kind=Kind.OPEN, bytes=64), "kind 2 was not expected"),  # before it has said who it is
        (_struct(kind=Kind.WELCOME), "kind 3 was not expected"),
    ],
)
def test_who_speaks_otherwise_is_told_why_and_shown_the_door(bundle: Path, door: Path, data: bytes, why: str) -> None:
    with pushed(bundle, door, "thread") as pipe, hello(door) as line:
        line.send(data)
        answer = said(line)
        assert answer is not None
        assert answer.kind == Kind.ENDED
        assert why in answer.text
        assert said(line) is None
        with mmedge.attach(door) as attached:
            push(pipe, 9)
            assert following(attached)


def test_a_way_to_push_holds_only_what_fits(bundle: Path, door: Path) -> None:
    from mmedge._native import core

    with pushed(bundle, door, "thread") as pipe, hello(door) as line:
        Message(Kind.HELLO).send(line)
        assert said(line).kind == Kind.WELCOME  # type: ignore[union-attr]
        for size in (0, wire.MAX_PUSH + 1, 1 << 63):
            Message(Kind.OPEN, bytes=size, name="image").send(line)
            assert said(line).kind == Kind.REFUSED  # type: ignore[union-attr]
        Message(Kind.OPEN, bytes=64, name="image").send(line)
        data, fds, _, _ = socket.recv_fds(line, 600, 2)
        assert wire._MESSAGE.unpack(data)[2] == Kind.OPENED
        ring, wake = core.SlotRing.attach(fds[0]), fds[1]
        now = time.monotonic_ns()
        lies = [
            b"",
            b"x" * 88,
            wire.PUSHED.pack(now, 1, 2, 64, 8, 9, *[0] * 6),
            wire.PUSHED.pack(now, 1, 2, 1 << 40, 1 << 20, 1 << 20, *[0] * 6),
            wire.PUSHED.pack(now, 1, 9, 64, 8, 8, *[0] * 6),
            wire.PUSHED.pack(now, 1, 2, 64, 1 << 63, 2, *[0] * 6),
            wire.PUSHED.pack(now, 55, 2, 64, 8, 8, *[0] * 6),
            wire.PUSHED.pack(now, wire.SAID, 0, 65, *[0] * 8),
            wire.PUSHED.pack(-5, 1, 2, 64, 8, 8, *[0] * 6),
            wire.PUSHED.pack(1 << 62, 1, 2, 64, 8, 8, *[0] * 6),
        ]
        for header in lies:
            index = ring.acquire()
            ring.data(index)[:] = 200
            ring.publish(index, header)
            os.eventfd_write(wake, 1)
            assert said(line).kind == Kind.REFUSED  # type: ignore[union-attr]
        assert programs(pipe, "refused") == len(lies)
        index = ring.acquire()
        ring.publish(index, wire.PUSHED.pack(time.monotonic_ns(), 1, 2, 64, 8, 8, *[0] * 6))
        os.eventfd_write(wake, 1)
        assert following(pipe).present["image"]
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("garbage", [b"\xff", b"\x00", b"\x55\x01\x7e"])
def test_who_writes_into_its_ring_of_results_harms_itself(bundle: Path, door: Path, garbage: bytes) -> None:
    with pushed(bundle, door, "thread") as pipe, mmedge.attach(door) as other, hello(door) as line:
        Message(Kind.HELLO).send(line)
        _, fds, _, _ = socket.recv_fds(line, 600, 2)
        with mmap.mmap(fds[0], 0) as memory:
            head = 1 << 17  # the words and headers of all slots, and some of the results
            for k in range(60):
                memory[64:head] = (garbage * head)[: head - 64]
                now = push(pipe, k)
                assert following(pipe).t_ns == following(other).t_ns == now
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_who_fills_its_eventfds_and_makes_them_wait_holds_nobody_up(
    bundle: Path, door: Path, isolation: Isolation
) -> None:
    with pushed(bundle, door, isolation) as pipe, mmedge.attach(door) as other, hello(door) as line:
        Message(Kind.HELLO).send(line)
        _, fds, _, _ = socket.recv_fds(line, 600, 2)
        for waits in (False, True):
            os.set_blocking(fds[1], waits)
            if not waits:
                os.eventfd_write(fds[1], (1 << 64) - 2)
            now = push(pipe, 1)
            assert following(pipe).t_ns == following(other).t_ns == now
        fds += asks_to_push(line, 64)
        os.set_blocking(fds[3], True)
        fds += asks_to_push(line, 640)  # the way before is emptied, and nobody has set its eventfd
        push(other, 2)
        assert following(pipe).present["image"]
        for fd in fds:
            os.close(fd)


def test_what_a_program_writes_where_its_losses_are_counted_is_not_believed(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, hello(door) as line, hello(door) as another:
        for each in (line, another):
            Message(Kind.HELLO).send(each)
            _, fds, _, _ = socket.recv_fds(each, 600, 2)
            with mmap.mmap(fds[0], 0) as memory:
                memory[128:136] = b"\xff" * 8
            for fd in fds:
                os.close(fd)
        push(pipe, 1)
        assert following(pipe)
        assert until(lambda: programs(pipe, "lost") == 2, 60)


def test_only_so_many_programs_attach(bundle: Path, door: Path) -> None:
    with pushed(bundle, door, "thread") as pipe:
        attached = [mmedge.attach(door) for _ in range(MOST)]
        with pytest.raises(DeviceError, match="16 programs are attached already"):
            mmedge.attach(door)
        attached.pop().close()
        assert until(lambda: programs(pipe) == MOST - 1, 60)
        with mmedge.attach(door):
            push(pipe, 3)
            assert all(following(each) for each in attached)


def test_who_does_not_say_who_it_is_makes_room(bundle: Path, door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.clients.server.HELLO_S", 0.0)
    with pushed(bundle, door, "thread") as pipe, ExitStack() as stack:
        silent = [stack.enter_context(hello(door)) for _ in range(MOST)]
        assert until(lambda: programs(pipe) == MOST, 60)
        with mmedge.attach(door) as attached:
            push(pipe, 3)
            assert following(attached)
        assert said(silent[0]).text.startswith("nothing was said")  # type: ignore[union-attr]


def test_the_end_of_a_run_is_told(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as attached:
        push(pipe, 1)
        following(pipe)
        pipe.close()
        assert len(list(attached)) == 1  # what was published before
        with pytest.raises(DeviceError, match="ended"):
            attached.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
    assert not door.exists()


def test_a_runtime_that_dies_is_told(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as attached:
        push(pipe, 1)
        following(pipe)
        os.kill(family(pipe)[0], signal.SIGKILL)
        with pytest.raises(DeviceError, match="died"):
            list(attached)
        assert door.exists()
    with pushed(bundle, door), mmedge.attach(door):  # a dead run's path is taken over
        with pytest.raises(ConfigError, match="another run listens"):
            mmedge.Pipeline(bundle, {"image": "push://"}, attach=door, isolation="thread").start()
        with mmedge.attach(door):  # which has harmed nothing
            pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda door: door.write_text("mine"), "not a socket is there"),
        (lambda door: door.mkdir(), "not a socket is there"),
        (lambda door: door.symlink_to("/dev/null"), "not a socket is there"),
    ],
)
def test_what_is_no_socket_is_left_alone(
    bundle: Path, door: Path, make: Callable[[Path], object], message: str
) -> None:
    make(door)
    before = door.lstat()
    with pytest.raises(ConfigError, match=message):
        mmedge.Pipeline(bundle, {"image": "push://"}, attach=door)
    assert door.lstat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere/door", "no such folder"), ("x" * 200, "107 bytes"), ("", "not a socket is there")],
)
def test_paths_that_cannot_be_are_refused(bundle: Path, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mmedge.Pipeline(bundle, {"image": "push://"}, attach=tmp_path / path)


def test_who_asks_while_another_thread_waits_to_push_holds_no_other_thread_up(door: Path) -> None:
    """The pipeline may be one of this very process: it could not answer what the push waits for."""
    from mmedge._native import core

    ring, wake, asked, answer = core.SlotRing(4, 64), Wake(), threading.Event(), threading.Event()

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            Message(Kind.WELCOME).send(line, [ring.fd, wake.fileno()])
            while (heard := wire.receive(line)) is not None:
                if heard.kind == Kind.OPEN:
                    asked.set()
                    assert answer.wait(60)
                    Message(Kind.REFUSED, name=heard.name, text="not this one").send(line)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ThreadPoolExecutor(2) as pool:
        listener.bind(str(door))
        listener.listen()
        served = pool.submit(serve)
        with mmedge.attach(door) as attached:
            pushed = pool.submit(push, attached, 1)
            assert asked.wait(60)
            threading.Timer(0.2, answer.set).start()
            assert attached.fileno() >= 0
            with pytest.raises(ConfigError, match="not this one"):
                pushed.result()
        served.result()


@pytest.mark.parametrize("path", ["", "x" * 108, "a\0b", "\udcff"])
def test_what_can_be_no_path_of_a_socket_is_told_to_who_attaches(path: str) -> None:
    with pytest.raises(ConfigError, match="1 to 107 bytes"):
        mmedge.attach(path)


@pytest.mark.parametrize("kind", ["nothing", "a file", "a stream"])
def test_where_no_pipeline_listens_one_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "door"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        if kind == "a file":
            path.write_text("")
        if kind == "a stream":
            other.bind(str(path))
            other.listen()
        with pytest.raises(DeviceError, match="no pipeline to attach to") as caught:
            mmedge.attach(path)
    assert caught.value.where == str(path)
    assert "--attach" in str(caught.value.fix)


def test_of_two_runs_that_begin_at_once_one_gets_the_path(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = socket_file._answers

    def late(path: str) -> bool:
        answer = answers(path)
        time.sleep(0.1)
        return answer

    monkeypatch.setattr(socket_file, "_answers", late)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(door))
    with ThreadPoolExecutor(2) as pool:
        began = [pool.submit(socket_file.SocketFile, str(door)) for _ in range(2)]
        errors = [each.exception() for each in began]
    assert sorted(error is None for error in errors) == [False, True]
    assert any(isinstance(error, ConfigError) and "another run listens" in error.message for error in errors)
    for each, error in zip(began, errors, strict=True):
        if error is None:
            each.result().close()
    assert not door.exists()


def test_a_socket_that_took_the_place_of_a_run_s_own_stays(bundle: Path, door: Path) -> None:
    with pushed(bundle, door, "thread") as first:
        door.unlink()
        with pushed(bundle, door, "thread") as second:
            first.close()
            with mmedge.attach(door) as attached:
                push(second, 1)
                assert following(attached)
        assert not door.exists()


def test_a_run_that_goes_elsewhere_removes_its_socket(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with pushed(bundle, Path("door"), "thread"):
        monkeypatch.chdir(tmp_path / "other")
    assert not (tmp_path / "door").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_program_does_not_attach_to_what_another_user_put_there() -> None:
    listens = "import os, socket, sys; os.setuid(65533); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
    listens += "s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen(); print(flush=True); sys.stdin.read()"
    attaches = "import os, sys; from mmedge.clients import attach; os.setuid(65534); attach(sys.argv[1])"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        door = f"{folder}/door"
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", listens, door], stdin=pipe, stdout=pipe) as other:
            assert other.stdout is not None
            assert other.stdout.readline()
            done = subprocess.run([sys.executable, "-c", attaches, door], capture_output=True, text=True)
            assert "is another user's" in done.stderr
            other.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_other_users_stay_out(bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, pushed(bundle, door := Path(folder) / "door", "thread"):
        assert door.stat().st_mode & 0o777 == 0o600
        door.chmod(0o666)
        line = "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        line += "os.setuid(65534); s.connect(sys.argv[1]); print(s.recv(600)[88:].split(b'\\0')[0].decode())"
        Path(folder).chmod(0o711)
        done = subprocess.run([sys.executable, "-c", line, str(door)], capture_output=True, text=True)
        assert "another user's" in done.stdout, done.stderr
