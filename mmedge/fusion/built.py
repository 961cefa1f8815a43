"""Load a stage on an engine that is built on the device: built once, self-tested at each load, a wrong one rebuilt."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mmedge.bundle import Bundle, Variant
from mmedge.engine.base import Engine
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.cache import Verdict
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.tensorrt_loader import PlanError
from mmedge.errors import BundleError, CheckError
from mmedge.fusion.doors import DOORS, Built, Progress
from mmedge.fusion.golden import self_test
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.weigh import run_ms

log = logging.getLogger("mmedge.fusion")


def load_built(
    bundle: Bundle,
    name: str,
    upstream: Mapping[str, StageRunner],
    backend: str,
    variant: Variant,
    *,
    progress: Progress | None = None,
    limits: BuildLimits | None = None,
    timed: bool = False,
) -> StageRunner:
    """Build a variant's engine or take it from its cache, load it, and run its golden self-test.

    An engine from the cache that is wrong (another network's, put there by hand; one of another device) is removed and
    built again. That one fails though it is new is remembered beside it; how long a run takes, too, if it is timed.

    Args:
        bundle: An open bundle.
        name: The stage.
        upstream: The stages it may be fed by.
        backend: A key of ``DOORS``.
        variant: What is to be built.
        progress: Called while it is built.
        limits: Time and memory that a build may take.
        timed: Measure how long a run takes, for the choice among precisions: where nothing else runs.

    Returns:
        The stage; the caller closes it.

    Raises:
        EngineError: If it cannot be built or loaded.
        CheckError: If it fails its self-test though it was built just now.
        BundleError: If its tensors are not those of the graph.
        DeviceError: If it cannot run here.
    """
    door = DOORS[backend]
    built = door.build(bundle, variant, progress, limits)
    try:
        return _tested(bundle, name, upstream, variant, built, timed)
    except (PlanError, CheckError, BundleError) as error:
        if not built.cached:
            raise
        log.warning("stage '%s': the engine in the cache is wrong, building it again: %s", name, error.message)
        built.discard()
    return _tested(bundle, name, upstream, variant, door.build(bundle, variant, progress, limits), timed)


def _tested(
    bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], variant: Variant, built: Built, timed: bool
) -> StageRunner:
    engine: Engine = built.open()
    stage: StageRunner | None = None
    try:
        stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
        stage.file = variant.file
        where = f"{variant.file} on {engine.backend}"
        golden = bundle.golden(variant.golden)
        worst = self_test(stage, golden, variant.tolerance, where, rows=variant.row_tolerance)
        if isinstance(engine, OnnxRuntimeEngine):
            engine.limit(stage.spec.timeout_ms)
    except BaseException as error:
        (stage or engine).close()
        if isinstance(error, CheckError) and not built.cached:
            built.note(Verdict(error=error.message))
        raise
    if timed:
        built.note(Verdict(run_ms=round(run_ms(stage)[0], 4)))
    log.info("stage '%s': %s, self-test at %.0f %% of tolerance", name, where, 100 * worst)
    return stage
