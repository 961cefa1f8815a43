"""The loops of a benchmark: data that are generated, and data that sources of the user's own give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from mmedge.bench.generator import Generator
from mmedge.bench.report import Rate
from mmedge.bench.schedule import Feed
from mmedge.bench.tally import OpenLoop, Tally
from mmedge.bench.warm_up import WarmUp
from mmedge.bench.watch import Watch
from mmedge.bundle import AudioInput, Bundle, ImageInput, stage_order
from mmedge.pipeline import Pipeline

LATE_NS = 10_000_000  # a generated packet that is pushed later than this, or a period, was late
LEAD_NS = 20_000_000  # before the first packet is due
GRACE_NS = 2_000_000_000  # after the last packet, for its result
_UNKNOWN_NS = 1e9 / 30  # from one trigger to the next, of sources that do not tell


@dataclass(kw_only=True)
class Loop:
    """What a loop runs on.

    Attributes:
        pipe: Started.
        bundle: Its bundle.
        attached: Inputs that have a source.
        watch: Looks at the conditions.
        duration_s: How long to measure.
        warm_up_s: How long it may take to settle.
        progress: Called with the share done, 0..1.
        conditions: What was seen around it; from ``finish`` on.
        processes: What each process took.
    """

    pipe: Pipeline
    bundle: Bundle
    attached: tuple[str, ...]
    watch: Watch
    duration_s: float
    warm_up_s: float
    progress: Callable[[float], None]
    conditions: dict[str, object] = field(default_factory=dict)
    processes: list[dict[str, object]] = field(default_factory=list)

    def finish(self, answered: int) -> None:
        """Take down the conditions, while the processes still run."""
        self.conditions, self.processes = self.watch.end(answered)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a loop has found.

    Attributes:
        tally: Latencies.
        rate: What was asked, and what was done.
        warm_up_ms: How long it took to settle.
        settled: Whether it did.
    """

    tally: Tally
    rate: Rate
    warm_up_ms: float
    settled: bool


def is_alone(bundle: Bundle, attached: Iterable[str]) -> bool:
    """Tell whether no trigger waits for another input: there is none of pictures or sound beside its own."""
    others = (bundle.inputs[name] for name in attached if name != bundle.manifest.sync.trigger)
    return not any(isinstance(spec, (AudioInput, ImageInput)) for spec in others)


def generated(loop: Loop, feeds: tuple[Feed, ...], period_ns: float, delay_ns: int) -> Measured:
    """Drive the pipeline by an open loop.

    Args:
        loop: What it runs on.
        feeds: What is due when.
        period_ns: From one trigger to the next.
        delay_ns: How long after its capture a packet is handed over.
    """
    start_ns = time.monotonic_ns() + LEAD_NS
    duration_ns = round(loop.duration_s * 1e9)
    own = next((f for f in feeds if f.name == loop.bundle.manifest.sync.trigger and not f.samples), None)
    due_ns = None if own is None else (start_ns + own.due_ns(number) for number in count())
    warm_up = WarmUp(start_ns, period_ns, loop.warm_up_s)
    last_ns = start_ns + round(loop.warm_up_s * 1e9) + duration_ns + GRACE_NS
    generator = Generator(loop.pipe, loop.bundle, feeds, start_ns, delay_ns)
    stages = stage_order(loop.bundle.manifest.stages)
    tally = OpenLoop(due_ns, period_ns, stages, complete_ns=generator.complete_ns)
    from_ns = until_ns = 0
    try:
        # What is due last is answered later; the generator goes on, or the last would wait for their sound.
        for result in loop.pipe.results(last_ns / 1e9):
            tally.add(result)
            if not until_ns:
                now_ns = time.monotonic_ns()
                if warm_up.over(now_ns, result.latency_ms["end_to_end"]):
                    from_ns, until_ns = now_ns, now_ns + duration_ns
                    tally.begin(from_ns, until_ns)
                    loop.watch.begin()
            elif result.t_ns >= until_ns:
                break
            else:
                loop.progress(min(1.0, max(0.0, (result.t_ns - from_ns) / duration_ns)))
    finally:
        generator.stop()
    tally.close(time.monotonic_ns())
    loop.finish(tally.answered)
    if generator.error is not None:
        raise generator.error
    rate = Rate(
        asked_hz=1e9 / period_ns,
        measured_s=loop.duration_s,
        from_ns=from_ns,
        due=tally.due,
        answered=tally.answered,
        lateness=generator.lateness(from_ns, until_ns),
        late_ns=min(LATE_NS, round(period_ns)),
        block_ms=max((float(f.period_ns) / 1e6 for f in feeds if f.samples), default=None),
    )
    return Measured(tally=tally, rate=rate, warm_up_ms=(from_ns - start_ns) / 1e6, settled=warm_up.settled)


def given(loop: Loop) -> Measured:
    """Read what the user's sources give."""
    alone = is_alone(loop.bundle, loop.attached)
    tally = Tally(stage_order(loop.bundle.manifest.stages), alone=alone)
    start_ns = time.monotonic_ns()
    warm_up = WarmUp(start_ns, _UNKNOWN_NS, loop.warm_up_s)
    began_s = end_s = 0.0
    before = 0
    for result in loop.pipe.results(start_ns / 1e9 + loop.warm_up_s + loop.duration_s):
        now_s = time.monotonic()
        if not end_s:
            if warm_up.over(time.monotonic_ns(), result.latency_ms["end_to_end"]):
                began_s, end_s = now_s, now_s + loop.duration_s
                before = loop.pipe.statistics.triggers
                tally.begin(time.monotonic_ns())
                loop.watch.begin()
            continue
        if now_s >= end_s:
            break
        tally.add(result)
        loop.progress(min(1.0, (now_s - began_s) / loop.duration_s))
    took_s = max(min(time.monotonic(), end_s) - began_s, 1e-9) if end_s else 1e-9
    loop.finish(tally.answered)
    loop.pipe.close()  # for the counts of its end
    statistics = loop.pipe.statistics
    # What was still under way at the end was not missed, nor what the bundle itself says is to be skipped.
    excused = statistics.drops.get("after_end", 0) + statistics.drops.get("skipped", 0)
    due = statistics.triggers - before - excused
    rate = Rate(
        asked_hz=None,
        measured_s=took_s,
        from_ns=tally.from_ns or 0,
        due=max(due, tally.answered),
        answered=tally.answered,
    )
    warm_up_ms = 1e3 * began_s - start_ns / 1e6 if end_s else 0.0
    return Measured(tally=tally, rate=rate, warm_up_ms=warm_up_ms, settled=warm_up.settled)
