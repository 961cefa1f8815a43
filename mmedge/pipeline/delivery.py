"""From the runtime to sinks and reader: a thread that takes every result, so that neither waits for the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from mmedge.address import Address
from mmedge.bundle import Bundle
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.spec import FEW, RESULTS
from mmedge.pipeline.statistics import Histogram, Statistics
from mmedge.sinks import Run, Sink, SinkQueue, open_sink
from mmedge.sinks.queue import CLOSE_S
from mmedge.types import Result

if TYPE_CHECKING:
    from mmedge.pipeline.remote import RemoteRuntime
    from mmedge.pipeline.runtime import Runtime

_JOIN_S = 5.0  # for a thread whose runtime has ended


class Sinks:
    """The sinks of one run, each behind its queue.

    Args:
        sinks: What names them, or objects.
        bundle: What runs.
        statistics: Where the sinks' times are counted.
        latest: Whether a slow sink gets the latest result by default.
        lossless: Wait for slow sinks.

    Raises:
        ConfigError: If there is no such sink, or it cannot be opened; none stays open.
    """

    def __init__(
        self,
        sinks: Sequence[str | Address | Sink],
        bundle: Bundle,
        statistics: Statistics,
        *,
        latest: bool,
        lossless: bool,
    ) -> None:
        self._step, self._counting = statistics.steps["sink"], threading.Lock()
        self._received: list[Histogram] = []
        self.queues: list[SinkQueue] = []
        try:
            for sink in sinks:
                self._received.append(Histogram())
                note = partial(self._note, self._received[-1])
                tasks = list(bundle.manifest.tasks)
                self.queues.append(open_sink(sink, tasks=tasks, latest=latest, lossless=lossless, note=note))
        except BaseException:
            self.close()
            raise

    def _note(self, received: Histogram, age_ns: int, took_ns: int) -> None:
        received.add(age_ns)
        with self._counting:
            self._step.add(took_ns)

    @property
    def want_pictures(self) -> bool:
        """Whether one of them wants pictures."""
        return any(queue.wants_pictures for queue in self.queues)

    def begin(self, run: Run) -> None:
        """Let all of them begin."""
        for queue in self.queues:
            queue.begin(run)

    def write(self, result: Result) -> None:
        """Give a result to all of them."""
        for queue in self.queues:
            queue.write(result)

    def settle(self) -> None:
        """Wait, within bounds, until everything is written."""
        until_s = time.monotonic() + CLOSE_S  # for all of them together
        for queue in self.queues:
            queue.settle(max(until_s - time.monotonic(), 0))

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what each reports, by its name; those of one name are numbered."""
        reports: dict[str, dict[str, Any]] = {}
        for queue, received in zip(self.queues, self._received, strict=True):
            same = sum(other.split("#")[0] == queue.name for other in reports)
            report = queue.report()
            if received.n:
                report["received_ms"] = received.summary().to_dict()
            reports[f"{queue.name}#{same + 1}" if same else queue.name] = report
        return reports

    def close(self) -> None:
        """Close all of them at once, whichever fails."""
        for queue in self.queues:
            queue.end()
        with ExitStack() as stack:
            for queue in self.queues:
                stack.callback(queue.close)


class Delivery:
    """Takes every result from a runtime, for the sinks and for the reader.

    Args:
        runtime: Where results come from.
        sinks: Where they go.
        latest: Whether a slow reader gets the latest result.
        lossless: Wait for the reader.
    """

    def __init__(self, runtime: Runtime | RemoteRuntime, sinks: Sinks, *, latest: bool, lossless: bool) -> None:
        self._runtime, self._sinks = runtime, sinks
        waiting = FEW if lossless else 1 if latest else RESULTS
        self._mailbox: Mailbox[Result] = Mailbox(waiting, lossless=lossless, on_drop=self._unread)
        self._thread = threading.Thread(target=self._main, name="mmedge-results", daemon=True)

    def start(self) -> None:
        """Begin to take results."""
        self._thread.start()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            while (result := self._runtime.get()) is not None:
                self._sinks.write(result)
                if not self._mailbox.put(result):
                    self._unread(result)
        except BaseException as problem:  # whatever it is must reach who waits for results
            error = problem
        finally:
            self._mailbox.close(error)

    def _unread(self, result: Result) -> None:
        self._runtime.statistics.unread += 1

    def get(self, deadline_s: float | None = None) -> Result | None:
        """Return the next result; None at the end of the run, when the sinks have written it all.

        Raises:
            TimeoutError: If nothing came until ``deadline_s`` on ``time.monotonic``.
            BaseException: What ended the run, or what an essential sink raised.
        """
        result = self._mailbox.get(deadline_s)
        if result is None:
            self._sinks.settle()
        return result

    def close(self) -> None:
        """Hand over what is there, and end; the runtime has been stopped."""
        self._mailbox.close()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
