"""A latency benchmark of a bundle: real sources, or generated frames and sound at their real rates."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import mmedge
from mmedge.address import Address
from mmedge.bench.generator import Generator
from mmedge.bench.report import Rate, Report
from mmedge.bench.schedule import BLOCK_MS, Feed, describe, make_feeds, trigger_period_ns
from mmedge.bench.tally import OpenLoop, Tally
from mmedge.bundle import Bundle, load
from mmedge.errors import ConfigError
from mmedge.pipeline import Pipeline
from mmedge.pipeline.arguments import check_duration
from mmedge.pipeline.spec import PUSH
from mmedge.pipeline.unanswered import unanswered
from mmedge.types import Backend, Precision

WARM_UP_S = 1.0  # of results that are not counted
LATE_NS = 10_000_000  # a generated packet that is pushed later than this, or a period, was late
_LEAD_NS = 20_000_000  # before the first packet is due
_GRACE_NS = 2_000_000_000  # after the last packet, for its result


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
    progress: Callable[[float], None] | None = None,
    allow: Sequence[str] = (),
) -> Report:
    """Measure a bundle's latency per trigger, after a warm-up of a second.

    Args:
        bundle: A bundle, or the path of one.
        duration_s: How long to measure, the warm-up apart.
        inputs: Sources; without them frames (seeded noise, a ring of 16) come at ``fps``, sound in blocks of
            ``block_ms``, and a text of 24 letters each second: an open loop. A packet's capture time is when it
            was due, whenever it could be pushed, and no two inputs are in step.
        backend: ``auto``, ``onnxruntime`` or ``tensorrt``.
        precision: Only this precision.
        isolation: As ``Pipeline`` has it; ``auto`` is what a run on live devices has: the runtime is a ``process`` of
            its own, which the generator and the reader of results cannot hold up.
        fps: Rate of generated frames.
        block_ms: Longest block of generated sound; a picture waits for the block in which its instant lies.
        progress: Called with the share done, 0..1.
        allow: Modules whose functions the bundle may call; as for ``Pipeline``.

    Returns:
        The report: ``report.latency_ms["end_to_end"].p99``, ``report.save("bench.html")``. It is not ``valid`` if
        less than 98 % of the triggers were answered, or if the generator itself was late.

    Raises:
        MmedgeError: As ``Pipeline`` does.

    Example:
        >>> mmedge.bench("digits.mmedge", duration_s=5).latency_ms["end_to_end"].p50  # doctest: +SKIP
        1.7
    """
    if not duration_s > 0:
        raise ConfigError(
            f"duration_s must be above 0, got {duration_s:g}", where="duration_s", fix="measure 10 s or more"
        )
    check_duration(duration_s)
    if not 0 < fps <= 1000:
        message = f"{fps:g} frames a second: it must be above 0 and at most 1000"
        raise ConfigError(message, where="fps", fix="use the camera's rate")
    if not 1 <= block_ms <= 1000:
        raise ConfigError(
            f"block_ms must be 1 to 1000, got {block_ms:g}", where="block_ms", fix="use the block length of the device"
        )
    own = not isinstance(bundle, Bundle)
    opened = bundle if isinstance(bundle, Bundle) else load(bundle)
    try:
        uris = dict.fromkeys(opened.inputs, PUSH) if inputs is None else inputs
        feeds = None if inputs is not None else make_feeds(opened.inputs, opened.manifest.sync, fps, block_ms)
        if feeds is not None and isolation == "auto":
            isolation = "process"
        load_before = os.getloadavg()[0]
        with Pipeline(
            opened,
            uris,
            backend=backend,
            precision=precision,
            isolation=isolation,
            results="all",
            allow=allow,
            engines="wait",
        ) as pipe:
            tell = progress or (lambda share: None)
            if feeds is None:
                tally, rate = _given(pipe, duration_s, tell)
            else:
                period_ns = float(trigger_period_ns(opened.inputs, opened.manifest.sync, fps))
                tally, rate = _generated(pipe, opened, duration_s, feeds, period_ns, tell)
        if not pipe.statistics.results:
            raise unanswered(pipe.health(), {}, pipe.statistics)
        if not tally.answered:
            raise ConfigError(
                f"nothing was measured: no results after the warm-up of {WARM_UP_S:g} s",
                where="inputs",
                fix="check the same sources with `mmedge run`; use longer files",
            )
        return Report(
            bundle=opened.name,
            conditions={
                "duration_s": duration_s,
                "warm_up_s": WARM_UP_S,
                "inputs": {n: str(Address(u)) for n, u in uris.items()} if feeds is None else describe(feeds),
                "isolation": pipe.isolation,
                "backends": pipe.statistics.backends,
                "mmedge": mmedge.__version__,
                "python": platform.python_version(),
                "machine": machine(),
                "cores": os.cpu_count(),
                "load_before": round(load_before, 2),
            },
            statistics=pipe.statistics,
            tally=tally,
            rate=rate,
        )
    finally:
        if own:
            opened.close()


def _generated(
    pipe: Pipeline,
    bundle: Bundle,
    duration_s: float,
    feeds: tuple[Feed, ...],
    period_ns: float,
    progress: Callable[[float], None],
) -> tuple[Tally, Rate]:
    """Drive the pipeline by an open loop."""
    start_ns = time.monotonic_ns() + _LEAD_NS
    from_ns = start_ns + round(WARM_UP_S * 1e9)
    until_ns = from_ns + round(duration_s * 1e9)
    own = next((f for f in feeds if f.name == bundle.manifest.sync.trigger and not f.samples), None)
    due_ns = None if own is None else (start_ns + own.due_ns(number) for number in count())
    tally = OpenLoop(from_ns, until_ns, due_ns, period_ns)
    generator = Generator(pipe, bundle, feeds, start_ns, from_ns, until_ns)
    try:
        # What is due last is answered later; the generator goes on, or the last would wait for their sound.
        for result in pipe.results((until_ns + _GRACE_NS) / 1e9):
            tally.add(result)
            progress(min(1.0, max(0.0, (result.t_ns - from_ns) / (until_ns - from_ns))))
            if result.t_ns >= until_ns:
                break
    finally:
        generator.stop()
    tally.close(time.monotonic_ns())
    if generator.error is not None:
        raise generator.error
    rate = Rate(
        asked_hz=1e9 / period_ns,
        measured_s=duration_s,
        due=tally.due,
        answered=tally.answered,
        lateness=generator.lateness,
        late_ns=min(LATE_NS, round(period_ns)),
        block_ms=max((float(f.period_ns) / 1e6 for f in feeds if f.samples), default=None),
    )
    return tally, rate


def _given(pipe: Pipeline, duration_s: float, progress: Callable[[float], None]) -> tuple[Tally, Rate]:
    """Read what the user's sources give."""
    tally = Tally()
    begin_s = time.monotonic() + WARM_UP_S
    before: int | None = None
    for result in pipe.results(begin_s + duration_s):
        now_s = time.monotonic()
        if now_s < begin_s:
            continue
        if before is None:
            before = pipe.statistics.triggers
        tally.add(result)
        progress(min(1.0, (now_s - begin_s) / duration_s))
    took_s = max(time.monotonic() - begin_s, 1e-9)
    pipe.close()
    statistics = pipe.statistics
    triggers = before or 0
    # What was still under way at the end was not missed, nor what the bundle itself says is to be skipped.
    excused = statistics.drops.get("after_end", 0) + statistics.drops.get("skipped", 0)
    due = max(statistics.triggers - triggers - excused, 0)
    return tally, Rate(asked_hz=None, measured_s=took_s, due=max(due, tally.answered), answered=tally.answered)


def machine() -> str:
    """Return the processor's or board's model, nothing that identifies the owner."""
    for path, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if key is None:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.machine()
