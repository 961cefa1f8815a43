"""The sample ring against a list, and with two threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmedge._native import core


class RingModel(RuleBasedStateMachine):
    """Everything ever written, None where silent; the ring keeps the newest ``capacity`` of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ring: core.SampleRing | None = None
        self.capacity = 0
        self.history: list[float | None] = []

    @precondition(lambda self: self.ring is None)
    @rule(capacity=st.integers(1, 20))
    def create(self, capacity: int) -> None:
        self.capacity, self.ring = capacity, core.SampleRing(capacity)

    @precondition(lambda self: self.ring is not None)
    @rule(n=st.integers(0, 50))
    def write(self, n: int) -> None:
        assert self.ring is not None
        samples = np.arange(1 + len(self.history), 1 + len(self.history) + n, dtype=np.float32)
        self.history.extend(samples.tolist())
        assert self.ring.write(samples) == len(self.history)

    @precondition(lambda self: self.ring is not None)
    @rule(n=st.integers(0, 50))
    def silence(self, n: int) -> None:
        assert self.ring is not None
        self.history.extend([None] * n)
        assert self.ring.write_silence(n) == len(self.history)

    @precondition(lambda self: self.ring is not None)
    @rule(back=st.integers(-10, 60), n=st.integers(0, 40))
    def read(self, back: int, n: int) -> None:
        assert self.ring is not None
        end, newest = len(self.history) - back, len(self.history)
        want = [self.history[i] if max(0, newest - self.capacity) <= i < newest else None for i in range(end - n, end)]
        out = np.full(n, np.nan, np.float32)
        assert self.ring.read(end, out) == sum(value is not None for value in want)
        assert out.tolist() == [0.0 if value is None else value for value in want]

    @invariant()
    def bounds(self) -> None:
        if self.ring is not None:
            assert self.ring.end == len(self.history)
            assert self.ring.begin == max(0, len(self.history) - self.capacity)


RingModel.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestRing = RingModel.TestCase


def test_two_threads() -> None:
    ring = core.SampleRing(1000)
    failures: list[str] = []

    def write() -> None:
        for turn in range(3000):
            start = ring.end
            if turn % 50 == 49:
                ring.write_silence(7)
            else:
                ring.write(np.arange(start + 1, start + 161, dtype=np.float32))

    writer = threading.Thread(target=write)
    writer.start()
    out = np.empty(900, np.float32)
    while writer.is_alive():
        end = ring.end
        real = ring.read(end, out)
        index = np.arange(end - 900 + 1, end + 1, dtype=np.float32)
        if not ((out == 0) | (out == index)).all() or np.count_nonzero(out) != real:
            failures.append(f"torn read at {end}")
            break
    writer.join()
    assert not failures
    assert ring.end == 3000 // 50 * (49 * 160 + 7)


@pytest.mark.parametrize("capacity", [0, -1])
def test_hostile_capacity(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        core.SampleRing(capacity)


def test_hostile_arguments() -> None:
    ring = core.SampleRing(8)
    for bad in (np.zeros((2, 2), np.float32), np.zeros(4), np.zeros(8, np.float32)[::2], np.zeros(4, np.int16)):
        with pytest.raises(ValueError, match="samples must"):
            ring.write(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="out must"):
            ring.read(0, bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        ring.write_silence(-1)
    with pytest.raises(ValueError, match="smallest"):
        ring.read(-(2**63) + 1, np.empty(2, np.float32))
    with pytest.raises(TypeError):
        ring.read(2**63, np.empty(2, np.float32))
    frozen = np.zeros(2, np.float32)
    frozen.flags.writeable = False
    assert ring.write(frozen) == 2
    with pytest.raises(TypeError):
        ring.read(2, frozen)
