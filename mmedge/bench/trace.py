"""A run as a trace: what ran when, on one clock, for ui.perfetto.dev and chrome://tracing.

The format is the "Trace Event Format" (JSON object form); times are microseconds on CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmedge.bench.report import Report
from mmedge.bench.tally import Answer, OpenLoop

_RUNTIME, _USER = 1, 2
# Tracks of the runtime; each stage has one from _STAGES on. A track with the number of its process is its main thread.
_CAPTURES, _WAITS, _GRAPH, _STAGES = 3, 4, 5, 10
_READER, _EVENTS = 3, 4  # tracks of the user's process


def trace(report: Report) -> dict[str, Any]:
    """Return the trace of the measured time of a benchmark; arguments as those of ``document``."""
    tally = report.tally
    missed = tally.missed if isinstance(tally, OpenLoop) else []
    told = {"bundle": report.bundle, "evidence": report.statistics.evidence}
    return document(tally.names, tally.answers, missed, [*tally.marks, *report.events], told)


def document(
    names: Sequence[str],
    answers: Iterable[Answer],
    missed: Iterable[int],
    happened: Iterable[tuple[int, str]],
    told: Mapping[str, str],
) -> dict[str, Any]:
    """Return a trace.

    Captures are instants, waits and triggers slices that begin and end on their own (they overlap), stages slices on a
    track each, and the way of each result into the reader's process an arrow.

    Args:
        names: Those of the stages, in their order.
        answers: What was made when.
        missed: When triggers were due that were not answered, on CLOCK_MONOTONIC.
        happened: When something happened, and what.
        told: What else is to be known.
    """
    events = [*_tracks(names), *_triggers(names, answers)]
    events += [_instant(_RUNTIME, _CAPTURES, "dropped", t_ns, {}) for t_ns in missed]
    events += [_instant(_USER, _EVENTS, what, t_ns, {}) for t_ns, what in happened]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"clock": "CLOCK_MONOTONIC", **told}}


def _tracks(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    stages = {_STAGES + place: f"stage {name}" for place, name in enumerate(names)}
    tracks = {
        _RUNTIME: ("runtime", {_CAPTURES: "captures", _WAITS: "waits", _GRAPH: "graph", **stages}),
        _USER: ("user", {_READER: "results", _EVENTS: "events"}),
    }
    for pid, (process, threads) in tracks.items():
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": process}}
        for tid, thread in threads.items():
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": thread}}
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}


def _triggers(names: Sequence[str], answers: Iterable[Answer]) -> Iterator[dict[str, Any]]:
    for number, answer in enumerate(answers):
        told = {"trigger": number}
        yield _instant(_RUNTIME, _CAPTURES, "capture", answer.t_ns, told)
        # Triggers wait beside each other: asynchronous slices may overlap.
        for name, from_ns, until_ns in (
            ("trigger", answer.t_ns, answer.done_ns),
            ("wait: to the runtime", answer.t_ns, answer.delivered_ns),
            ("wait: other inputs", answer.delivered_ns, answer.complete_ns),
            ("wait: into the runtime", answer.complete_ns, answer.ready_ns),
            ("wait: executor", answer.ready_ns, answer.start_ns),
        ):
            of = {"id2": {"local": f"{number:#x}"}, "pid": _RUNTIME, "tid": _WAITS}
            common = {"cat": "trigger", "name": name, **of}
            yield {**common, "ph": "b", "ts": from_ns / 1e3, "args": told}
            yield {**common, "ph": "e", "ts": max(until_ns, from_ns) / 1e3}
        yield _slice(_RUNTIME, _GRAPH, "graph", answer.start_ns, answer.inferred_ns, told)
        yield _slice(_RUNTIME, _GRAPH, "interpret", answer.inferred_ns, answer.done_ns, told)
        for run in answer.stages(names):
            track = _STAGES + run.place
            yield _slice(_RUNTIME, track, "tensors", run.fed_from_ns, run.fed_until_ns, told)
            yield _slice(_RUNTIME, track, "engine", run.ran_from_ns, run.ran_until_ns, told)
        yield _instant(_USER, _READER, "received", answer.received_ns, told)
        way = {"cat": "result", "id": number, "name": "result"}
        yield {**way, "ph": "s", "pid": _RUNTIME, "tid": _GRAPH, "ts": (answer.done_ns - 1) / 1e3}
        yield {**way, "ph": "f", "bp": "e", "pid": _USER, "tid": _READER, "ts": answer.received_ns / 1e3}


def _slice(pid: int, tid: int, name: str, from_ns: int, until_ns: int, told: dict[str, int]) -> dict[str, Any]:
    length = max(until_ns - from_ns, 0) / 1e3
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": from_ns / 1e3, "dur": length, "args": told}


def _instant(pid: int, tid: int, name: str, t_ns: int, told: dict[str, int]) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "pid": pid, "tid": tid, "name": name, "ts": t_ns / 1e3, "args": told}
