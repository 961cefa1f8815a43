"""A sink with a bounded queue and a thread of its own: it loses its own results alone, and never holds the run."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from mmedge.errors import MmedgeError
from mmedge.sinks.base import Event, Run, Sink
from mmedge.sinks.selection import Selection, Selector
from mmedge.types import Result

log = logging.getLogger("mmedge.sinks")
QUEUE = 256  # results that wait: eight seconds at 30 a second
PICTURES = 16  # of a sink that wants pictures, which do not wait for long, or are kept in memory
CLOSE_S = 3.0  # for a sink to write what waits and to close
STUCK_S = 5.0  # without any progress, after which a run that waits for its sinks waits no longer
_GATHER_S = 0.02  # in which results that come fast gather, where none is lost: threads meet once for many


class SinkQueue:
    """Stands before a sink.

    Args:
        sink: What takes the results.
        name: How it is called, for people.
        selection: What of the results it gets.
        latest: Whether a slow sink gets the latest result by default, instead of all that wait.
        lossless: Wait for a slow sink, as long as it goes on writing.
        note: Called with the age of a result when it is taken, and how long it took to write, both in ns; None for
            results whose age means nothing, as in a replay.

    Attributes:
        name: How it is called.
        wants_pictures: Whether the sink does.
        written: What was written.
        skipped: Results that a newer one made pointless before they were written.
        lost: What could not be written, or did not fit into the queue.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        selection: Selection | None = None,
        *,
        latest: bool = False,
        lossless: bool = False,
        note: Callable[[int, int], None] | None = None,
    ) -> None:
        chosen = selection or Selection()
        self.name = name
        self.written = self.skipped = self.lost = 0
        self._sink, self._select, self._note = sink, Selector(chosen), note
        self._lossless, self.wants_pictures = lossless, bool(getattr(sink, "wants_pictures", False))
        self._size = PICTURES if self.wants_pictures else QUEUE
        self._latest = chosen.results == "latest" or (
            chosen.results == "auto" and latest and not lossless and chosen.on == "result"
        )
        self._items: deque[tuple[Result | Event, Result]] = deque()
        self._change = threading.Condition()
        self._closing = self._abandoned = self._busy = self._resting = False
        self._awaited = 0  # by so many threads
        self._slow, self._until_s = False, 0.0
        self._moved_s = time.monotonic()  # when it took or wrote something
        self._failure: str | None = None  # why it cannot write now
        self._fatal: BaseException | None = None
        self._close_error: MmedgeError | None = None
        self._thread = threading.Thread(target=self._main, name=f"mmedge-sink-{name[:24]}", daemon=True)

    def begin(self, run: Run) -> None:
        """Let the sink know its run; what it raises ends the start."""
        if callable(begin := getattr(self._sink, "begin", None)):
            begin(run)

    def write(self, result: Result) -> None:
        """Take a result; returns at once, unless it waits for a slow sink because nothing may be lost.

        Raises:
            BaseException: What the sink raised, if it is essential.
        """
        if self._fatal is not None:
            raise self._fatal
        for item in self._select(result):
            self._put(item, result)

    def _put(self, item: Result | Event, result: Result) -> None:
        with self._change:
            if self._thread.ident is None:
                self._thread.start()
            while (
                self._lossless and len(self._items) >= self._size and not (self._closing or self._fatal or self._stuck)
            ):
                self._wait(0.1)
            if self._closing:
                self.lost += 1
                return
            if self._latest and self._items:
                self._items.clear()
                self.skipped += 1
            elif len(self._items) >= self._size:
                self._items.popleft()
                self._lose("it is too slow", slow=True)
            if not self._items and not self._busy:
                self._moved_s = time.monotonic()
            self._items.append((item, result))
            if self._resting or len(self._items) == self._size:
                self._change.notify_all()

    def _wait(self, longest_s: float) -> None:
        """Wait for the sink's thread, which need not look for more to gather meanwhile; the lock is held."""
        self._awaited += 1
        self._change.notify_all()
        self._change.wait(longest_s)
        self._awaited -= 1

    @property
    def _stuck(self) -> bool:
        return time.monotonic() - self._moved_s > STUCK_S

    def _lose(self, reason: str, *, slow: bool = False) -> None:
        self.lost += 1
        if self._failure is None:
            log.warning("sink '%s' loses results: %s", self.name, reason)
        self._failure, self._slow = reason, slow

    def _main(self) -> None:
        while (taken := self._next()) is not None:
            item, result = taken
            began_ns = time.monotonic_ns()
            age_ns = 0
            if self._note is not None:
                age_ns = result.age_ns(began_ns)
                item = item.received(age_ns) if isinstance(item, Result) else item
            try:
                self._sink.write(item)
            except (Exception, SystemExit) as error:  # whatever it is, the run goes on
                self._failed(error)
            else:
                self._wrote()
                if self._note is not None:
                    self._note(age_ns, time.monotonic_ns() - began_ns)
        try:
            self._sink.close()
        except MmedgeError as error:
            self._close_error = error
        except Exception as error:
            told = f"the sink cannot be closed: {type(error).__name__}: {error}"
            self._close_error = MmedgeError(told, where=f"sink '{self.name}'", fix="correct its close()")

    def _next(self) -> tuple[Result | Event, Result] | None:
        with self._change:
            self._busy = False
            if self._awaited:
                self._change.notify_all()
            elif self._lossless and not self._items and not self._closing:
                self._change.wait(_GATHER_S)
            self._resting = True
            while not self._items and not self._closing:
                self._change.wait()
            self._resting = False
            self._moved_s = time.monotonic()
            if not self._items or self._abandoned or self._fatal is not None:
                return None
            self._busy = True
            return self._items.popleft()

    def _failed(self, error: BaseException) -> None:
        with self._change:
            if self._abandoned:  # it was counted as lost
                return
            if getattr(self._sink, "essential", False):
                self._fatal = error
                self.lost += 1
                return
            self._lose(error.message if isinstance(error, MmedgeError) else f"{type(error).__name__}: {error}")

    def _wrote(self) -> None:
        with self._change:
            if self._abandoned:
                return
            self.written += 1
            if self._failure is not None and not (self._slow and len(self._items) >= self._size // 2):
                log.warning("sink '%s' writes again; %d results were lost", self.name, self.lost)
                self._failure = None

    def settle(self, within_s: float = CLOSE_S) -> None:
        """Wait until everything is written, as long as it goes on writing, or ``within_s``."""
        until_s = time.monotonic() + within_s
        with self._change:
            while (self._items or self._busy) and self._fatal is None:
                left_s = (self._moved_s + STUCK_S if self._lossless else until_s) - time.monotonic()
                if left_s <= 0:
                    return
                self._wait(min(left_s, 0.1))
        if self._fatal is not None:
            raise self._fatal

    def end(self) -> None:
        """Take no more, write what waits, and close the sink; returns at once. Idempotent."""
        with self._change:
            if not self._closing:
                self._closing, self._until_s = True, time.monotonic() + CLOSE_S
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    def close(self) -> None:
        """Write what waits, and close the sink; what cannot be written soon is lost, and counted. Idempotent.

        Raises:
            MmedgeError: What closing the sink raised.
        """
        self.end()
        if self._abandoned:
            return
        self._thread.join(max(self._until_s - time.monotonic(), 0))
        while self._lossless and self._thread.is_alive() and not self._stuck:
            self._thread.join(0.1)
        with self._change:
            self._abandoned = True
            rest = len(self._items) + (self._busy and self._thread.is_alive())
            self._items.clear()
            if rest and self._fatal is None:
                self._lose("it did not end in time")
                self.lost += rest - 1
        if self._close_error is not None:
            raise self._close_error

    def report(self) -> dict[str, object]:
        """Return its state (OK, LATE: it is too slow, MISSING: it cannot write), the reason, and counters."""
        counters = {"written": self.written, "skipped": self.skipped, "lost": self.lost}
        own = getattr(self._sink, "report", None)
        told = cast("dict[str, Any]", own()) if callable(own) else {}
        state = "OK" if self._failure is None else "LATE" if self._slow else "MISSING"
        if state == "OK":
            state = told.get("state", state)
        return told | {
            "state": state,
            "reason": self._failure or told.get("reason"),
            "counters": counters | told.get("counters", {}),
        }
