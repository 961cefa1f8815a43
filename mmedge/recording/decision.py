"""What became of one trigger: as the runtime knows it, and as the log states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mmedge._native import core
from mmedge.types import Result, Snapshot

if TYPE_CHECKING:
    from mmedge.recording.event_log import Outcome, TriggerEvent


class Decision(msgspec.Struct, frozen=True):
    """What became of one trigger; ``used_ns``, ``busy`` and ``failed`` as in ``StageGraph``."""

    snapshot: Snapshot
    outcome: Outcome
    result: Result | None = None
    used_ns: Mapping[str, int] = msgspec.field(default_factory=dict)
    busy: Sequence[str] = ()
    failed: Sequence[dict[str, str]] = ()


def trigger_event(decision: Decision) -> TriggerEvent:
    """Return the log's line about a trigger."""
    from mmedge.recording.event_log import TriggerEvent  # a run that is not recorded has no log

    shot, result = decision.snapshot, decision.result
    numbers = {name: packet.seq for name, packet in (*shot.frames.items(), *shot.values.items())} | shot.audio_end
    return TriggerEvent(
        seq=shot.seq,
        t_ns=shot.t_ns,
        outcome=decision.outcome,
        present=shot.present,
        used={name: (shot.epoch[name], number) for name, number in numbers.items() if name in shot.epoch},
        age_ms=core.round_values(shot.age_ms, 3),
        skew_ms=core.round_decimals(shot.skew_ms, 3),
        uncertainty_ms=core.round_decimals(shot.uncertainty_ms, 3),
        wait_ns=shot.wait_ns,
        deliver_ns=shot.deliver_ns,
        epoch=dict(shot.epoch),
        reason=shot.reason,
        used_ns=dict(decision.used_ns),
        busy=tuple(decision.busy),
        failed=tuple(decision.failed),
        status=None if result is None else result.status,
        tasks={} if result is None else result.tasks,
        latency_ms={} if result is None else result.latency_ms,
    )
