"""From a bundle to a running graph: choose a variant and a backend for each stage, build, self-test.

The next candidate is tried when one cannot be built, loaded or fails its self-test; each step is logged, so
a wrong engine never serves and nothing falls back in silence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mmedge.bundle import Bundle, Variant, stage_order, unused_stages
from mmedge.bundle.onnx_file import weights_member
from mmedge.engine.cpu_backends import CPU_BACKENDS, load_on_cpu
from mmedge.engine.cpu_engine import CpuEngine
from mmedge.engine.prepared import LEAST_BYTES, discard_prepared
from mmedge.errors import BundleError, CheckError, ConfigError, EngineError, MissingDependencyError
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.choice import serving
from mmedge.fusion.consent import Consent, check_consent
from mmedge.fusion.doors import DOORS
from mmedge.fusion.golden import self_test
from mmedge.fusion.graph import StageGraph
from mmedge.fusion.make import make_stage
from mmedge.fusion.rules import LISTED
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import Shapes, array_of, constants, fill, input_shapes, output_shapes, tensor_specs
from mmedge.fusion.trial import Trial
from mmedge.fusion.unfed import make_unfed, unfed_stages
from mmedge.types import AnyArray

if TYPE_CHECKING:
    from mmedge.engine.reach import EngineOptions
    from mmedge.fusion.upgrade import Pending
    from mmedge.fusion.weigh import Weight

log = logging.getLogger("mmedge.fusion")
Progress = Callable[[str, float], None]
_SLOWER = 10.0  # than its whole self-test took here a run may be, whatever its timeout_ms is


def load_graph(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: str | None = None,
    progress: Progress | None = None,
    patience: float = 1.0,
    allow: Sequence[str] = (),
    wait: bool = True,
    kept: Mapping[str, StageRunner] | None = None,
    fed: Collection[str] | None = None,
    place: Mapping[str, str] | None = None,
) -> StageGraph:
    """Build, load and self-test every stage of a bundle.

    Args:
        bundle: An open bundle.
        backend: ``auto``, or one of ``mmedge.types.Backend``.
        precision: Only this precision.
        progress: Called with a message and a share 0..1 while engines are built.
        patience: Stages may take this many times ``timeout_ms`` before they have failed.
        allow: Modules whose functions the bundle may call (``mmedge.fusion.consent``).
        wait: Wait for engines that must be built first. Otherwise a stage takes the best one that is there, and
            ``pending`` of the graph says what is to be built for it (``mmedge.fusion.upgrade``).
        kept: Stages of another graph that take the places of those of their names (``mmedge.fusion.kept``); they are
            not touched, and stay open if loading fails.
        fed: The inputs that the run has; a stage that none of them reaches is not loaded (``mmedge.fusion.unfed``).
            None loads all.
        place: Stage -> ``dla:CORE`` or ``sms:COUNT`` (``mmedge.fusion.placement``); such a stage runs on TensorRT.

    Returns:
        The graph; the caller closes it.

    Raises:
        EngineError: If no candidate of a stage works; lists what was tried.
        ConfigError: If there is no variant for this backend and precision, or the bundle calls what was not allowed.
        DeviceError: If ``tensorrt`` was asked for and cannot run here.
    """
    kept = kept or {}
    stages: dict[str, StageRunner] = {}
    consent = Consent(allow, bundle.path)
    check_consent(bundle.manifest, consent)
    unused = unused_stages(bundle.manifest)
    if unused:
        log.warning("no task uses the outputs of stage %s: leave it out of the bundle", ", ".join(map(repr, unused)))
    trial = Trial(bundle)
    unfed = () if fed is None else unfed_stages(bundle.manifest, fed)
    left_out = {*kept, *unfed}
    placed: Mapping[str, EngineOptions] = {}
    if place:
        from mmedge.fusion.placement import placements  # a run without loads none of it

        placed = placements(bundle.manifest, place)
    served = serving(bundle, backend, precision, placed=placed)
    choices = {name: found for name, found in served.items() if name not in left_out}
    pending = [] if wait else _postpone(bundle, choices, placed)
    trial.prepare([found[0] for found in choices.values() if found and found[0][0] in CPU_BACKENDS])
    try:
        for name in stage_order(bundle.manifest.stages):
            if name in kept:
                stages[name] = kept[name]
            elif name in unfed:
                stages[name] = make_unfed(bundle, name, stages)
            elif bundle.manifest.stages[name].callable is not None:
                engine = make_callable(bundle, name, stages, consent, patience=patience)
                stages[name] = make_stage(bundle, name, engine, stages)
            else:
                asked = (backend, precision)
                options = placed.get(name)
                stages[name] = _load_network(
                    bundle, name, stages, choices[name], trial, progress, asked, patience, options
                )
        if precision not in (None, "fp32", "fp16"):
            _weigh(bundle, stages, trial, precision, stages.keys() - kept.keys())
    except BaseException:
        for name in stages.keys() - kept.keys():
            stages[name].close()
        raise
    graph = StageGraph(list(stages.values()))
    graph.pending = pending
    return graph


def _postpone(
    bundle: Bundle, choices: dict[str, list[tuple[str, Variant]]], placed: Mapping[str, EngineOptions]
) -> list[Pending]:
    """Move what must be built first behind what is there at once, as a last resort, and return it."""
    pending: list[Pending] = []
    for stage, found in choices.items():
        there = [(b, v) for b, v in found if b not in DOORS or DOORS[b].find(bundle, v, placed.get(stage)).built]
        if there and there[0] != found[0]:
            from mmedge.fusion.upgrade import Pending

            better = found[: found.index(there[0])]
            pending.append(Pending(stage=stage, choices=better, options=placed.get(stage)))
            choices[stage] = [*there, *better]
    return pending


def _load_network(
    bundle: Bundle,
    name: str,
    upstream: dict[str, StageRunner],
    choices: list[tuple[str, Variant]],
    trial: Trial,
    progress: Progress | None,
    asked: tuple[str, str | None],
    patience: float,
    options: EngineOptions | None,
) -> StageRunner:
    if not choices:
        backend, precision = asked
        raise ConfigError(
            f"stage '{name}' has no variant for backend '{backend}' and precision '{precision or 'any'}'",
            where=f"{bundle.path}",
            fix=f"it has {sorted({f'{v.target} {v.precision}' for v in bundle.manifest.variants if v.stage == name})}",
        )
    tried: list[str] = []
    first: Exception | None = None
    for choice, variant in choices:
        try:
            return _try(bundle, name, upstream, choice, variant, trial, progress, patience, options)
        except (EngineError, CheckError, MissingDependencyError) as error:
            log.warning("stage '%s': %s %s is not used: %s", name, choice, variant.precision, error.message)
            tried.append(f"{choice} {variant.precision}: {error.message}")
            first = first or error
    if first is not None and len({variant.file for _, variant in choices}) == 1:
        raise first  # of one file, another back end says the same
    raise EngineError(
        f"no engine of stage '{name}' passes its self-test",
        where="; ".join(tried),
        fix="run `mmedge doctor` and `mmedge verify`",
    ) from first


def _try(
    bundle: Bundle,
    name: str,
    upstream: dict[str, StageRunner],
    backend: str,
    variant: Variant,
    trial: Trial,
    progress: Progress | None,
    patience: float,
    options: EngineOptions | None,
    *,
    keep: bool = True,
) -> StageRunner:
    if backend in DOORS:
        from mmedge.fusion.built import load_built

        return load_built(bundle, name, upstream, backend, variant, progress=progress, options=options)
    trial.check(backend, variant, _shapes(upstream))
    engine = make_network(bundle, variant, upstream, f"{bundle.path}: {variant.file}", backend, keep=keep)
    stage: StageRunner | None = None
    try:
        stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
        stage.file = variant.file
        golden = bundle.golden(variant.golden)
        before = time.monotonic()
        where = f"{variant.file} on {engine.backend}"
        worst = self_test(stage, golden, variant.tolerance, where, rows=variant.row_tolerance)
        stage.tested_ms = 1000 * (time.monotonic() - before)
        engine.limit(patience * max(stage.plan.timeout_ms, _SLOWER * stage.tested_ms))
    except BaseException as error:
        (stage or engine).close()
        if engine.prepared is None or not isinstance(error, (CheckError, BundleError)):
            raise
        log.warning("stage '%s': what was prepared is wrong, it is made again: %s", name, error.message)
        is_gone = discard_prepared(engine.prepared)
        return _try(bundle, name, upstream, backend, variant, trial, progress, patience, options, keep=is_gone)
    log.info("stage '%s': %s %s, self-test at %.0f %% of tolerance", name, backend, variant.precision, 100 * worst)
    return stage


def _shapes(stages: Mapping[str, StageRunner]) -> Shapes:
    return {
        name: {output: (list(array.shape), array.dtype.name) for output, array in stage.engine.outputs.items()}
        for name, stage in stages.items()
    }


def _weigh(
    bundle: Bundle, stages: dict[str, StageRunner], trial: Trial, precision: str, loaded: Collection[str]
) -> None:
    """Say what a precision that was asked for costs on this CPU beside FP32: INT8 is faster on some alone."""
    from mmedge.fusion.weigh import describe, weigh

    weighed: list[Weight] = []
    simulated = False
    for name, stage in stages.items():
        if name not in loaded:
            continue
        plain = next((v for v in bundle.variants(name, "cpu") if v.precision == "fp32"), None)
        if stage.engine.backend not in CPU_BACKENDS or plain is None or plain.file == stage.file:
            continue
        simulated |= not any(v.precision == precision for v in bundle.variants(name, "cpu"))
        trial.check(stage.engine.backend, plain, _shapes(stages))
        engine = make_network(bundle, plain, stages, plain.file, stage.engine.backend, keep=True)
        other = make_stage(bundle, name, engine, stages)
        try:
            weighed.append(weigh(stage, other, bundle.golden(plain.golden)))
        finally:
            other.close()
    if weighed and (text := describe(weighed, precision, simulated=simulated)) is not None:
        log.warning("%s", text)


def make_callable(
    bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], consent: Consent, *, patience: float = 1.0
) -> CallableEngine:
    """Return the engine of a stage that is a rule instead of a network; the SDK's own rules need no thread."""
    spec = bundle.manifest.stages[name]
    assert spec.callable is not None
    fed = tensor_specs(spec, bundle.inputs, partial(array_of, upstream))
    return CallableEngine(
        spec.callable,
        {tensor: shape for tensor, (shape, _) in fed.items()},
        output_shapes(spec),
        dtypes={tensor: dtype for tensor, (_, dtype) in fed.items()},
        timeout_ms=None if spec.callable in LISTED else spec.timeout_ms * patience,
        stage=name,
        consent=consent,
    )


