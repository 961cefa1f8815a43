"""Load a stage on an engine that is built on the device: built once, self-tested at each load, a wrong one rebuilt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mmedge.bundle import Bundle, Variant
from mmedge.engine.base import Engine
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.cache import Verdict
from mmedge.engine.cpu_engine import CpuEngine
from mmedge.engine.tensorrt_loader import PlanError
from mmedge.errors import BundleError, CheckError, DeviceError, MissingDependencyError
from mmedge.fusion.doors import DOORS, Built, Progress
from mmedge.fusion.golden import self_test
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner

if TYPE_CHECKING:
    from mmedge.engine.reach import EngineOptions

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
    options: EngineOptions | None = None,
    seen: Callable[[Built], None] = lambda built: None,
) -> StageRunner:
    """Build a variant's engine or take it from its cache, load it, and run its golden self-test.

    What is built is published in the cache once it has passed, or if it cannot run here at all. That one fails though
    it is new is remembered without it. An engine from the cache that is wrong (another network's, put there by hand;
    one of another device) is removed and built again.

    Args:
        bundle: An open bundle.
        name: The stage.
        upstream: The stages it may be fed by.
        backend: A key of ``DOORS``.
        variant: What is to be built.
        progress: Called while it is built.
        limits: Time and memory that a build may take.
        options: Where it is to run, beside what its file says.
        seen: Called with each engine before it is loaded.

    Returns:
        The stage; the caller closes it.

    Raises:
        EngineError: If it cannot be built or loaded.
        CheckError: If it fails its self-test though it was built just now.
        BundleError: If its tensors are not those of the graph.
        DeviceError: If it cannot run here.
    """
    door = DOORS[backend]
    built = door.build(bundle, variant, progress, limits, options)
    seen(built)
    try:
        return _tested(bundle, name, upstream, variant, built)
    except (PlanError, CheckError, BundleError) as error:
        if not built.cached:
            raise
        log.warning("stage '%s': the engine in the cache is wrong, building it again: %s", name, error.message)
        built.discard()
    built = door.build(bundle, variant, progress, limits, options)
    seen(built)
    return _tested(bundle, name, upstream, variant, built)


def _tested(
    bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], variant: Variant, built: Built
) -> StageRunner:
    try:
        engine: Engine = built.open()
    except (DeviceError, MissingDependencyError):  # nothing can test it here, and it is not built in vain again
        built.publish(None)
        raise
    stage: StageRunner | None = None
    try:
        stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
        stage.file = variant.file
        where = f"{variant.file} on {engine.backend}"
        golden = bundle.golden(variant.golden)
        before = time.monotonic()
        worst = self_test(stage, golden, variant.tolerance, where, rows=variant.row_tolerance)
        stage.tested_ms = 1000 * (time.monotonic() - before)
        if isinstance(engine, CpuEngine):
            engine.limit(stage.plan.timeout_ms)
        built.publish(None)
    except BaseException as error:
        (stage or engine).close()
        if isinstance(error, (CheckError, BundleError)) and not built.cached:
            built.refuse(Verdict(error=error.message))
        raise
    log.info("stage '%s': %s, self-test at %.0f %% of tolerance", name, where, 100 * worst)
    return stage
