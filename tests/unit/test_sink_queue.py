"""A sink behind its queue: slow, failing and hung ones lose their own results, counted, and hold nobody."""

from __future__ import annotations

import threading
import time

import pytest

from mmedge.errors import MmedgeError
from mmedge.sinks.queue import CLOSE_S, QUEUE, SinkQueue
from mmedge.sinks.selection import Selection
from mmedge.types import Result
from tests.processes import until
from tests.results import made

pytestmark = pytest.mark.parallel


class Kept:
    """Takes a while for each result, fails when it is told to, hangs until it is let go."""

    def __init__(self, *, s: float = 0.0) -> None:
        self.s = s
        self.results: list[Result] = []
        self.fails: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.closed = 0

    def write(self, result: Result) -> None:
        self.open.wait()
        time.sleep(self.s)
        if self.fails is not None:
            raise self.fails
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1


def counted(queue: SinkQueue) -> tuple[int, int, int]:
    return queue.written, queue.skipped, queue.lost


def test_all_come_in_order() -> None:
    sink = Kept()
    queue = SinkQueue(sink, "kept")
    sent = [made(n, x="a") for n in range(100)]
    for result in sent:
        queue.write(result)
    queue.settle()
    assert sink.results == sent
    queue.close()
    queue.close()
    assert (counted(queue), sink.closed) == ((100, 0, 0), 1)
    queue.write(sent[0])
    assert queue.lost == 1


def test_a_slow_sink_gets_the_latest() -> None:
    sink, ages, began = Kept(s=0.05), [], time.monotonic()
    queue = SinkQueue(sink, "slow", latest=True, note=lambda age_ns, took_ns: ages.append((age_ns, took_ns)))
    for n in range(100):
        queue.write(made(n, x="a"))
        time.sleep(0.005)
    queue.close()
    written, skipped, lost = counted(queue)
    assert written + skipped == 100
    assert lost == 0
    assert 2 <= written <= (time.monotonic() - began) / 0.05 + 1
    assert sink.results[-1].t_ns == made(99).t_ns
    # Each was the newest when it was taken: of a 5 ms step, and this machine's own delays.
    assert sorted(age_ns for age_ns, _ in ages)[len(ages) // 2] < 100e6
    assert all(result.latency_ms["received"] >= 0 for result in sink.results)
    assert queue.report()["state"] == "OK"


def test_a_hung_sink_loses_the_oldest_and_its_end_is_bounded() -> None:
    sink = Kept()
    sink.open.clear()
    queue = SinkQueue(sink, "hung")
    began = time.monotonic()
    for n in range(QUEUE + 51):
        queue.write(made(n, x="a"))
    assert time.monotonic() - began < 60
    assert until(lambda: queue.lost in (50, 51), 60)  # its thread has one in hand, or not yet
    assert queue.report()["state"] == "LATE"
    began = time.monotonic()
    queue.close()
    assert time.monotonic() - began < CLOSE_S + 60
    assert queue.lost == QUEUE + 51
    assert "in time" in str(queue.report()["reason"])
    sink.open.set()


def test_a_failing_sink_recovers(caplog: pytest.LogCaptureFixture) -> None:
    sink = Kept()
    queue = SinkQueue(sink, "failing")
    sink.fails = OSError(28, "No space left on device")
    for n in range(10):
        queue.write(made(n, x="a"))
    queue.settle()
    report = queue.report()
    assert (report["state"], queue.lost) == ("MISSING", 10)
    assert "No space left" in str(report["reason"])
    sink.fails = None
    queue.write(made(11, x="a"))
    queue.settle()
    assert queue.report() == {"state": "OK", "reason": None, "counters": {"written": 1, "skipped": 0, "lost": 10}}
    queue.close()
    told = [record for record in caplog.records if "'failing'" in record.getMessage()]
    assert len(told) == 2  # once when it begins, once when it is over


def test_where_nothing_may_be_lost_the_run_waits_as_long_as_the_sink_goes_on() -> None:
    sink = Kept(s=0.002)
    queue = SinkQueue(sink, "slow", latest=True, lossless=True)
    for n in range(3 * QUEUE):
        queue.write(made(n, x="a"))
    queue.close()
    assert counted(queue) == (3 * QUEUE, 0, 0)


def test_and_not_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.sinks.queue.STUCK_S", 2.0)
    sink = Kept()
    sink.open.clear()
    queue = SinkQueue(sink, "hung", lossless=True)
    began = time.monotonic()
    for n in range(QUEUE + 20):
        queue.write(made(n, x="a"))
    assert time.monotonic() - began < 19 * 2.0  # it waits once
    assert queue.lost >= 19
    sink.open.set()
    queue.close()


def test_what_an_essential_sink_raises_ends_the_run() -> None:
    class Stdout(Kept):
        essential = True

    sink = Stdout()
    sink.fails = BrokenPipeError()
    queue = SinkQueue(sink, "stdout")
    queue.write(made(0, x="a"))
    with pytest.raises(BrokenPipeError):
        queue.settle()
    with pytest.raises(BrokenPipeError):
        queue.write(made(1, x="a"))
    queue.close()
    assert queue.lost == 1


def test_events_are_not_skipped() -> None:
    sink = Kept(s=0.005)
    queue = SinkQueue(sink, "events", Selection(on="event"), latest=True)
    for n in range(60):
        queue.write(made(n, x="ab"[n // 2 % 2]))
    queue.close()
    assert len(sink.results) == 30


def test_what_closing_raises_is_raised() -> None:
    class Bad(Kept):
        def close(self) -> None:
            raise ValueError("no")

    with pytest.raises(MmedgeError, match="cannot be closed: ValueError: no"):
        SinkQueue(Bad(), "bad").close()


def test_where_nothing_may_be_lost_results_gather_but_wait_for_no_other() -> None:
    sink = Kept()
    queue = SinkQueue(sink, "gathering", lossless=True)
    for n in range(3):
        queue.write(made(n, x="a"))
        assert until(lambda n=n: len(sink.results) == n + 1, 5.0)  # type: ignore[misc]
    for n in range(3, 2 * QUEUE):
        queue.write(made(n, x="a"))
    queue.settle()
    assert [result.t_ns for result in sink.results] == [made(n, x="a").t_ns for n in range(2 * QUEUE)]
    queue.close()