def make_network(
    bundle: Bundle,
    variant: Variant,
    upstream: Mapping[str, StageRunner],
    where: str,
    backend: str = "onnxruntime",
    *,
    keep: bool = False,
) -> CpuEngine:
    """Return a variant on a backend for CPUs; the graph's shapes are those of its dynamic dimensions.

    A CPU variant serves, on 8-bit kernels where it has them; TensorRT's is simulated as written. ``keep``: use what was
    prepared of a large one before, or keep it for the next time.

    Raises:
        BundleError: If a constant does not fit into its tensor.
        EngineError: If the network cannot be loaded.
    """
    spec = bundle.manifest.stages[variant.stage]
    raw = variant.target == "tensorrt"
    shapes = input_shapes(spec, bundle.inputs, partial(array_of, upstream), raw=raw)
    numbers = constants(spec)

    def read() -> tuple[bytes, Mapping[str, AnyArray]]:
        content = bundle.read(variant.file)
        return content, bundle.weights(variant.file, content)

    file = bundle.manifest.files[variant.file]
    outside = weights_member(variant.file) in bundle.manifest.files
    kept = keep and not raw and not outside and file.bytes >= LEAST_BYTES
    sha256 = file.sha256 if kept else None
    load = partial(load_on_cpu, backend, read, name=where, shapes=shapes, as_written=raw, sha256=sha256)
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused when its stage fills it
            return load(constants=numbers)
    except OverflowError:  # it does not say which: the engine's own tensors do
        with load(constants={}) as engine:
            for tensor in numbers.keys() & engine.inputs.keys():
                fill(engine.inputs[tensor], numbers[tensor], f"manifest.json: $.stages.{variant.stage}.inputs.{tensor}")
        raise
