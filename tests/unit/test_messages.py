"""Messages through a ring of slots, and how often Python's threads take turns while one is waited for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.ipc.wake import Wake

PROMPT_S = 50e-6
DEFAULT_S = 0.005


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(DEFAULT_S)
    yield
    sys.setswitchinterval(before_s)


class Waiter:
    """A thread that waits for a message."""

    def __init__(self) -> None:
        self.ring, self.wake = core.SlotRing(4, 64), Wake()
        self.found: list[tuple[bytes, int] | None] = []
        self.thread = threading.Thread(target=self._main)
        self.thread.start()

    def _main(self) -> None:
        self.found.append(core.next_message(self.ring, self.wake.fileno(), 10.0, False))

    def end(self) -> tuple[bytes, int] | None:
        assert core.put_message(self.ring, self.wake.fileno(), b"end", False)
        self.thread.join()
        return self.found[0]


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def is_prompt() -> bool:
    return sys.getswitchinterval() == pytest.approx(PROMPT_S)


@given(messages=st.lists(st.binary(max_size=64), max_size=9), newest=st.booleans())
def test_messages_come_out_as_they_went_in_and_of_too_many_the_newest(messages: list[bytes], newest: bool) -> None:
    ring, wake = core.SlotRing(4, 64), Wake()
    for message in messages:
        assert core.put_message(ring, wake.fileno(), message, True)
    left = messages[-4:]
    assert ring.dropped == len(messages) - len(left)
    found = []
    while (told := core.next_message(ring, wake.fileno(), 0.0, newest)) is not None:
        found.append(told)
    expected = [(left[-1], len(left) - 1)] if newest and left else [(each, 0) for each in left]
    assert found == ([] if not left else expected)
    assert ring.free == 4


def test_a_full_ring_takes_nothing_more_where_nothing_may_be_lost() -> None:
    ring, wake = core.SlotRing(2, 8), Wake()
    assert [core.put_message(ring, wake.fileno(), b"m", False) for _ in range(3)] == [True, True, False]
    assert ring.dropped == 0
    with pytest.raises(ValueError, match="fit"):
        core.put_message(ring, wake.fileno(), bytes(9), True)


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, (1 << 40).to_bytes(8, "little"), bytes(7)])
def test_a_length_that_cannot_be_is_one_that_fits(header: bytes) -> None:
    ring, wake = core.SlotRing(2, 8), Wake()
    ring.publish(ring.acquire(), header)
    message, _ = core.next_message(ring, wake.fileno(), 0.0, False) or (None, 0)
    assert message is not None
    assert len(message) in (0, 8)


def test_a_message_that_comes_during_the_wait_ends_it() -> None:
    waiter = Waiter()
    until(is_prompt)
    assert waiter.end() == (b"end", 0)


def test_a_wake_without_a_message_ends_the_wait_as_a_timeout_does() -> None:
    ring, wake = core.SlotRing(2, 8), Wake()
    assert core.next_message(ring, wake.fileno(), 0.01, False) is None
    wake.set()
    assert core.next_message(ring, wake.fileno(), None, False) is None


def test_the_default_interval_is_back_after_the_last_of_several_waits() -> None:
    first, second = Waiter(), Waiter()
    until(is_prompt)
    first.end()
    assert is_prompt()
    second.end()
    assert sys.getswitchinterval() == DEFAULT_S


def test_it_is_back_also_after_a_signal() -> None:
    def raised(*_: object) -> None:
        raise KeyboardInterrupt

    ring, wake = core.SlotRing(2, 8), Wake()
    before = signal.signal(signal.SIGUSR1, raised)
    later = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        later.start()
        with pytest.raises(KeyboardInterrupt):
            core.next_message(ring, wake.fileno(), 10.0, False)
    finally:
        later.join()
        signal.signal(signal.SIGUSR1, before)
    assert sys.getswitchinterval() == DEFAULT_S


@pytest.mark.parametrize("own_s", [0.001, 0.02])
def test_what_a_program_has_set_itself_stays(own_s: float) -> None:
    sys.setswitchinterval(own_s)
    waiter = Waiter()
    time.sleep(0.02)
    assert sys.getswitchinterval() == own_s
    waiter.end()
    assert sys.getswitchinterval() == own_s


def test_what_a_program_sets_during_a_wait_stays() -> None:
    waiter = Waiter()
    until(is_prompt)
    sys.setswitchinterval(0.002)
    waiter.end()
    assert sys.getswitchinterval() == 0.002
