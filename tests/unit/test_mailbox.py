"""Mailboxes: bounded, counted, never a hang."""

from __future__ import annotations

import threading

import pytest

from mmedge.errors import SourceError
from mmedge.ipc.mailbox import Mailbox


def test_the_oldest_is_dropped_and_counted() -> None:
    dropped: list[int] = []
    box: Mailbox[int] = Mailbox(2, on_drop=dropped.append)
    for k in range(5):
        assert box.put(k)
    assert (box.take_all(0), dropped, box.dropped) == ([3, 4], [0, 1, 2], 3)


def test_lossless_waits_for_the_reader() -> None:
    box: Mailbox[int] = Mailbox(1, lossless=True)
    got: list[int | None] = []
    writer = threading.Thread(target=lambda: ([box.put(k) for k in range(100)], box.close()))
    writer.start()
    while (item := box.get()) is not None:
        got.append(item)
    writer.join(60)
    assert got == list(range(100))
    assert box.dropped == 0


def test_closing_wakes_a_waiting_writer_and_hands_over_the_error() -> None:
    box: Mailbox[int] = Mailbox(1, lossless=True)
    box.put(1)
    taken: list[bool] = []
    writer = threading.Thread(target=lambda: taken.append(box.put(2)))
    writer.start()
    box.close(SourceError("the camera died"))
    writer.join(60)
    assert taken == [False]
    assert box.get() == 1
    with pytest.raises(SourceError, match="died"):
        box.get()


def test_take_all_times_out() -> None:
    assert Mailbox[int](1).take_all(0.01) == []


def test_what_may_not_be_dropped_stays() -> None:
    box: Mailbox[int] = Mailbox(2, droppable=lambda item: item < 0)
    for item in (1, -1, 2, 3, -2, 4):
        box.put(item)
    assert box.take_all(0) == [1, 2, 3, 4]
    assert box.dropped == 2
