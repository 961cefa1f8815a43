"""Build the engines of a whole bundle into the cache; where they run, self-test and time them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mmedge.bundle import Bundle, Variant, stage_order
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.compile import CompiledEngine
from mmedge.engine.reach import PLAIN, EngineOptions
from mmedge.errors import CheckError, ConfigError, MmedgeError
from mmedge.fusion.built import load_built
from mmedge.fusion.check import StandIn
from mmedge.fusion.doors import DOORS, Built, BuiltPlan
from mmedge.fusion.evidence import evidence_of
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner

Progress = Callable[[str, float], None]


def compile_bundle(
    bundle: Bundle,
    precision: str | None,
    progress: Progress,
    limits: BuildLimits | None = None,
    options: EngineOptions = PLAIN,
) -> list[dict[str, Any]]:
    """Build every TensorRT variant of a bundle, or those of one precision.

    An engine in the cache that was built with less effort, since memory ran out, is built again.
    Where TensorRT runs, each engine answers its golden inputs and is timed before it is put into the cache, with what
    came of it, so that a run takes the fastest that passes; one that fails is not put there.

    Args:
        bundle: An open bundle.
        precision: Only this one.
        progress: Called with a message and a share 0..1.
        limits: Time and memory that a build may take.
        options: Where the engines are to run, besides here.

    Returns:
        One row per engine; ``serves`` is true for the one that a run would take, None where that was not tried.

    Raises:
        ConfigError: If there is no such variant.
        EngineError: If one cannot be built.
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
    door = DOORS["tensorrt"]
    anew = replace(limits or BuildLimits(), anew=True)
    rows: list[dict[str, Any]] = []
    problem = door.problem()
    upstream: dict[str, StageRunner] = {}
    for name in stage_order(bundle.manifest.stages):
        own: list[dict[str, Any]] = []
        for variant in (v for v in chosen if v.stage == name):
            done = len(rows) + len(own)

            def show(text: str, share: float, done: int = done, file: str = variant.file) -> None:
                progress(f"{file}: {text}", (done + share) / len(chosen))

            if problem is None:
                own.append(_tried(bundle, variant, upstream, show, anew, options))
            else:
                built = door.build(bundle, variant, show, anew, options)
                built.publish(None)
                own.append({**_row(variant, built), "not_run": problem})
        passed = [row for row in own if row["run_ms"] is not None]
        for row in own:
            row["serves"] = None if problem is not None else bool(passed) and row is min(passed, key=_run_ms)
        rows += own
        upstream[name] = make_stage(bundle, name, StandIn(bundle, name, upstream, {}), upstream)
    return rows


def _run_ms(row: dict[str, Any]) -> float:
    return float(row["run_ms"])


def _tried(
    bundle: Bundle,
    variant: Variant,
    upstream: dict[str, StageRunner],
    progress: Progress,
    limits: BuildLimits,
    options: EngineOptions,
) -> dict[str, Any]:
    """Return what came of building and running an engine: it is loaded as a run loads it.

    Raises:
        MmedgeError: If it cannot be built at all.
    """
    seen: list[Built] = []
    try:
        stage = load_built(
            *(bundle, variant.stage, upstream, "tensorrt", variant),
            progress=progress,
            limits=limits,
            timed=True,
            options=options,
            seen=seen.append,
        )
    except (CheckError, MmedgeError) as error:
        if not seen:
            raise
        return {**_row(variant, seen[-1]), "error": error.message}
    try:
        found = DOORS["tensorrt"].find(bundle, variant, options)
        run_ms = None if found.verdict is None else found.verdict.run_ms
        return {**_row(variant, seen[-1]), "run_ms": run_ms, "evidence": evidence_of([stage.engine.backend])}
    finally:
        stage.close()


def _row(variant: Variant, built: Built) -> dict[str, Any]:
    assert isinstance(built, BuiltPlan)
    return engine_row(variant.stage, variant.precision, built.compiled)


def engine_row(stage: str, precision: str, compiled: CompiledEngine) -> dict[str, Any]:
    """Return what is reported of one engine."""
    build = compiled.build
    return {
        "stage": stage,
        "precision": precision,
        "module": build.module,
        "version": build.version,
        "compute_capability": build.compute_capability,
        "seconds": round(build.seconds, 1),
        "cached": compiled.cached,
        "bytes": compiled.plan_bytes,
        "layers": build.layers,
        "int8_layers": build.int8_layers,
        "int8_coverage": round(build.int8_coverage, 3),
        "int8_nodes": list(build.int8_nodes),
        "float_nodes": list(build.float_nodes),
        "boundaries": list(build.boundaries),
        "reach": sorted(build.options.reach),
        "dla_core": build.options.dla_core,
        "dla_layers": list(build.dla_layers),
        "gpu_layers": list(build.gpu_layers),
        "fp16_layers": [build.half_layers, build.half_asked],
        "optimization_level": build.optimization_level,
        "typing": build.typing,
        "run_ms": None,
        "error": None,
        "evidence": compiled.evidence,
    }
