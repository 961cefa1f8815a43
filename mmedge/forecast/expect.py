"""The forecast of a run: what each part takes, what binds, whether rate and memory are held; nothing is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import Variant
from mmedge.bundle.onnx_file import weights_member
from mmedge.engine.memory import available_bytes
from mmedge.errors import ConfigError
from mmedge.forecast.boards import board_of, desktop, known_boards
from mmedge.forecast.memory import Part, memory_of
from mmedge.forecast.scale import by_work, from_board, nearest
from mmedge.forecast.span import Span, added
from mmedge.forecast.times import Kept, Measured, kept_here, span_of
from mmedge.forecast.trigger import period_ns, shares, waiting
from mmedge.plan import StagePlan, make_plan
from mmedge.types import TENSORRT_ORDER, Latency

SCHEMA = "mmedge.forecast/1"
HERE = "this machine"


class Sources(NamedTuple):
    """What a forecast may rest on, beside what is public.

    Attributes:
        machine: What this machine says it is; only needed beside documents or another device.
        measured: Documents of ``mmedge bench``, of this bundle.
        gmacs: Stage -> multiply-adds of its network in 10^9, as far as they were counted.
    """

    machine: str = ""
    measured: Sequence[Measured] = ()
    gmacs: Mapping[str, float] = {}


class Step(NamedTuple):
    """A part of a trigger's way.

    Attributes:
        name: Of the part.
        kind: What it is.
        span: What it takes; None: not known.
        share: How often it runs, a trigger.
        background: Whether triggers do not wait for it.
        how: How it is known.
    """

    name: str
    kind: Literal["waiting", "stage", "runtime"]
    span: Span | None
    share: float
    background: bool
    how: str


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is to be expected to take.

    Attributes:
        bundle: Its name.
        manifest_sha256: Hash of its manifest.
        device: Short name of the board, or ``this machine``.
        rate_hz: Triggers a second.
        steps: Parts of a trigger's way.
        memory: What takes memory.
        memory_bytes: What there is.
    """

    bundle: str
    manifest_sha256: str
    device: str
    rate_hz: float
    steps: tuple[Step, ...]
    memory: tuple[Part, ...]
    memory_bytes: int | None

    @property
    def end_to_end(self) -> Span:
        """Of a typical trigger, without the delay of the sources; open where a part of it is not known."""
        return added(Span(0.0) if step.span is None else step.span for step in self.typical)

    @property
    def busy(self) -> Span:
        """What a trigger keeps the executor busy for, on average; open where a part of it is not known."""
        return added(Span(0.0) if s.span is None else s.span.times(s.share) for s in self.steps if s.kind != "waiting")

    @property
    def needed_bytes(self) -> int:
        """Memory that is needed at least."""
        return sum(part.size_bytes or 0 for part in self.memory)

    @property
    def engines(self) -> Span:
        """What the networks of a typical trigger take together; open where one of them is not known."""
        return added(Span(0.0) if s.span is None else s.span for s in self.typical if s.kind == "stage")

    @property
    def typical(self) -> list[Step]:
        """The steps of a typical trigger: those that it waits for, at every second one or more often."""
        return [step for step in self.steps if not step.background and step.share >= 0.5]

    @property
    def binds(self) -> str:
        """The step that limits the rate: what takes most of a trigger, on average; '' where no time is known."""
        known = {
            s.name: s.span.middle * s.share for s in self.steps if s.kind != "waiting" and s.span and s.span.middle
        }
        return max(known, key=known.__getitem__, default="")

    @property
    def unknown(self) -> list[str]:
        """Steps of which nothing is known."""
        return [step.name for step in self.steps if step.span is None]

    @property
    def rate_problem(self) -> str | None:
        """Why the run cannot hold its rate, or may not; None if nothing speaks against it."""
        busy, period_ms = self.busy, 1000 / self.rate_hz
        if busy.low <= period_ms and (busy.high is None or busy.high <= period_ms):
            return None
        most = f", most of it '{self.binds}'" if self.binds else ""
        can = "cannot" if busy.low > period_ms else "may not"
        return (
            f"it {can} hold {self.rate_hz:.4g} triggers a second on {self.device}: each takes {busy.told()}"
            f"{most}, and comes every {period_ms:.3g} ms"
        )

    @property
    def memory_problem(self) -> str | None:
        """Why the run does not fit into the memory; None if nothing speaks against it."""
        # What is free on this machine is free beside its system; of a board all that it has is known.
        board = None if self.device == HERE else known_boards().get(self.device)
        is_all = board is not None and self.memory_bytes == round(board.memory_gb * 1e9)
        own = round(desktop().gb * 1e9) if is_all else 0
        if self.memory_bytes is None or self.needed_bytes <= self.memory_bytes - own:
            return None
        beside = "" if self.needed_bytes > self.memory_bytes else f", of which a desktop takes up to {own / 1e9:.2f} GB"
        return (
            f"it does not fit into the memory of {self.device}: it needs {self.needed_bytes / 1e9:.2f} GB at least, "
            f"and there are {self.memory_bytes / 1e9:.2f} GB{beside}"
        )

    @property
    def problems(self) -> list[str]:
        """Both."""
        return [problem for problem in (self.rate_problem, self.memory_problem) if problem is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the document of schema ``mmedge.forecast/1``; times in ms."""
        return {
            "schema": SCHEMA,
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "device": self.device,
            "rate_hz": round(self.rate_hz, 3),
            "end_to_end_ms": _rounded(self.end_to_end),
            "engines_ms": _rounded(self.engines),
            "steps": [
                {
                    "name": step.name,
                    "kind": step.kind,
                    "ms": None if step.span is None else _rounded(step.span),
                    "share": round(step.share, 4),
                    "background": step.background,
                    "how": step.how,
                }
                for step in self.steps
            ],
            "binds": self.binds or None,
            "unknown": self.unknown,
            "memory": [part._asdict() for part in self.memory],
            "memory_bytes": self.memory_bytes,
            "problems": self.problems,
        }


def expect(
    bundle: Bundle,
    sources: Sources,
    *,
    device: str | None = None,
    fps: float = 30.0,
    block_ms: float = 10.0,
    latency: Latency = "balanced",
    inputs: Sequence[str] = (),
) -> Forecast:
    """Return what a run of a bundle is to be expected to take.

    A network's time is what was measured on the device; else it is scaled from where it was measured, or from its
    work, with an interval that is as wide as the same was wrong for networks whose times are public; else it is not
    known, and said to be.

    Args:
        bundle: An open bundle.
        sources: What it may rest on.
        device: Short name of a board; None: this machine.
        fps: Rate of pictures.
        block_ms: Length of a block of sound.
        latency: As of the run.
        inputs: Those that have a source; all, if left out.

    Raises:
        ConfigError: If the rate or the length of a block is none.

    Example:
        >>> expect(bundle, Sources("AMD EPYC"), device="orin-nano").end_to_end  # doctest: +SKIP
        Span(low=0.0, middle=None, high=None)
    """
    for name, value, least, most in (("fps", fps, 0.001, 1000), ("block_ms", block_ms, 0.001, 1000)):
        if not least <= value <= most:
            raise ConfigError(f"{name} must be {least} to {most}, got {value:g}", where=name, fix="correct it")
    attached = dict.fromkeys(inputs or bundle.inputs, latency != "offline")
    plan = make_plan(bundle.manifest, attached, latency=latency, manifest_sha256=bundle.manifest_sha256)
    target = board_of(sources.machine) if device is None else device
    is_here = device is None or device == board_of(sources.machine)
    often = shares(plan, fps)
    wait, why = waiting(plan, fps, block_ms)
    networks = [stage.name for stage in plan.stages if stage.calls is None]
    kept = {name: found for name in networks if is_here and (found := kept_here(bundle, name)) is not None}
    serve = {name: kept[name].variant if name in kept else _serves(bundle, name, is_here=is_here) for name in networks}
    variants = {name: variant for name, variant in serve.items() if variant is not None}
    own = [m for m in sources.measured if _is_of(m, target, sources.machine)]
    steps = [Step("waiting for the other inputs", "waiting", wait, 1.0, False, why)]
    for stage in plan.stages:
        span, how = _stage_time(stage, own, kept, target, sources, variants)
        steps.append(Step(stage.name, "stage", span, often[stage.name], stage.background, how))
    runtime = next((m.runtime(alone=wait.high == 0) for m in own), None)
    where = "measured on it" if runtime is not None else "not measured on it: --measured takes a report of `bench`"
    steps.append(Step("the runtime, tensors included", "runtime", runtime, 1.0, False, where))
    memory = memory_of(
        bundle, plan, variants.values(), fps, next((m.memory_bytes for m in own), None), device or sources.machine
    )
    there = available_bytes() if is_here or device is None else round(known_boards()[device].memory_gb * 1e9)
    return Forecast(
        bundle=bundle.name,
        manifest_sha256=bundle.manifest_sha256,
        device=device or HERE,
        rate_hz=1e9 / period_ns(plan, fps),
        steps=tuple(steps),
        memory=tuple(memory),
        memory_bytes=there,
    )


def _is_of(measured: Measured, target: str | None, machine: str) -> bool:
    own = board_of(measured.conditions.machine)
    return own == target if target is not None else measured.conditions.machine == machine


def tensorrt_file(bundle: Bundle, stage: str) -> Variant | None:
    """Return the file of a stage that a board with TensorRT takes first; None of a function, or where there is none."""
    if bundle.manifest.stages[stage].callable is not None:
        return None
    return min(bundle.variants(stage, "tensorrt"), key=lambda v: TENSORRT_ORDER.index(v.precision), default=None)


def counted_gmacs(bundle: Bundle, count: Callable[[bytes], int | None]) -> dict[str, float]:
    """Return the multiply-adds of each network that a board would run, in 10^9.

    Args:
        bundle: An open bundle; networks whose weights lie outside are left out, as they are too large for this.
        count: Counts those of an ONNX file; None: not known.
    """
    found: dict[str, float] = {}
    for stage in bundle.manifest.stages:
        variant = tensorrt_file(bundle, stage)
        if variant is None or weights_member(variant.file) in bundle.manifest.files:
            continue
        counted = count(bundle.read(variant.file))
        if counted is not None:
            found[stage] = counted / 1e9
    return found


def _serves(bundle: Bundle, stage: str, *, is_here: bool) -> Variant | None:
    forms = bundle.variants(stage, "cpu") if is_here else []
    plain = (variant for variant in forms if variant.precision == "fp32")  # what serves where nothing was timed
    return next(plain, None) or next(iter(forms), None) or tensorrt_file(bundle, stage)


def _stage_time(
    stage: StagePlan,
    own: Sequence[Measured],
    kept: Mapping[str, Kept],
    target: str | None,
    sources: Sources,
    variants: Mapping[str, Variant],
) -> tuple[Span | None, str]:
    for measured in own:
        found = measured.stages_ms.get(stage.name)
        span = None if found is None else span_of(found.engine)
        if span is not None:
            return span, f"measured on it ({measured.evidence})"
    if stage.calls is not None:
        return None, "a function; its time is not known before it runs"
    if stage.name in kept:
        _, form, ms = kept[stage.name]
        # Runs in a row find everything in the caches; at a rate, with other work between, they do not.
        return Span(ms, ms), f"timed on it alone, one run after the other, {form}: at a rate it takes longer"
    if target is None:
        return None, "not measured on this machine: mmedge compile BUNDLE"
    if stage.name not in variants:
        return None, "the bundle has no TensorRT file of it"
    elsewhere: dict[str, float] = {}
    for measured in sources.measured:
        board, engine = board_of(measured.conditions.machine), measured.stages_ms.get(stage.name)
        on_gpu = measured.conditions.backends.get(stage.name, "").startswith("tensorrt")
        if on_gpu and board is not None and engine is not None and engine.engine.p50:
            elsewhere[board] = engine.engine.p50
    origin = nearest(elsewhere, target)
    if origin is not None:
        return from_board(elsewhere[origin], origin, target)
    if stage.name in sources.gmacs:
        told = by_work(sources.gmacs[stage.name], variants[stage.name].precision, target)
        if told is not None:
            return told
        return None, f"not known: its work, {sources.gmacs[stage.name]:.3g} GMAC, is beyond what is public of networks"
    return None, "not measured on a board, and its work is not counted"


def _rounded(span: Span) -> list[float | None]:
    return [None if value is None else round(value, 3) for value in (span.low, span.middle, span.high)]
