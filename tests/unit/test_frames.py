"""The pool of image slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.ipc.frames import FramePool


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_no_slot_is_lent_twice(takes: list[bool], slots: int) -> None:
    pool = FramePool((2, 3), slots=slots)
    lent: list[tuple[int, Callable[[], None]]] = []
    for take in takes:
        if take:
            loan = pool.acquire()
            assert (loan is None) == (len(lent) == slots)
            if loan is not None:
                slot, release = loan
                assert slot.shape == (2, 3)
                address = slot.__array_interface__["data"][0]
                assert address not in [other for other, _ in lent]
                lent.append((address, release))
        elif lent:
            _, release = lent.pop(0)
            release()
            release()  # a second call changes nothing
        assert pool.free == slots - len(lent)


def test_an_old_release_does_not_free_the_next_loan() -> None:
    pool = FramePool((1,), slots=1)
    _, first = pool.acquire() or pytest.fail("no slot")
    first()
    loan = pool.acquire()
    first()
    assert loan is not None
    assert pool.free == 0


def test_waiting_ends_with_a_release_from_another_thread() -> None:
    pool = FramePool((1,), slots=1)
    _, release = pool.acquire() or pytest.fail("no slot")
    assert pool.acquire(timeout_s=0.01) is None
    threading.Timer(0.05, release).start()
    began = time.monotonic()
    assert pool.acquire(timeout_s=200) is not None
    assert time.monotonic() - began < 100


@pytest.mark.parametrize(("shape", "slots"), [((0, 2), 1), ((2,), 0)])
def test_empty_pools_are_refused(shape: tuple[int, ...], slots: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        FramePool(shape, slots=slots)
