"""A latency benchmark of a bundle: real sources, or generated frames and sound at their real rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mmedge.address import Address
from mmedge.bench.loops import Loop, generated, given
from mmedge.bench.machine import facts
from mmedge.bench.report import Report
from mmedge.bench.schedule import BLOCK_MS, Arrivals, describe, make_feeds, trigger_period_ns
from mmedge.bench.warm_up import MOST_S
from mmedge.bench.watch import Watch
from mmedge.bundle import Bundle, load
from mmedge.errors import ConfigError
from mmedge.pipeline import Pipeline
from mmedge.pipeline.arguments import check_duration
from mmedge.pipeline.spec import PUSH
from mmedge.pipeline.unanswered import unanswered
from mmedge.types import Backend, Precision

_WHOLE = 0.95  # share of the asked time that sources must last


def check_asked(duration_s: float, fps: float, seed: int = 0, warm_up_s: float = 1.0) -> None:
    """Raise ConfigError unless a measurement can be as it is asked for."""
    if not duration_s > 0:
        raise ConfigError(
            f"duration_s must be above 0, got {duration_s:g}", where="duration_s", fix="measure 10 s or more"
        )
    check_duration(duration_s)
    if not 0.001 <= fps <= 1000:
        message = f"{fps:g} frames a second: it must be 0.001 to 1000"
        raise ConfigError(message, where="fps", fix="use the camera's rate")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, got {seed}", where="seed", fix="use 0")
    if not 0 < warm_up_s <= 600:
        message = f"warm_up_s must be above 0 and at most 600, got {warm_up_s:g}"
        raise ConfigError(message, where="warm_up_s", fix="leave it out")


def bench(
    bundle: Bundle | str | Path,
    duration_s: float = 30.0,
    *,
    inputs: Mapping[str, str] | Mapping[str, Address] | None = None,
    backend: Backend = "auto",
    precision: Precision | None = None,
    isolation: Literal["auto", "process", "thread"] = "auto",
    fps: float = 30.0,
    block_ms: float = BLOCK_MS,
    arrivals: Arrivals = "fixed",
    seed: int = 0,
    delay_ms: float = 0.0,
    warm_up_s: float = MOST_S,
    progress: Callable[[float], None] | None = None,
    allow: Sequence[str] = (),
    place: Mapping[str, str] | None = None,
) -> Report:
    """Measure a bundle's latency per trigger, once it has settled.

    Args:
        bundle: A bundle, or the path of one.
        duration_s: How long to measure, the warm-up apart.
        inputs: Sources; without them frames (seeded noise, a ring of 16) come at ``fps``, sound in blocks of
            ``block_ms``, and a text of 24 letters each second: an open loop. A packet's capture time is when it
            was due, whenever it could be pushed, and no two inputs are in step.
        backend: ``auto``, or one of ``mmedge.types.Backend``.
        precision: Only this precision.
        isolation: As ``Pipeline`` has it; ``auto`` is what a run on live devices has: the runtime is a ``process`` of
            its own, which the generator and the reader of results cannot hold up.
        fps: Rate of generated frames.
        block_ms: Longest block of generated sound; a picture waits for the block in which its instant lies.
        arrivals: ``fixed``: triggers come evenly; ``poisson``: at random, at the same mean rate.
        seed: Of random arrivals.
        delay_ms: How long after its capture a generated packet is handed over, as a camera's are.
        warm_up_s: It is measured when median and p99 are steady (docs/bench.md), after this time at the latest.
        progress: Called with the share done, 0..1.
        allow: Modules whose functions the bundle may call; as for ``Pipeline``.
        place: Where stages run on TensorRT; as for ``Pipeline``.

    Returns:
        The report: ``report.latency_ms["end_to_end"].p99``, ``report.save("bench.html")``. It is not ``valid`` if
        less than 98 % of the triggers were answered, if the generator itself was late, or if the machine was throttled
        or other programs took its cores.

    Raises:
        MmedgeError: As ``Pipeline`` does.

    Example:
        >>> mmedge.bench("digits.mmedge", duration_s=5).latency_ms["end_to_end"].p50  # doctest: +SKIP
        1.7
    """
    check_asked(duration_s, fps, seed, warm_up_s)
    if not 1 <= block_ms <= 1000:
        raise ConfigError(
            f"block_ms must be 1 to 1000, got {block_ms:g}", where="block_ms", fix="use the block length of the device"
        )
    if not 0 <= delay_ms <= 10_000:
        message = f"delay_ms must be 0 to 10000, got {delay_ms:g}"
        raise ConfigError(message, where="delay_ms", fix="use what the camera needs from capture to delivery")
    if inputs is not None and (arrivals != "fixed" or delay_ms):
        name = "delay_ms" if arrivals == "fixed" else "arrivals"
        raise ConfigError(f"{name} is of generated data, not of sources", where=name, fix="leave it or the inputs out")
    own, began_s = not isinstance(bundle, Bundle), time.monotonic()
    opened = bundle if isinstance(bundle, Bundle) else load(bundle)
    startup_ms = {"open and verify": _since_ms(began_s)} if own else {}
    try:
        sync, conditions = opened.manifest.sync, facts()
        uris = dict.fromkeys(opened.inputs, PUSH) if inputs is None else inputs
        feeds = make_feeds(opened.inputs, sync, fps, block_ms, arrivals, seed) if inputs is None else None
        if feeds is not None and isolation == "auto":
            isolation = "process"
        began_s = time.monotonic()
        pipe = Pipeline(
            opened,
            uris,
            backend=backend,
            precision=precision,
            isolation=isolation,
            results="all",
            allow=allow,
            place=place,
            engines="wait",
            spans=True,
        )
        watch = Watch(lambda: pipe.statistics, pipe.health)
        try:
            with pipe:
                started_ms, parts = _since_ms(began_s), pipe.statistics.startup_ms
                startup_ms |= {"processes": round(started_ms - sum(parts.values()), 1), **parts}
                loop = Loop(
                    pipe=pipe,
                    bundle=opened,
                    attached=tuple(uris),
                    watch=watch,
                    duration_s=duration_s,
                    warm_up_s=warm_up_s,
                    progress=progress or (lambda share: None),
                )
                if feeds is None:
                    measured = given(loop)
                else:
                    period_ns = float(trigger_period_ns(opened.inputs, sync, fps))
                    measured = generated(loop, feeds, period_ns, round(delay_ms * 1e6))
        finally:
            watch.close()
        if not pipe.statistics.results:
            raise unanswered(pipe.health(), {}, pipe.statistics)
        if not measured.tally.answered:
            raise ConfigError(
                f"nothing was measured: no results after the warm-up, which takes 1 to {warm_up_s:g} s",
                where="inputs",
                fix="check the same sources with `mmedge run`; use longer files",
            )
        problems = watch.conditions.problems
        if measured.rate.measured_s < _WHOLE * duration_s:
            problems = [*problems, f"the sources ended after {measured.rate.measured_s:.1f} of {duration_s:g} s"]
        return Report(
            bundle=opened.name,
            conditions={
                "duration_s": duration_s,
                "warm_up_s": round(measured.warm_up_ms / 1e3, 3),
                "settled": measured.settled,
                "inputs": {n: str(Address(u)) for n, u in uris.items()} if feeds is None else describe(feeds),
                **({"delay_ms": delay_ms} if delay_ms else {}),
                "isolation": pipe.isolation,
                "backends": pipe.statistics.backends,
                **conditions,
                **loop.conditions,
            },
            statistics=pipe.statistics,
            tally=measured.tally,
            rate=measured.rate,
            startup_ms={**startup_ms, "until settled": round(measured.warm_up_ms, 1)},
            processes=loop.processes,
            problems=problems,
            events=watch.events,
        )
    finally:
        if own:
            opened.close()


def _since_ms(began_s: float) -> float:
    return round(1e3 * (time.monotonic() - began_s), 1)
