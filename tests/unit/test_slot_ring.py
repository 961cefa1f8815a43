"""The slot ring against a model, across processes, and the shared sample ring."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmedge._native import core

FREE, WRITING, READY, READING = "free", "writing", "ready", "reading"


class SlotModel(RuleBasedStateMachine):
    """Each slot is (state, sequence number, what it holds); the ring is used through two mappings."""

    @initialize(slots=st.integers(1, 5), slot_bytes=st.integers(1, 200))
    def create(self, slots: int, slot_bytes: int) -> None:
        self.writer = core.SlotRing(slots, slot_bytes)
        self.reader = core.SlotRing.attach(self.writer.fd)
        self.slots = [(FREE, 0, b"")] * slots
        self.published = self.dropped = 0

    def lowest(self, state: str) -> int:
        found = [(seq, index) for index, (now, seq, _) in enumerate(self.slots) if now == state]
        return min(found)[1] if found else -1

    @rule(steal=st.booleans())
    def acquire(self, steal: bool) -> None:
        index = self.lowest(FREE)
        if index < 0 and steal:
            index = self.lowest(READY)
            self.dropped += index >= 0
        assert self.writer.acquire(steal=steal) == index
        if index >= 0:
            self.slots[index] = (WRITING, 0, b"")

    @rule(data=st.data(), header=st.binary(max_size=40))
    def publish(self, data: st.DataObject, header: bytes) -> None:
        index = data.draw(st.integers(0, len(self.slots) - 1))
        if self.slots[index][0] != WRITING:
            with pytest.raises(ValueError, match="not being written"):
                self.writer.publish(index, header)
            return
        self.published += 1
        self.writer.data(index)[:] = self.published % 251
        assert self.writer.publish(index, header) == self.published
        self.slots[index] = (READY, self.published, header)

    @rule()
    def take(self) -> None:
        index = self.lowest(READY)
        taken = self.reader.take()
        if index < 0:
            assert taken is None
            return
        _, seq, header = self.slots[index]
        assert taken == (index, seq, header)
        assert (self.reader.data(index) == seq % 251).all()
        self.slots[index] = (READING, seq, header)

    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.slots) - 1))
        seq = data.draw(st.integers(0, self.published + 1))
        state, held, header = self.slots[index]
        assert self.reader.claim(index, seq) == (state == READY and held == seq)
        if state == READY and held == seq:
            self.slots[index] = (READING, seq, header)

    @rule(data=st.data(), times=st.integers(1, 2))
    def release(self, data: st.DataObject, times: int) -> None:
        index = data.draw(st.integers(0, len(self.slots) - 1))
        for _ in range(times):
            self.reader.release(index)
        state, seq, header = self.slots[index]
        if state in (WRITING, READING):
            self.slots[index] = (FREE, seq, header)

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.slots) - 1))
        seq = data.draw(st.integers(0, self.published + 1))
        out = np.empty(data.draw(st.integers(0, self.reader.slot_bytes)), np.uint8)
        state, held, _ = self.slots[index]
        assert self.reader.copy(index, seq, out) == (seq > 0 and held == seq and state != WRITING)
        if held == seq > 0:
            assert (out == seq % 251).all()

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "slots"):
            return
        states = [state for state, _, _ in self.slots]
        for ring in (self.writer, self.reader):
            assert (ring.free, ring.ready, ring.dropped) == (states.count(FREE), states.count(READY), self.dropped)


SlotModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSlots = SlotModel.TestCase


def test_views_keep_the_memory() -> None:
    ring = core.SlotRing(2, 5000)
    view = ring.data(1)
    assert view.shape == (5000,)
    assert view.dtype == np.uint8
    other = core.SlotRing.attach(ring.fd)
    fd = ring.fd
    del ring
    gc.collect()
    view[:] = 7
    assert (other.data(1) == 7).all()
    assert (other.data(0) == 0).all()
    del view
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert (other.data(1) == 7).all()


def test_another_process_writes_and_dies() -> None:
    slots, sound = core.SlotRing(3, 1000), core.SampleRing.shared(100)
    code = (
        "import sys, os, signal, numpy as np\n"
        "from mmedge._native import core\n"
        "slots, sound = core.SlotRing.attach(int(sys.argv[1])), core.SampleRing.attach(int(sys.argv[2]))\n"
        "for n in range(1, 6):\n"
        "    index = slots.acquire(steal=True)\n"
        "    slots.data(index)[:] = n\n"
        "    assert slots.publish(index, b'frame %d' % n) == n\n"
        "slots.acquire(steal=True)\n"
        "sound.write(np.arange(150, dtype=np.float32))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(slots.fd), str(sound.fd)]
    run = subprocess.run(command, pass_fds=(slots.fd, sound.fd), capture_output=True, text=True)
    assert run.returncode == -9, run.stderr
    assert (slots.dropped, slots.ready, slots.free) == (3, 2, 0)
    for n in (4, 5):
        taken = slots.take()
        assert taken is not None
        index, seq, header = taken
        assert (seq, header) == (n, b"frame %d" % n)
        assert (slots.data(index) == n).all()
        slots.release(index)
    assert slots.take() is None
    assert slots.free == 2
    for index in range(3):
        slots.release(index)
    assert slots.free == 3
    out = np.empty(120, np.float32)
    assert sound.read(sound.end, out) == 100
    assert out.tolist() == [0.0] * 20 + list(range(50, 150))


def test_copy_beside_a_writer_in_another_thread() -> None:
    ring = core.SlotRing(2, 100_000)
    newest = (0, 0)
    done = threading.Event()

    def write() -> None:
        nonlocal newest
        for n in range(1, 3001):
            index = ring.acquire(steal=True)
            ring.data(index)[:] = n % 251
            newest = (index, ring.publish(index, b""))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    out = np.empty(100_000, np.uint8)
    while not done.is_set():
        index, seq = newest
        if ring.copy(index, seq, out):
            assert (out == seq % 251).all()
    writer.join()
    assert ring.copy(*newest, out)


def test_header_limits() -> None:
    ring = core.SlotRing(1, 1)
    assert ring.acquire() == 0
    with pytest.raises(ValueError, match="1024 bytes"):
        ring.publish(0, bytes(1025))
    header = bytes(range(256)) * 4
    assert ring.publish(0, header) == 1
    assert ring.take() == (0, 1, header)


def test_hostile_arguments() -> None:
    for slots, slot_bytes in ((0, 1), (-1, 1), (65537, 1), (1, 0), (1, -1), (1, 2**40 + 1)):
        with pytest.raises(ValueError, match="must be 1 to"):
            core.SlotRing(slots, slot_bytes)
    with pytest.raises(OSError, match="cannot map"):
        core.SlotRing(65536, 2**40)
    ring = core.SlotRing(2, 8)
    for index in (-1, 2, 2**63 - 1):
        for call in (
            ring.data,
            ring.release,
            lambda i: ring.publish(i, b""),
            lambda i: ring.copy(i, 1, np.empty(8, "u1")),
        ):
            with pytest.raises(IndexError, match="no such slot"):
                call(index)
    with pytest.raises(ValueError, match="fewer bytes"):
        ring.copy(0, 1, np.empty(9, np.uint8))
    for bad in (np.empty(4, np.int8), np.empty(8, np.uint8)[::2]):
        with pytest.raises(ValueError, match="out must"):
            ring.copy(0, 1, bad)  # type: ignore[arg-type]
    frozen = np.zeros(8, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        ring.copy(0, 1, frozen)
    with pytest.raises(TypeError):
        ring.publish(0, "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("attach", [core.SlotRing.attach, core.SampleRing.attach])
def test_hostile_descriptors(attach: object) -> None:
    assert callable(attach)
    wrong = core.SampleRing.shared(100) if attach == core.SlotRing.attach else core.SlotRing(1, 8)
    with pytest.raises(ValueError, match="holds no"):
        attach(wrong.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        attach(-1)
    read, write = os.pipe()
    with pytest.raises(ValueError, match="sealed"):
        attach(read)
    os.close(read)
    os.close(write)


def test_private_sample_ring_has_no_descriptor() -> None:
    ring = core.SampleRing(8)
    assert ring.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.SampleRing.attach(ring.fd)


def test_shared_memory_cannot_shrink() -> None:
    for ring in (core.SlotRing(1, 4096), core.SampleRing.shared(4096)):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.fd, 0)


def test_sample_ring_across_two_mappings() -> None:
    writer = core.SampleRing.shared(1000)
    reader = core.SampleRing.attach(writer.fd)
    assert reader.capacity == 1000
    assert reader.fd not in (writer.fd, -1)
    assert writer.write(np.arange(1, 701, dtype=np.float32)) == 700
    assert reader.end == 700
    writer.write_silence(100)
    del writer
    gc.collect()
    out = np.empty(200, np.float32)
    assert reader.read(800, out) == 100
    assert out.tolist() == [*range(601, 701)] + [0.0] * 100


def test_rings_leave_no_descriptor() -> None:
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(20):
        ring, sound = core.SlotRing(2, 8), core.SampleRing.shared(100)
        others = core.SlotRing.attach(ring.fd), core.SampleRing.attach(sound.fd)
        with pytest.raises(ValueError, match="holds no"):
            core.SlotRing.attach(sound.fd)
        del ring, sound, others
    assert count() == before
