"""Processes, control line and packets across the border."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmedge.errors import ConfigError, DeviceError, InternalError, SourceError
from mmedge.ipc.channel import EVENTS, MAX_TEXT, PacketReader, PacketWriter
from mmedge.ipc.control import Control, Log, Message, Ready, Ring, Stop
from mmedge.ipc.frames import FramePool
from mmedge.ipc.process import Child, error_from
from mmedge.ipc.wake import Wake
from mmedge.types import Block, EndOfStream, Frame, Packet, Tensor, Text


@contextmanager
def child(entry: str, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Iterator[Child]:
    started = Child(f"tests.entries:{entry}", payload, name=entry, fds=fds)
    try:
        yield started
    finally:
        started.close()


def hear(started: Child, kind: type[Message]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        received = started.receive(1.0)
        if received is not None and isinstance(received[0], kind):
            return received
    raise AssertionError(f"{kind.__name__} did not come")


def end(started: Child) -> None:
    with suppress(EOFError):
        while True:
            started.receive(20.0)


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_child_answers_logs_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with child("wait", b"xyz") as started, caplog.at_level(logging.INFO):
        hear(started, Ready)
        started.stop(10.0)
        assert started.reason() == "its process ended with exit code 0"
        assert gone(started.pid)
    assert "got 3 bytes" in caplog.text


def test_errors_cross_the_border() -> None:
    with child("refuse") as started:
        end(started)
        assert isinstance(started.error, DeviceError)
        assert (started.error.message, started.error.where, started.error.fix) == (
            "no such thing",
            "here",
            "look there",
        )
    with child("bug") as started:
        end(started)
        assert isinstance(started.error, InternalError)
        assert "ZeroDivisionError: one over nothing" in started.reason()


def test_a_crash_is_reported_with_its_last_words() -> None:
    with child("crash") as started:
        end(started)
        assert "SIGABRT" in started.reason()
        assert "last words" in started.reason()


def test_who_holds_the_interpreter_is_killed() -> None:
    with child("hold_the_interpreter") as started:
        hear(started, Ready)
        before = time.monotonic()
        started.stop(0.3)
        assert time.monotonic() - before < 5
        assert "SIGKILL" in started.reason()


@pytest.mark.parametrize("entry", ["wait", "hold_the_interpreter"])
def test_a_killed_parent_leaves_no_orphan(entry: str) -> None:
    code = (
        "import os, sys; from mmedge.ipc.process import Child; from mmedge.ipc.control import Ready\n"
        f"c = Child('tests.entries:{entry}', b'', name='x')\n"
        "while not c.receive(1.0): pass\n"
        "print(c.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid, 0.2)
    parent.kill()
    parent.communicate()
    assert gone(pid)


def test_an_interrupt_is_left_to_the_parent() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, signal.SIGINT)
        assert not gone(started.pid, 0.3)


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(Child, "tests.entries:wait", b"", name="x").result()
    try:
        hear(started, Ready)
        assert not gone(started.pid, 0.3)
    finally:
        started.close()


def test_control_carries_whole_messages_and_descriptors() -> None:
    here, there = Control.pair()
    wake = Wake()
    assert here.send(Ring(7, "slots"), [wake.fileno()])
    assert here.send(Stop())
    received = there.receive(1.0)
    assert received is not None
    assert received[0] == Ring(7, "slots")
    Wake(received[1][0]).set()
    assert wake.wait(1.0)
    assert not wake.wait(0.0)
    assert there.receive(1.0) == (Stop(), [])
    assert there.receive(0.0) is None
    here.close()
    with pytest.raises(EOFError):
        there.receive(1.0)
    assert not there.send(Stop())
    there.close()


def test_what_was_said_before_the_end_is_heard_although_something_was_left_unread() -> None:
    here, there = Control.pair()
    here.send(Stop())  # nobody reads it: closing resets the connection
    there.send(Ready())
    there.close()
    assert here.receive(1.0) == (Ready(), [])
    with pytest.raises(EOFError):
        here.receive(1.0)
    here.close()


def test_nobody_waits_for_one_who_does_not_read() -> None:
    here, there = Control.pair()
    before = time.monotonic()
    sent = sum(here.send(Log(20, "x", "y" * 1000), wait=False) for _ in range(5000))
    assert 0 < sent < 5000
    assert time.monotonic() - before < 5
    here.close()
    there.close()


def test_an_error_of_any_length_arrives() -> None:
    with child("talk_at_length") as started:
        end(started)
        assert isinstance(started.error, DeviceError)
        assert started.error.message.startswith("xxx")


def test_a_program_left_behind_does_not_hide_the_end() -> None:
    with child("leave_a_program_behind") as started:
        hear(started, Ready)
        os.kill(started.pid, signal.SIGKILL)
        before = time.monotonic()
        end(started)
        assert time.monotonic() - before < 2


def test_a_signal_without_a_name_is_a_reason() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, 40)
        end(started)
        assert "signal 40" in started.reason()


def test_a_request_to_end_is_left_to_the_parent() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, signal.SIGTERM)
        assert not gone(started.pid, 0.3)


def test_children_live_on_when_the_main_thread_has_ended() -> None:
    code = (
        "import sys, threading, time; from mmedge.ipc.process import Child; from mmedge.ipc.control import Ready\n"
        "def work():\n"
        "    c = Child('tests.entries:wait', b'', name='x')\n"
        "    while not c.receive(1.0): pass\n"
        "    time.sleep(0.5)\n"
        "    print(c._process.poll()); c.stop(5); c.close()\n"
        "threading.Thread(target=work).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "None\n", done.stderr


def test_a_child_finds_the_modules_of_its_parent_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text("def run(link):\n    link.ready()\n")
    (tmp_path / "task.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "random.py").write_text("raise SystemExit('not the library')\n")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.insert(0, 'mine')\n"
        "from mmedge.ipc.process import Child\n"
        "c = Child('task:run', b'', name='x')\n"
        "try:\n    while True: print(type((c.receive(5.0) or [None])[0]).__name__)\n"
        "except EOFError: print(c.reason())\n"
        "c.close()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["Ready", "Done"], done.stdout + done.stderr


def test_unknown_errors_keep_their_message() -> None:
    assert type(error_from({"error": "exit", "message": "m"})).__name__ == "MmedgeError"
    assert isinstance(error_from({"error": "ConfigError", "message": "m"}), ConfigError)


# --- packets ---------------------------------------------------------------------------------------------------

STAMP = {"stream": "s", "seq": 3, "capture_ns": 10, "arrive_ns": 11, "epoch": 2, "uncertainty_ns": 5, "quality": "C"}


class Border:
    """A writer and a reader as in two processes, in one."""

    def __init__(self) -> None:
        self.here, self.there = Control.pair()
        self.wake = Wake()
        self.writer = PacketWriter(self.here, self.wake)
        self.reader = PacketReader("test")

    def __enter__(self) -> Border:
        return self

    def __exit__(self, *_: object) -> None:
        self.here.close()
        self.there.close()

    def take(self) -> list[Packet]:
        while (received := self.there.receive(0)) is not None:
            message, fds = received
            assert isinstance(message, Ring)
            self.reader.add(message, fds[0])
            for fd in fds:
                os.close(fd)
        return self.reader.take()


@pytest.fixture
def border() -> Iterator[Border]:
    with Border() as both:
        yield both


def plain(packet: Packet) -> Any:
    fields = {name: getattr(packet, name) for cls in type(packet).__mro__[:-1] for name in cls.__slots__}
    fields.pop("release", None)
    return {k: (v.tobytes(), v.shape, v.dtype.str) if isinstance(v, np.ndarray) else v for k, v in fields.items()}


PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(lambda text: Text(text=text, **STAMP), st.text(max_size=50)),
    st.builds(lambda reason: EndOfStream(reason=reason, **STAMP), st.none() | st.text(max_size=20)),
    st.builds(
        lambda samples, lost: Block(samples=samples, lost=lost, **STAMP),
        arrays(np.float32, st.integers(0, 300), elements=st.floats(-1, 1, width=32)),
        st.integers(0, 1000),
    ),
    st.builds(
        lambda data: Tensor(data=data, **STAMP),
        arrays(st.sampled_from([np.float32, np.int16, np.uint8]), st.tuples(st.integers(1, 3), st.integers(1, 4))),
    ),
    st.builds(
        lambda data, full: Frame(
            data=data, format="gray8", width=data.shape[1], height=data.shape[0], full_range=full, **STAMP
        ),
        arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))),
        st.booleans(),
    ),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(PACKETS, max_size=12))
def test_packets_come_out_as_they_went_in(packets: list[Packet]) -> None:
    packets = [replace(packet, arrive_ns=11 + k) for k, packet in enumerate(packets)]
    with Border() as border:
        for packet in packets:
            assert border.writer.put(packet)
        out = border.take()
        assert border.wake.wait(0) == bool(packets)
    assert [(type(packet), plain(packet)) for packet in out] == [(type(packet), plain(packet)) for packet in packets]


def frame(pool: FramePool, seq: int) -> Frame | None:
    lent = pool.acquire()
    if lent is None:
        return None
    slot, release = lent
    slot[...] = seq
    stamp = {**STAMP, "seq": seq, "arrive_ns": seq}
    return Frame(data=slot, format="gray8", width=4, height=2, release=release, **stamp)  # type: ignore[arg-type]


def test_a_frame_is_not_copied_and_its_slot_comes_back(border: Border) -> None:
    pool = FramePool((2, 4), slots=2)
    first = frame(pool, 1)
    assert first is not None
    border.writer.put(first)
    (got,) = border.take()
    assert isinstance(got, Frame)
    first.data[0, 0] = 99
    assert got.data[0, 0] == 99
    assert pool.free == 1
    assert first.release is not None
    first.release()  # handed over: no longer the writer's to give back
    assert pool.free == 1
    assert got.release is not None
    got.release()
    got.release()
    assert pool.free == 2


def test_the_newest_frames_win_and_the_others_are_counted(border: Border) -> None:
    pool = FramePool((2, 4), slots=3)
    for seq in range(10):
        packet = frame(pool, seq)
        assert packet is not None
        border.writer.put(packet)
    assert [packet.seq for packet in border.take()] == [7, 8, 9]
    assert border.reader.dropped == {"s": 7}
    assert frame(pool, 10) is None  # all three are being read


def test_a_camera_that_changes_its_size_is_read_to_the_end(border: Border) -> None:
    sizes = [2 + k % 12 for k in range(36)]
    for size in sizes:
        data = np.full((size, size), size, np.uint8)
        border.writer.put(Frame(data=data, format="gray8", width=size, height=size, **STAMP))  # type: ignore[arg-type]
    got = [packet for packet in border.take() if isinstance(packet, Frame)]
    assert [packet.width for packet in got] == sizes
    for packet in got:
        assert packet.release is not None
        packet.release()
    for _ in range(40):
        border.take()
    assert len(border.reader._slots) == 2  # events, and the newest size


def test_sound_that_finds_no_room_stays_a_timed_gap(border: Border) -> None:
    block = Block(samples=np.ones(10, np.float32), **STAMP)  # type: ignore[arg-type]
    sent = sum(border.writer.put(block) for _ in range(EVENTS + 5))
    assert sent == EVENTS
    assert len(border.take()) == EVENTS
    assert border.writer.put(block)
    (late,) = border.take()
    assert isinstance(late, Block)
    assert late.lost == 50
    assert border.writer.dropped["s"] == 5


def test_sound_that_was_overwritten_before_it_was_read_is_lost_and_its_time_stays(border: Border) -> None:
    for _ in range(4):
        border.writer.put(Block(samples=np.ones(100_000, np.float32), **STAMP))  # type: ignore[arg-type]
    blocks = [packet for packet in border.take() if isinstance(packet, Block)]
    assert sum(len(block.samples) + block.lost for block in blocks) == 400_000
    assert sum(block.lost for block in blocks) == 400_000 - (1 << 18)


def test_text_that_is_too_long_is_counted(border: Border) -> None:
    assert border.writer.put(Text(text="x" * MAX_TEXT, **STAMP))  # type: ignore[arg-type]
    assert not border.writer.put(Text(text="x" * (MAX_TEXT + 1), **STAMP))  # type: ignore[arg-type]


def test_a_ring_that_says_nonsense_is_an_error(border: Border) -> None:
    border.take()
    ring = border.writer._events
    ring.publish(ring.acquire(), b"\x93nonsense")
    with pytest.raises(SourceError, match="damaged"):
        border.take()


def test_packets_cross_two_processes_and_back() -> None:
    to_child, to_us = Wake(), Wake()
    reader = PacketReader("echo")
    with child("echo", fds=(to_child.fileno(), to_us.fileno())) as started:
        writer = PacketWriter(started.control, to_child)
        sent = [
            Block(samples=np.full(80, k, np.float32), **{**STAMP, "seq": k})  # type: ignore[arg-type]
            for k in range(500)
        ]
        got: list[Packet] = []
        deadline = time.monotonic() + 20
        for block in sent:
            writer.put(block)
        while len(got) < len(sent) and time.monotonic() < deadline:
            received = started.receive(0.01)
            if received is not None and isinstance(received[0], Ring):
                reader.add(received[0], received[1][0])
            to_us.wait(0.01)
            got += reader.take()
        assert [plain(packet) for packet in got] == [plain(packet) for packet in sent]
