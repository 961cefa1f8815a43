"""How often the parts of a plan run, and how long a trigger waits for its inputs."""

from __future__ import annotations

from mmedge.bundle import ImageInput
from mmedge.bundle.manifest import TextInput
from mmedge.forecast.span import Span
from mmedge.plan import Plan

_TEXT_NS = 1e9  # between two texts, as `mmedge bench` gives them


def period_ns(plan: Plan, fps: float) -> float:
    """Return the time from one trigger to the next.

    Args:
        plan: Of the run.
        fps: Rate of pictures, and of arrays that have none of their own.
    """
    sync = plan.sync
    if sync.trigger == "timer" or all(seat.name != sync.trigger for seat in sync.seats):
        return float(sync.every_ns)
    return _news_ns(plan, sync.trigger, fps) or float(sync.every_ns)


def _news_ns(plan: Plan, name: str, fps: float) -> float | None:
    """Return the time from one packet of an input to the next; None of sound, of which there is always more."""
    seat = next(seat for seat in plan.sync.seats if seat.name == name)
    if seat.kind == "audio":
        return None
    if isinstance(plan.inputs[name], TextInput):
        return _TEXT_NS
    return float(seat.period_ns or 1e9 / fps)


def shares(plan: Plan, fps: float) -> dict[str, float]:
    """Return how often each stage runs, a trigger.

    Args:
        plan: Of the run.
        fps: As ``period_ns`` has it.
    """
    trigger_ns = period_ns(plan, fps)
    attached = {seat.name for seat in plan.sync.seats}
    found: dict[str, float] = {}
    for stage in plan.stages:
        if stage.hears is not None:
            found[stage.name] = trigger_ns / (1e9 * stage.hears.step / stage.hears.rate_hz)
            continue
        share = max((found[name] for name in stage.producers if stage.due.links), default=0.0)
        for name in stage.due.watches:
            if name in attached:
                news_ns = _news_ns(plan, name, fps)
                share = max(share, 1.0 if news_ns is None else min(1.0, trigger_ns / news_ns))
        if stage.due.every_ns:
            share = min(share, trigger_ns / stage.due.every_ns)
        found[stage.name] = min(1.0, share)
    return found


def waiting(plan: Plan, fps: float, block_ms: float) -> tuple[Span, str]:
    """Return how long a trigger waits for what belongs to its time, and why; without the delay of the sources.

    Its instant lies anywhere in a block of sound, which comes as a whole, and between two pictures of another camera.

    Args:
        plan: Of the run.
        fps: As ``period_ns`` has it.
        block_ms: Length of a block of sound.
    """
    longest, why = Span(0.0, 0.0, 0.0), "nothing else is waited for"
    if plan.sync.latest:
        return longest, "what is newest is taken"
    for seat in plan.sync.seats:
        if seat.kind == "audio":
            gap_ms, what = block_ms, f"the block of {block_ms:g} ms in which it lies"
        elif isinstance(plan.inputs[seat.name], ImageInput) and not seat.trigger:
            gap_ms, what = 1000 / fps, "the next picture"
        else:
            continue
        ahead_ms, most_ms = seat.ahead_ns / 1e6, plan.sync.wait_ns / 1e6
        times = [min(ahead_ms + part * gap_ms, most_ms) for part in (0, 0.5, 1)]
        if longest.high is None or times[2] > longest.high:
            longest, why = Span(*times), f"'{seat.name}': {what}"
            why += f", {ahead_ms:g} ms ahead" if ahead_ms else ""
    return longest, why
