"""Which form of a network is the fastest on this CPU: each is self-tested, and all that pass are timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import asdict, replace

from mmedge.bundle import Bundle, Variant, stage_order
from mmedge.engine.cpu_backends import library_version
from mmedge.engine.timings import Timed, Timings, keep_timings, kept_timings
from mmedge.errors import MmedgeError
from mmedge.fusion.check import StandIn
from mmedge.fusion.choice import measured_forms, timing_key
from mmedge.fusion.evidence import evidence_of
from mmedge.fusion.golden import self_test
from mmedge.fusion.load import make_network
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import Shapes
from mmedge.fusion.trial import Trial
from mmedge.fusion.weigh import CHOICE_BUDGET_S, CHOICE_RUNS, run_ms

_LIMIT_MS = 60_000.0
_TEXT = 500  # characters of an error
Progress = Callable[[str, float], None]


def measure_cpu(bundle: Bundle, progress: Progress, *, anew: bool = False) -> list[dict[str, Any]]:
    """Self-test and time the CPU forms of every stage of a bundle, and keep what came of it for ``backend: auto``.

    Args:
        bundle: An open bundle.
        progress: Called with a message and a share 0..1.
        anew: Measure again what was measured on this machine by these libraries.

    Returns:
        A row per stage with forms to choose from: stage, forms (backend, version, precision, file, run_ms, error,
        serves), why, cached, cpu, instructions. ``run_ms`` is the median of a run on one thread, all forms in turn.

    Raises:
        ConfigError: If it cannot be kept.
        MissingDependencyError: If ONNX Runtime is not installed.
    """
    rows: list[dict[str, Any]] = []
    trial = Trial(bundle)
    upstream: dict[str, StageRunner] = {}
    known: Shapes = {}
    names = stage_order(bundle.manifest.stages)
    for done, name in enumerate(names):
        forms = measured_forms(bundle, name) if bundle.manifest.stages[name].callable is None else []
        if len(forms) > 1:
            progress(f"stage '{name}' on the CPU", done / len(names))
            key = timing_key(bundle, name)
            timings = None if anew else kept_timings(key)
            cached = timings is not None
            if timings is None:
                timings = Timings(key=key, forms=tuple(_timed(bundle, name, upstream, forms, trial, known)))
                keep_timings(timings)
            rows.append(_row(name, timings, cached=cached))
        stand_in = StandIn(bundle, name, upstream, {})
        upstream[name] = make_stage(bundle, name, stand_in, upstream)
        known[name] = {n: (list(array.shape), array.dtype.name) for n, array in stand_in.outputs.items()}
    return rows


def _timed(
    bundle: Bundle,
    name: str,
    upstream: Mapping[str, StageRunner],
    forms: list[tuple[str, Variant]],
    trial: Trial,
    known: Shapes,
) -> list[Timed]:
    found: list[Timed] = []
    opened: list[tuple[int, StageRunner]] = []
    try:
        for backend, variant in forms:
            error = None
            try:
                trial.check(backend, variant, known)
                opened.append((len(found), _open(bundle, name, upstream, backend, variant)))
            except MmedgeError as failure:
                error = failure.message[:_TEXT]
            found.append(
                Timed(
                    backend=backend,
                    version=library_version(backend),
                    precision=variant.precision,
                    file=variant.file,
                    sha256=bundle.manifest.files[variant.file].sha256,
                    error=error,
                )
            )
        times = run_ms(*(stage for _, stage in opened), runs=CHOICE_RUNS, budget_s=CHOICE_BUDGET_S) if opened else []
    finally:
        for _, stage in opened:
            stage.close()
    for (place, _), taken in zip(opened, times, strict=True):
        found[place] = replace(found[place], run_ms=round(taken, 4))
    return found


def _open(
    bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], backend: str, variant: Variant
) -> StageRunner:
    engine = make_network(bundle, variant, upstream, f"{bundle.path}: {variant.file}", backend, keep=True)
    stage: StageRunner | None = None
    try:
        stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
        where = f"{variant.file} on {engine.backend}"
        self_test(stage, bundle.golden(variant.golden), variant.tolerance, where, rows=variant.row_tolerance)
        engine.limit(_LIMIT_MS)  # a run has one, and it may cost
    except BaseException:
        (stage or engine).close()
        raise
    return stage


def _row(name: str, timings: Timings, *, cached: bool) -> dict[str, Any]:
    first = timings.order[:1]
    return {
        "stage": name,
        "forms": [{**asdict(form), "serves": (place,) == first} for place, form in enumerate(timings.forms)],
        "why": timings.why(),
        "cached": cached,
        "cpu": timings.key.cpu,
        "instructions": list(timings.key.instructions),
        "threads": 1,
        "evidence": evidence_of(timings.forms[place].backend for place in first),
    }
