"""Why a trigger saw what it saw: read from a recording, without its media."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.plan.bounds import look_ahead_ns, wait_ns
from mmedge.recording.decision import Decision, trigger_event
from mmedge.recording.event_log import EosEvent, FrameEvent, PacketEvent, TriggerEvent
from mmedge.recording.reader import Recording, Turn
from mmedge.replay.cutter import Cutter
from mmedge.sync import Synchronizer
from mmedge.types import Snapshot, TaskResult

SCHEMA = "mmedge.explain/1"
_NEAR_NS = 2_000_000_000  # before and after a trigger: what is shown of the log
_KEPT = 4096  # newest packets and notes that are kept while the log is read
# A result's t_ns is above it, a trigger's number below: 10 s after the machine was started, a year at 30 a second.
_FIRST_TIME_NS = 10_000_000_000


@dataclass(slots=True)
class _Cut:
    """One trigger, at the poll that let it go."""

    snapshot: Snapshot
    event: TriggerEvent
    turn: Turn
    recorded: bool


def explain(folder: str | Path, bundle: Bundle | None, trigger: int) -> dict[str, Any]:
    """Return why a trigger saw what it saw.

    Args:
        folder: The recording.
        bundle: What cuts it, open; None: the one that ran, as the recording tells of it.
        trigger: Number of the trigger, from 1, or the ``t_ns`` of its result.

    Returns:
        One document (schema ``mmedge.explain/1``); all times in ms from the trigger's capture time.

    Raises:
        ConfigError: If there is no such trigger.
        SourceError: If the recording's header is damaged.
    """
    recording = Recording(folder)
    cutter = Cutter(recording.header, bundle)
    sync = cutter.sync
    seen: deque[PacketEvent] = deque(maxlen=_KEPT)
    notes: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT)
    found: _Cut | None = None
    later: list[PacketEvent] = []
    try:
        for turn in recording.turns(media=False, rates_hz=cutter.rates_hz):
            if found is not None:
                later += turn.events
                if turn.now_ns > found.turn.now_ns + _NEAR_NS:
                    break
                continue
            seen += turn.events
            before = dict(sync.drops)
            snapshots = cutter.run(turn)
            notes += [(turn.now_ns, note) for note in _notes(sync, before, turn)]
            found = _find(snapshots, turn, trigger, obey=cutter.obey)
            sync.trim()
    finally:
        last, drops = sync.triggers, dict(sync.drops)
        sync.close()
    if found is None:
        raise ConfigError(
            f"trigger {trigger} has no snapshot: there are {last} triggers, dropped: {drops or 'none'}",
            where=str(folder),
            fix="give a trigger's number from 1, or the t_ns of a result line",
        )
    near = [note for at_ns, note in notes if abs(at_ns - found.turn.now_ns) <= _NEAR_NS]
    return _document(found, cutter, recording.header.lossless, list(seen), later, near)


def _find(snapshots: list[Snapshot], turn: Turn, trigger: int, *, obey: bool) -> _Cut | None:
    for snapshot in snapshots:
        if trigger == (snapshot.t_ns if trigger >= _FIRST_TIME_NS else snapshot.seq):
            event = turn.triggers.get(snapshot.seq) if obey else None
            if event is not None and event.t_ns == snapshot.t_ns:
                return _Cut(snapshot, event, turn, recorded=True)
            return _Cut(snapshot, trigger_event(Decision(snapshot, "answered")), turn, recorded=False)
    return None


def _notes(sync: Synchronizer, before: dict[str, int], turn: Turn) -> list[dict[str, Any]]:
    drops = {cause: count - before.get(cause, 0) for cause, count in sync.drops.items()}
    found: list[dict[str, Any]] = [{"cause": cause, "count": count} for cause, count in drops.items() if count]
    return found + [
        {key: value for key in note.__struct_fields__ if (value := getattr(note, key)) is not None}
        for note in turn.notes
    ]


def _document(
    cut: _Cut,
    cutter: Cutter,
    lossless: bool,
    seen: list[PacketEvent],
    later: list[PacketEvent],
    notes: list[dict[str, Any]],
) -> dict[str, Any]:
    event, sync = cut.event, cutter.spec
    inputs = {
        name: _input(name, cut, cutter, seen, later)
        if name in cutter.attached
        else {"present": False, "why": "no source"}
        for name in event.present
    }
    late = [name for name, entry in inputs.items() if entry.get("complete") is False]
    if not late:
        left = "every input that is waited for was complete"
    elif not lossless and event.wait_ns >= wait_ns(sync, {name: cutter.seats[name] for name in cutter.attached}):
        left = f"the deadline of {sync.deadline_ms:g} ms was over"
    else:
        left = f"{', '.join(late)} had ended, or had been silent for too long to be waited for"
    return {
        "schema": SCHEMA,
        "trigger": event.seq,
        "t_ns": event.t_ns,
        "made_by": f"a frame of {sync.trigger}" if cut.snapshot.on_frame else f"a hop of {sync.every_ms:g} ms",
        "outcome": event.outcome if cut.recorded else "not in the recorded run",
        "delivered_ms": _ms(event.deliver_ns - event.t_ns),
        "waited_ms": _ms(event.wait_ns),
        "waited_for": [name for name, entry in inputs.items() if entry.get("waited_ms")],
        "left_because": left,
        "skew_ms": event.skew_ms,
        "uncertainty_ms": event.uncertainty_ms,
        "reason": event.reason,
        "inputs": inputs,
        "stages": {
            name: {"age_ms": _ms(event.t_ns - time_ns), "still_running": name in event.busy}
            for name, time_ns in event.used_ns.items()
        },
        "nearby": notes,
        "tasks": {name: _told(task) for name, task in event.tasks.items()},
        "latency_ms": event.latency_ms,
    }


def _told(task: TaskResult) -> dict[str, Any]:
    told: dict[str, Any] = {"label": task.label, "score": task.score}
    return told if task.value is None else {**told, "value": task.value, "unit": task.unit}


def _input(name: str, cut: _Cut, cutter: Cutter, seen: list[PacketEvent], later: list[PacketEvent]) -> dict[str, Any]:
    event, t_ns = cut.event, cut.event.t_ns
    own = [packet for packet in seen if packet.stream == name and not isinstance(packet, EosEvent)]
    ended = next((p for p in reversed(seen) if p.stream == name), None)
    entry: dict[str, Any] = {
        "present": event.present[name],
        "why": next((part for part in (event.reason or "").split("; ") if part.startswith(f"{name}: ")), None),
        "used": event.used.get(name),
        "age_ms": event.age_ms.get(name),
        "ended": ended.reason or "the stream ended" if isinstance(ended, EosEvent) else None,
    }
    after = next((packet for packet in later if packet.stream == name and not isinstance(packet, EosEvent)), None)
    if after is not None:
        entry["next"] = {"capture_ms": _ms(after.capture_ns - t_ns), "arrive_ms": _ms(after.arrive_ns - t_ns)}
    if not own:
        return entry
    newest = own[-1]
    own = [packet for packet in own if packet.epoch == newest.epoch]
    entry["newest"] = {
        "seq": newest.seq,
        "epoch": newest.epoch,
        "capture_ms": _ms(newest.capture_ns - t_ns),
        "arrive_ms": _ms(newest.arrive_ns - t_ns),
        "quality": newest.quality,
        "uncertainty_ms": _ms(newest.uncertainty_ns),
    }
    if isinstance(newest, FrameEvent) and newest.unchanged_ns:
        entry["newest"]["unchanged_ms"] = _ms(newest.unchanged_ns)
    if isinstance(newest, FrameEvent) and newest.damaged:
        entry["newest"]["damaged"] = True
    delivered = [packet.capture_ns for packet in own if packet.arrive_ns <= event.deliver_ns]
    entry["watermark_ms"] = {
        "delivered": _ms(max(delivered) - t_ns) if delivered else None,
        "left": _ms(max(packet.capture_ns for packet in own) - t_ns),
    }
    made_it = cut.snapshot.on_frame and name == cutter.spec.trigger
    if isinstance(cutter.seats[name], (TextInput, TensorInput)) or made_it or cutter.spec.policy == "latest":
        return entry
    needed_ns = t_ns + look_ahead_ns(cutter.spec, cutter.seats[name])
    enough = next((packet for packet in own if packet.capture_ns >= needed_ns), None)
    until_ns = cut.turn.now_ns if enough is None else enough.arrive_ns
    entry["needed_ms"] = _ms(needed_ns - t_ns)
    entry["complete"] = enough is not None
    entry["waited_ms"] = _ms(max(0, until_ns - event.deliver_ns))
    return entry


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
