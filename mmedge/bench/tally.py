"""The counts of a benchmark: every due trigger has a latency, also one that was shed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from mmedge.pipeline import Histogram
from mmedge.types import Result

_SAME_NS = 1_000


class Tally:
    """Latencies of answers.

    Attributes:
        latencies: ``end_to_end``, ``overhead`` and each step.
        skew: Of the answers.
        uncertainty: Of the answers.
        answered: How many there are.
    """

    def __init__(self) -> None:
        self.latencies: dict[str, Histogram] = {"end_to_end": Histogram()}
        self.skew, self.uncertainty = Histogram(), Histogram()
        self.answered = 0

    def add(self, result: Result) -> None:
        """Count an answer."""
        self._add(result, "end_to_end")

    def _add(self, result: Result, own: str) -> None:
        self.answered += 1
        for name, value in result.latency_ms.items():
            key = own if name == "end_to_end" else name
            self.latencies.setdefault(key, Histogram()).add(round(value * 1e6))
        self.skew.add(round(result.skew_ms * 1e6))
        self.uncertainty.add(round(result.uncertainty_ms * 1e6))


class OpenLoop(Tally):
    """Latencies of the triggers that were due within the measured time.

    A system that lets triggers go would look fast if only those that it answered counted. So ``end_to_end`` is of each
    due trigger, which lasts until there is an answer as new as it: its own, or that of a later one. Of those that were
    answered themselves ``answered`` counts.

    Args:
        from_ns: The measured time begins here, on CLOCK_MONOTONIC...
        until_ns: ... and ends here.
        due_ns: When each trigger is due, in order, without end; None: of hops, whose grid the first answer shows.
        period_ns: From one to the next.

    Attributes:
        due: Triggers that were due within the measured time; ``answered`` of them had an answer of their own.
    """

    def __init__(self, from_ns: int, until_ns: int, due_ns: Iterator[int] | None, period_ns: float) -> None:
        super().__init__()
        self.latencies["answered"] = Histogram()
        self.due = 0
        self._from_ns, self._until_ns = from_ns, until_ns
        self._hops = due_ns is None
        self._due_ns, self._period_ns = due_ns, period_ns
        self._next_ns = None if due_ns is None else next(due_ns)
        self._waiting: deque[int] = deque()

    def add(self, result: Result) -> None:
        """Count an answer, and all triggers that it is the answer to."""
        done_ns = result.t_ns + round(result.latency_ms["end_to_end"] * 1e6)
        if self._due_ns is None:
            self._due_ns = self._grid(result.t_ns)
            self._next_ns = next(self._due_ns)
        slack_ns = round(self._period_ns / 2) if self._hops else _SAME_NS
        last_ns = self._wait_until(result.t_ns + slack_ns)
        if last_ns is None or result.t_ns - last_ns > slack_ns:
            return  # a hop in place of a picture that was thought missing: no answer to any that was due
        if self._from_ns <= last_ns < self._until_ns:
            self._add(result, "answered")
        self._over(done_ns)

    def close(self, now_ns: int) -> None:
        """Count those that nothing answered: they last until now at least."""
        self._wait_until(min(now_ns, self._until_ns - 1))
        self._over(now_ns)

    def _grid(self, first_ns: int) -> Iterator[int]:
        # From the begin of what is measured on, however late the first answer is.
        number = min(0, math.floor((self._from_ns - first_ns) / self._period_ns))
        while True:
            yield first_ns + round(number * self._period_ns)
            number += 1

    def _wait_until(self, t_ns: int) -> int | None:
        """Let all that are due until then wait; return the last of them."""
        while self._due_ns is not None and self._next_ns is not None and self._next_ns <= t_ns:
            self._waiting.append(self._next_ns)
            self._next_ns = next(self._due_ns)
        return self._waiting[-1] if self._waiting else None

    def _over(self, done_ns: int) -> None:
        while self._waiting:
            due_ns = self._waiting.popleft()
            if self._from_ns <= due_ns < self._until_ns:
                self.due += 1
                self.latencies["end_to_end"].add(max(0, done_ns - due_ns))
