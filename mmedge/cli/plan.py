"""``mmedge inspect --plan``: what a run of a bundle does, as it is worked out before it starts."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from mmedge.cli.output import add_names, out
from mmedge.plan import Plan, SeatPlan, StagePlan, SyncPlan

_CUTS = {"image": "the picture nearest to it", "value": "the newest value before it"}


def print_plan(plan: Plan) -> None:
    """Print when triggers come, what each input gives at one, and what the stages do then."""
    out.print(Text(f"{plan.bundle}, latency {plan.latency}", style="bold"))
    for line in _triggers(plan.sync):
        out.print(line, highlight=False, markup=False)
    out.print(_inputs(plan.sync))
    out.print(_stages(plan))
    for name, task in plan.tasks.items():
        out.print(f"task {name}: {task.kind} of {task.output}", highlight=False, markup=False)
    masks = " | ".join(" + ".join(mask) or "nothing" for mask in plan.masks)
    out.print(f"may be present together: {masks}", highlight=False, markup=False)


def _triggers(sync: SyncPlan) -> Iterable[str]:
    seat = next((seat for seat in sync.seats if seat.trigger), None)
    if sync.trigger == "timer":
        yield f"triggers: a timer, every {_ms(sync.every_ns)}"
    elif seat is None:
        yield f"triggers: the clock of another input, since '{sync.trigger}' has no source"
    elif seat.kind == "audio":
        yield f"triggers: every {_ms(sync.every_ns)} of '{seat.name}'"
    else:
        yield f"triggers: every {'picture' if seat.kind == 'image' else 'value'} of '{seat.name}'"
    if sync.lossless:
        yield "a trigger waits for every input, as long as it takes; nothing is dropped"
    else:
        yield f"a trigger waits {_ms(sync.wait_ns)} at most; frames are held for {_ms(sync.hold_ns)}"
    if sync.latest:
        yield "inputs give what is newest, whatever its time"


def _inputs(sync: SyncPlan) -> Table:
    table = Table(title="what inputs give at a trigger")
    add_names(table, "input", sync.present)
    for heading in ("gives", "absent"):
        table.add_column(heading, overflow="fold")
    seats = {seat.name: seat for seat in sync.seats}
    for name in sync.present:
        if name in seats:
            table.add_row(name, _cut(seats[name]), _absent(seats[name]))
        else:
            table.add_row(name, "no source", "always")
    return table


def _cut(seat: SeatPlan) -> str:
    if seat.kind != "audio":
        return "the picture itself" if seat.kind == "image" and seat.trigger else _CUTS[seat.kind]
    end = f"{_ms(seat.ahead_ns)} after it" if seat.ahead_ns else "at it"
    return f"{seat.window} samples, {_ms(seat.window * 1_000_000_000 // seat.rate_hz)}, that end {end}"


def _absent(seat: SeatPlan) -> str:
    told = seat.policy + (f", {_ms(seat.max_age_ns)} at most" if seat.max_age_ns else "")
    return told + (f"; valid for {_ms(seat.ttl_ns)}" if seat.ttl_ns else "")


def _stages(plan: Plan) -> Table:
    table = Table(title="stages, in the order in which they run")
    add_names(table, "stage", [stage.name for stage in plan.stages])
    for heading in ("runs", "fed by", "depends on"):
        table.add_column(heading, overflow="fold")
    for stage in plan.stages:
        table.add_row(stage.name, _due(stage), "\n".join(_fed(stage)), ", ".join(stage.depends))
    return table


def _due(stage: StagePlan) -> str:
    due = stage.due
    if stage.hears is not None:
        return f"for every {stage.hears.step} samples of '{stage.hears.seat}'"
    news = [*due.watches, *(stage.producers if due.links else ())]
    told = f"when {' or '.join(news)} {'differs' if due.differs else 'is new'}" if news else "once"
    told += ", or inputs come or go" if due.masks else ""
    told += f"; every {_ms(due.every_ns)} at most" if due.every_ns else ""
    told += "; triggers do not wait for it" if stage.background else ""
    return told


def _fed(stage: StagePlan) -> Iterable[str]:
    yield from (f"{tensor} = {seat}" for tensor, seat in stage.seats.items())
    yield from (f"{tensor} = {link}" for tensor, link in stage.links.items())
    yield from (f"{tensor} = {output} of the run before" for tensor, output in stage.states.items())
    yield from (f"{tensor} = {number:.15g}" for tensor, number in stage.constants.items())
    yield from (f"{tensor} = which inputs are present" for tensor in stage.presence)
    yield from (f"{tensor} = how old each input is, in ms" for tensor in stage.ages)
    if stage.calls is not None:
        yield f"calls {stage.calls}"


def _ms(ns: int) -> str:
    return f"{ns / 1e6:g} ms"
