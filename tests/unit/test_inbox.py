"""The inbox of the runtime: order and arrivals are kept, only old pictures are let go."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.ipc.flow import FRAMES
from mmedge.pipeline.inbox import INBOX, REST, Inbox
from mmedge.types import Arrival, Block, Frame


class Slot:
    def __init__(self):
        self.given_back = 0

    def __call__(self):
        self.given_back += 1

    def copy(self, data, out):
        return True


def frame(stream, n):
    data = np.zeros((2, 2), np.uint8)
    stamp = {"stream": stream, "seq": n, "capture_ns": n, "arrive_ns": n + 5}
    return Frame(**stamp, data=data, format="gray8", width=2, height=2, release=Slot())


def block(n):
    return Block(stream="audio", seq=n, capture_ns=n, arrive_ns=n, samples=np.zeros(1, np.float32))


@given(st.lists(st.sampled_from(["left", "right", "audio", "take"]), max_size=80))
def test_only_old_pictures_are_let_go_and_their_arrivals_stay_in_order(steps):
    inbox, waiting = Inbox(), []
    for n, step in enumerate(steps):
        if step != "take":
            packet = block(n) if step == "audio" else frame(step, n)
            assert inbox.put(packet)
            waiting.append(packet)
            continue
        taken = inbox.take_all()
        assert [(p.stream, p.seq, p.capture_ns, p.arrive_ns) for p in taken] == [
            (p.stream, p.seq, p.capture_ns, p.arrive_ns) for p in waiting
        ]
        for name in ("left", "right"):
            pictures = [(new, old) for new, old in zip(taken, waiting, strict=True) if old.stream == name]
            assert all(new is old for new, old in pictures[-FRAMES:])
            assert all(isinstance(new, Arrival) for new, _ in pictures[:-FRAMES])
            assert all(old.release.given_back == isinstance(new, Arrival) for new, old in pictures)
        assert all(new is old for new, old in zip(taken, waiting, strict=True) if old.stream == "audio")
        waiting.clear()


def test_of_very_much_sound_the_newest_is_kept_and_what_is_missing_is_said():
    inbox = Inbox()
    for n in range(REST + 5):
        inbox.put(block(n))
    taken = inbox.take_all()
    kept = [packet for packet in taken if isinstance(packet, Block)]
    assert [packet.seq for packet in taken] == list(range(REST + 5))
    assert [packet.seq for packet in kept] == list(range(5, REST + 5))
    assert [packet.lost for packet in kept] == [5] + [0] * (REST - 1)


def test_a_lossless_inbox_keeps_every_picture_and_makes_its_writer_wait():
    inbox = Inbox(lossless=True)
    for n in range(INBOX):
        inbox.put(frame("left", n))
    done = threading.Event()
    writer = threading.Thread(target=lambda: (inbox.put(frame("left", INBOX)), done.set()))
    writer.start()
    assert not done.wait(0.05)
    assert all(isinstance(p, Frame) for p in inbox.take_all())
    assert done.wait(60)
    writer.join()


def test_a_closed_inbox_gives_what_it_has_and_takes_no_more():
    inbox = Inbox()
    inbox.put(block(1))
    inbox.close()
    assert not inbox.put(block(2))
    assert [p.seq for p in inbox.take_all()] == [1]
    assert inbox.take_all() == []


def test_sound_and_the_rest_wake_apart_and_each_once():
    inbox = Inbox()
    for n in range(3):
        inbox.put(block(n))
    assert (inbox.wake.clear(), inbox.flow.clear()) == (False, True)
    inbox.put(block(3))
    assert not inbox.flow.wait(0), "who waits was told, and has not taken anything since"
    inbox.take_all()
    inbox.put(block(4))
    inbox.put(frame("left", 5))
    assert (inbox.wake.clear(), inbox.flow.clear()) == (True, True)
    inbox.close()
    assert inbox.wake.wait(0), "the end wakes whoever waits for anything"


def test_every_reader_that_was_held_up_is_waited_for_and_no_other(monkeypatch):
    clock = SimpleNamespace(now_ns=10**12, late=[], monotonic_ns=lambda: clock.now_ns)

    def sleep(seconds):
        clock.now_ns += round(seconds * 1e9)
        if clock.now_ns >= 10**12 + 170_000_000:
            while clock.late:
                inbox.put(clock.late.pop(0))

    clock.sleep = sleep
    monkeypatch.setattr("mmedge.pipeline.inbox.time", clock)
    inbox, steady = Inbox(), {"left": 33_000_000, "audio": 20_000_000, "right": 100_000_000}
    inbox.put(frame("left", 0))
    inbox.put(block(0))
    clock.now_ns += 120_000_000  # as a call that holds the interpreter: the readers' threads stand, too
    inbox.put(frame("right", 0))  # it was not held up
    inbox.put(block(1))  # nor is this one any more
    clock.late += [frame("left", n) for n in range(1, 4)]
    inbox.settle(steady)
    assert [packet.seq for packet in inbox.take_all() if packet.stream == "left"] == [0, 1, 2, 3]
    inbox.put(frame("left", 4))
    before_ns = clock.now_ns
    inbox.settle({"left": 1_000_000_000})
    assert clock.now_ns == before_ns
    clock.now_ns += 120_000_000
    before_ns = clock.now_ns
    inbox.settle({"left": 33_000_000})  # it has died: no run waits for long
    assert clock.now_ns - before_ns == pytest.approx(250_000_000, abs=50_000_000)
