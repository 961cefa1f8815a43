"""Build the engines of a whole bundle into the cache; where they run, self-test them and time them in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from msgspec import structs

from mmedge.bundle import Bundle, Variant, stage_order
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import BuildReport
from mmedge.engine.cache import Verdict
from mmedge.engine.reach import PLAIN, EngineOptions
from mmedge.engine.tensorrt_loader import PrecisionError
from mmedge.errors import BundleError, CheckError, ConfigError, EngineError
from mmedge.fusion.built import load_built
from mmedge.fusion.check import StandIn
from mmedge.fusion.doors import DOORS, Built
from mmedge.fusion.evidence import evidence_of
from mmedge.fusion.make import make_stage
from mmedge.fusion.placement import placements
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.weigh import CHOICE_BUDGET_S, CHOICE_RUNS, run_ms

Progress = Callable[[str, float], None]


class Compiled(NamedTuple):
    """What came of compiling a bundle.

    Attributes:
        engines: A row per engine that was built; ``serves`` is true for the one that a run would take, None where that
            was not tried.
        choices: A row per stage: which form serves, ``why``, and all its ``forms``: precision, file, run_ms, error, and
            whether it ``failed``, which a form that this device does not have has not.
    """

    engines: list[dict[str, Any]]
    choices: list[dict[str, Any]]


@dataclass(slots=True)
class _Form:
    variant: Variant
    built: Built | None = None
    stage: StageRunner | None = None
    run_ms: float | None = None
    error: EngineError | CheckError | BundleError | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None and not isinstance(self.error, PrecisionError)


def compile_bundle(
    bundle: Bundle,
    precision: str | None,
    progress: Progress,
    limits: BuildLimits | None = None,
    options: EngineOptions = PLAIN,
    place: Mapping[str, str] | None = None,
) -> Compiled:
    """Build every TensorRT variant of a bundle, or those of one precision.

    An engine in the cache that was built with less effort, since memory ran out, is built again.
    Where TensorRT runs, each engine answers its golden inputs before it is put into the cache, and all of a stage that
    pass are timed in turn, so that a run takes the fastest; one that fails is not put there. A precision that the
    device does not have, or that fails, leaves the choice to the others.

    Args:
        bundle: An open bundle.
        precision: Only this one.
        progress: Called with a message and a share 0..1.
        limits: Time and memory that a build may take.
        options: Where the engines are to run, besides here.
        place: Stage -> ``dla:CORE`` or ``sms:COUNT``, as a run has it.

    Returns:
        The engines, and what was chosen of them.

    Raises:
        ConfigError: If there is no such variant.
        EngineError: If none of a stage can be built.
    """
    chosen = [v for v in bundle.manifest.variants if v.target == "tensorrt"]
    if precision is not None:  # a stage that stays float has no variant of this precision, and its others serve
        own_stages = {v.stage for v in chosen if v.precision == precision}
        chosen = [v for v in chosen if own_stages and (v.precision == precision or v.stage not in own_stages)]
    if not chosen:
        raise ConfigError(
            f"no TensorRT variant of precision '{precision or 'any'}'",
            where=str(bundle.path),
            fix='export it with targets = ["cpu", "tensorrt"]',
        )
    placed = placements(bundle.manifest, place or {})
    problem = DOORS["tensorrt"].problem()
    anew = replace(limits or BuildLimits(), anew=True)
    found = Compiled([], [])
    upstream: dict[str, StageRunner] = {}
    done = 0
    for name in stage_order(bundle.manifest.stages):
        forms = [_Form(variant) for variant in chosen if variant.stage == name]
        own = placed.get(name, PLAIN)
        wanted = structs.replace(options, dla_core=own.dla_core, sms=own.sms, reserved=own.reserved)
        try:
            for form in forms:
                _build(bundle, form, upstream, progress, (done, len(chosen)), anew, wanted, problem)
                done += 1
            if forms and all(form.built is None for form in forms):
                error = next((form.error for form in forms if form.failed), forms[0].error)
                assert error is not None
                raise error
            _time(forms)
        finally:
            for form in forms:
                if form.stage is not None:
                    form.stage.close()
        if forms:
            engines, choice = _told(forms, problem)
            found.engines.extend(engines)
            found.choices.append(choice)
        upstream[name] = make_stage(bundle, name, StandIn(bundle, name, upstream, {}), upstream)
    return found


def _build(
    bundle: Bundle,
    form: _Form,
    upstream: dict[str, StageRunner],
    progress: Progress,
    place: tuple[int, int],
    limits: BuildLimits,
    options: EngineOptions,
    problem: str | None,
) -> None:
    """Build a form and, where it runs, load it as a run does: with its self-test."""

    def show(text: str, share: float) -> None:
        progress(f"{form.variant.file}: {text}", (place[0] + share) / place[1])

    def note(built: Built) -> None:
        form.built = built

    try:
        if problem is None:
            form.stage = load_built(
                *(bundle, form.variant.stage, upstream, "tensorrt", form.variant),
                progress=show,
                limits=limits,
                options=options,
                seen=note,
            )
        else:
            form.built = DOORS["tensorrt"].build(bundle, form.variant, show, limits, options)
            form.built.publish(None)
    except (EngineError, CheckError, BundleError) as error:
        form.error = error


def _time(forms: list[_Form]) -> None:
    """Time the forms that have passed, in turn, and note it for the choice of a run."""
    running = [(form, form.stage) for form in forms if form.stage is not None]
    if not running:
        return
    times = run_ms(*(stage for _, stage in running), runs=CHOICE_RUNS, budget_s=CHOICE_BUDGET_S)
    for (form, _), taken in zip(running, times, strict=True):
        assert form.built is not None
        form.run_ms = round(taken, 4)
        form.built.publish(Verdict(run_ms=form.run_ms))


def _told(forms: list[_Form], problem: str | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the engines of a stage, and of the choice among them."""
    timed = sorted((form.run_ms, place) for place, form in enumerate(forms) if form.run_ms is not None)
    best = forms[timed[0][1]] if timed else None
    engines = []
    for form in forms:
        if form.built is None:
            continue
        row = engine_row(form.variant.stage, form.variant.precision, form.built.build, form.built.plan_bytes)
        row |= {"cached": form.built.cached, "run_ms": form.run_ms, "serves": None if problem else form is best}
        row["error"] = None if form.error is None else form.error.message
        if form.stage is not None:
            row["evidence"] = evidence_of([form.stage.engine.backend])
            row["share"] = getattr(form.stage.engine, "share", None)  # of the multiprocessors: what it came to
        engines.append(row if problem is None else {**row, "not_run": problem})
    why = [f"{forms[place].variant.precision} {taken:.3f} ms" for taken, place in timed]
    why += [f"{form.variant.precision}: {form.error.message.splitlines()[0]}" for form in forms if form.error]
    if problem is not None:
        why.insert(0, f"not measured: {problem}")
    choice = {
        "stage": forms[0].variant.stage,
        "serves": None if best is None else best.variant.precision,
        "why": "; ".join(why),
        "forms": [
            {
                "precision": form.variant.precision,
                "file": form.variant.file,
                "run_ms": form.run_ms,
                "error": None if form.error is None else form.error.message,
                "failed": form.failed,
            }
            for form in forms
        ],
    }
    return engines, choice


def engine_row(stage: str, precision: str, build: BuildReport, plan_bytes: int) -> dict[str, Any]:
    """Return what is reported of one engine that was built and not run."""
    return {
        "stage": stage,
        "precision": precision,
        "module": build.module,
        "version": build.version,
        "compute_capability": build.compute_capability,
        "seconds": round(build.seconds, 1),
        "cached": False,
        "bytes": plan_bytes,
        "layers": build.layers,
        "int8_layers": build.int8_layers,
        "int8_coverage": round(build.int8_coverage, 3),
        "int8_nodes": list(build.int8_nodes),
        "float_nodes": list(build.float_nodes),
        "boundaries": list(build.boundaries),
        "fp16_layers": build.half_layers,
        "fp16_asked": build.half_asked,
        "reach": sorted(build.options.reach),
        "dla_core": build.options.dla_core,
        "dla_layers": list(build.dla_layers),
        "gpu_layers": list(build.gpu_layers),
        "share": None,
        "optimization_level": build.optimization_level,
        "typing": build.typing,
        "run_ms": None,
        "error": None,
        "evidence": "built-not-run",
    }
