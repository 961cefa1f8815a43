"""Which seats a stage hears of: what comes through a stream alone is absent until the stream's first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.fusion.stage import StageRunner


def reach(stage: StageRunner) -> int:
    """Return the seats that a stage hears of, as bits: without those that come only through streams yet to begin."""
    return _reach(stage, {})


def _reach(stage: StageRunner, known: dict[StageRunner, int]) -> int:
    if stage.waits:
        return 0 if stage.life.cold else stage.bits
    if not stage.behind:
        return stage.bits
    if stage not in known:  # there are more ways through a graph than stages
        found = stage.direct
        for producer in stage.producers:
            found |= _reach(producer, known)
        known[stage] = found
    return known[stage]


def seen(stage: StageRunner, bits: int) -> int:
    """Return which of the present seats are present to a stage, as bits; those that do not feed it stay as they are."""
    return bits & (reach(stage) | ~stage.bits) if stage.behind else bits


def unheard(stage: StageRunner) -> int:
    """Return the seats that feed a stage and of which it hears nothing yet, though they may be present, as bits."""
    return stage.bits & ~reach(stage) if stage.behind else 0
