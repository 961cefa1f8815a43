"""What every sink is, what may be written to one, and what one may know of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from mmedge.types import TaskResult


class Sink(Protocol):
    """Takes results one by one, in order, in a thread of its own.

    What ``write`` raises is a lost result: it is counted, and the next one is tried. A sink may have more:

    - ``begin(run)`` is called once, before the first result, with the run (``Run``).
    - ``report()`` returns ``{"state": ..., "reason": ..., "counters": {...}}``, which is put into ``health()``.
    - ``wants_pictures = True``: where the runtime is in this process, results keep their pictures until it has them.
    - ``essential = True``: what ``write`` raises ends the run, as when the reader of standard output has left.
    """

    def write(self, result: Any, /) -> None:
        """Take one ``Result``; or, where ``on=event`` was asked for, one ``Event``."""

    def close(self) -> None:
        """Flush and close; idempotent."""


class Run(Protocol):
    """What a sink may ask of its run: the ``Pipeline``."""

    @property
    def bundle(self) -> Any:
        """The ``Bundle``."""

    @property
    def statistics(self) -> Any:
        """Counts and latencies so far."""

    def health(self) -> Mapping[str, Mapping[str, Any]]:
        """State, reason and counters of each input, and of what else reports."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A task's label has changed.

    Attributes:
        task: Its name.
        label: What it says now; None when it abstains or is undefined. Of a detection, its best box's.
        score: Of that label.
        labels: Of a detection, the labels of all its boxes, sorted: it is these that have changed.
        before: What it said before; None at the first, too.
        before_ms: For how long it had said that; None at the first.
        t_ns: When it changed: the capture time, on CLOCK_MONOTONIC.
        unix_ns: The same instant on the wall clock.
    """

    schema: str = "mmedge.event/1"
    task: str
    label: str | None
    score: float | None
    labels: tuple[str, ...] = ()
    before: str | None
    before_ms: float | None
    t_ns: int
    unix_ns: int

    @property
    def tasks(self) -> dict[str, TaskResult]:
        """The one task, as in a result: a sink that reads ``tasks`` need not tell events from results."""
        return {self.task: TaskResult(label=self.label, score=self.score)}

    def to_json(self) -> bytes:
        """Return the event line: one JSON object, no line break."""
        return msgspec.json.encode(self)
