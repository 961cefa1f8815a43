"""Which results a sink gets: ``?on=result|change|event&tasks=a,b&min_score=0.5&results=latest|all``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from mmedge.sinks.base import Event
from mmedge.types import Result, TaskResult

_NOTHING: tuple[str, ...] = ()


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options that every sink takes.

    Attributes:
        on: ``result``: every result; ``change``: those in which a task says something else than before; ``event``: an
            ``Event`` for each task whose label has changed.
        tasks: Only these tasks; all without any.
        min_score: Answers with a lower score are passed over; a number that a task measures has none, and stays.
        results: What a sink gets that is slower than the run: the ``latest``, or ``all`` as far as its queue goes.
            ``auto`` is ``all`` for events and changes, else as the run.
    """

    on: Literal["result", "change", "event"] = "result"
    tasks: tuple[str, ...] = ()
    min_score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    results: Literal["auto", "latest", "all"] = "auto"


class Selector:
    """Chooses what a sink gets; keeps what each task has said.

    Args:
        selection: What is wanted.

    Example:
        >>> Selector(Selection())(result)  # doctest: +SKIP
        [Result(...)]
    """

    def __init__(self, selection: Selection) -> None:
        self._wanted = selection
        self._said: dict[str, tuple[tuple[str, ...], str | None, int]] = {}  # gist, label, since when

    def __call__(self, result: Result) -> list[Result | Event]:
        """Return what is to be written: nothing, the result with the tasks that are wanted, or events."""
        wanted, tasks = self._wanted, result.tasks
        if wanted.tasks or wanted.min_score:
            tasks = {name: task for name, task in tasks.items() if self._wants(name, task)}
            if not tasks:
                return []
        if wanted.on == "event":
            return list(self._events(result, tasks))
        if wanted.on == "change" and tasks and not self._changed(result, tasks):
            return []
        return [result if len(tasks) == len(result.tasks) else _narrowed(result, tasks)]

    def _wants(self, name: str, task: TaskResult) -> bool:
        if self._wanted.tasks and name not in self._wanted.tasks:
            return False
        sure = task.value is not None if task.score is None else task.score >= self._wanted.min_score
        return sure or not self._wanted.min_score

    def _changed(self, result: Result, tasks: Mapping[str, TaskResult]) -> bool:
        gists = {name: (task.gist, task.label, result.t_ns) for name, task in tasks.items()}
        changed = any(name not in self._said or self._said[name][0] != gist for name, (gist, _, _) in gists.items())
        self._said.update(gists)
        return changed

    def _events(self, result: Result, tasks: Mapping[str, TaskResult]) -> list[Event]:
        events = []
        for name, task in tasks.items():
            if task.value is not None:  # a number has no label to change
                continue
            labels = task.gist if task.boxes else _NOTHING
            key = labels or (() if task.label is None else (task.label,))
            known = self._said.get(name)
            if key == (known[0] if known is not None else ()):
                continue
            self._said[name] = key, task.label, result.t_ns
            events.append(
                Event(
                    task=name,
                    label=task.label,
                    score=task.score,
                    labels=labels,
                    before=None if known is None else known[1],
                    before_ms=None if known is None else round(max(result.t_ns - known[2], 0) / 1e6, 3),
                    t_ns=result.t_ns,
                    unix_ns=result.unix_ns,
                )
            )
        return events


def _narrowed(result: Result, tasks: dict[str, TaskResult]) -> Result:
    narrowed = msgspec.structs.replace(result, tasks=tasks)
    narrowed.__dict__.update(result.__dict__)
    return narrowed
