"""Which file of a stage serves on which backend and in which precision, and what runs where that is not there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmedge.bundle import Bundle, Variant
from mmedge.engine.cpu_backends import CPU_BACKENDS, installed_backends, library_version
from mmedge.engine.ort_providers import PROVIDERS, provider_problem, usable_providers
from mmedge.engine.timings import TimingKey, kept_timings
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError
from mmedge.fusion.doors import DOORS, variant_shapes
from mmedge.types import TENSORRT_ORDER

if TYPE_CHECKING:
    from mmedge.engine.reach import EngineOptions

log = logging.getLogger("mmedge.fusion")


def tensorrt_problem() -> str | None:
    """Say why engines cannot run on TensorRT here; None when they can."""
    return DOORS["tensorrt"].problem()


def candidates(
    bundle: Bundle, stage: str, backend: str, precision: str | None, options: EngineOptions | None = None
) -> list[tuple[str, Variant]]:
    """Return what may serve a stage, best first: (backend, variant). One that has a place is served by TensorRT alone.

    TensorRT takes INT8 before FP8, INT4, FP16 and FP32, or the fastest first once all of them were timed on this
    device; none that has failed its self-test here. Of CPU files FP32 comes before INT8, ONNX Runtime before OpenVINO;
    ``auto`` takes the fastest first, once ``mmedge compile`` has measured them on this machine. TensorRT's files ONNX
    Runtime runs only when the precision asked for exists in no CPU file (Q/DQ in float, exactly as written).
    """
    placed = options is not None and options.is_placed
    if placed and backend not in ("auto", "tensorrt"):
        fix = "use backend 'auto' or 'tensorrt'"
        raise ConfigError(f"stage '{stage}' has a place, and '{backend}' has none to give", where="place", fix=fix)
    order = {kind: place for place, kind in enumerate(TENSORRT_ORDER)}
    found: list[tuple[str, Variant]] = []
    if backend in ("auto", "tensorrt"):
        problem = tensorrt_problem()
        if problem is None:
            variants = sorted(bundle.variants(stage, "tensorrt"), key=lambda v: order[v.precision])
            found += [("tensorrt", v) for v in _by_verdict(bundle, variants, options)]
        elif placed:
            fix = f"leave the place of stage '{stage}' out"
            raise DeviceError(f"TensorRT cannot run here: {problem}", where="place", fix=fix)
        elif backend == "tensorrt":
            raise DeviceError(
                f"TensorRT cannot run here: {problem}", where="backend", fix="use backend 'auto' or 'onnxruntime'"
            )
    if backend in PROVIDERS:
        if (error := provider_problem(backend)) is not None:
            raise error
        found += provider_forms(bundle, stage, backend)
    if (backend == "auto" and not placed) or backend in CPU_BACKENDS:
        forms = cpu_forms(bundle, stage, () if backend == "auto" else (backend,))
        if backend != "openvino" and precision is not None and not any(v.precision == precision for _, v in forms):
            forms = [("onnxruntime", v) for v in bundle.variants(stage, "tensorrt")]
        found += by_time(bundle, stage, [*forms, *_on_providers(bundle, stage)]) if backend == "auto" else forms
    if precision is not None:
        found = [(b, v) for b, v in found if v.precision == precision]
    return found


def cpu_forms(bundle: Bundle, stage: str, backends: tuple[str, ...] = ()) -> list[tuple[str, Variant]]:
    """Return what may serve a stage on this CPU, FP32 first: (backend, variant); on all backends by default."""
    order = {kind: place for place, kind in enumerate(TENSORRT_ORDER)}
    variants = sorted(bundle.variants(stage, "cpu"), key=lambda v: -order[v.precision])
    return [(backend, v) for backend in backends or installed_backends() for v in variants]


def provider_forms(bundle: Bundle, stage: str, backend: str) -> list[tuple[str, Variant]]:
    """Return what may serve a stage on a provider for GPUs, best first: TensorRT's files, else FP32 for CPUs."""
    precisions = PROVIDERS[backend].precisions
    found = [v for v in bundle.variants(stage, "tensorrt") if v.precision in precisions]
    found.sort(key=lambda v: precisions.index(v.precision))
    found = found or [v for v in bundle.variants(stage, "cpu") if v.precision == "fp32"]
    return [(backend, v) for v in found]


def _on_providers(bundle: Bundle, stage: str) -> list[tuple[str, Variant]]:
    return [form for backend in usable_providers() for form in provider_forms(bundle, stage, backend)]


def measured_forms(bundle: Bundle, stage: str) -> list[tuple[str, Variant]]:
    """Return what ``mmedge compile`` measures of a stage: (backend, variant), FP32 on the CPU first."""
    return [*cpu_forms(bundle, stage), *_on_providers(bundle, stage)]


def timing_key(bundle: Bundle, stage: str) -> TimingKey:
    """Return what the choice among the measured forms of a stage depends on."""
    forms = measured_forms(bundle, stage)
    hashes = bundle.manifest.files
    return TimingKey(
        forms=tuple((backend, library_version(backend), hashes[v.file].sha256) for backend, v in forms),
        profile={name: tuple(shape) for name, shape in sorted(variant_shapes(bundle, forms[0][1]).items())},
    )


def by_time(bundle: Bundle, stage: str, forms: list[tuple[str, Variant]]) -> list[tuple[str, Variant]]:
    """Return CPU forms in the order in which they are to serve: as measured here, those that failed last."""
    try:
        known = kept_timings(timing_key(bundle, stage)) if len(forms) > 1 else None
    except MissingDependencyError:  # whoever loads one says so
        known = None
    if known is None:
        return forms
    places = {(known.forms[at].backend, known.forms[at].file): rank for rank, at in enumerate(known.order)}
    found = sorted(forms, key=lambda form: places.get((form[0], form[1].file), len(places)))
    if found != forms:
        log.info("stage '%s': %s", stage, known.why())
    return found


def _by_verdict(bundle: Bundle, variants: list[Variant], options: EngineOptions | None) -> list[Variant]:
    """Return variants in the order in which they are to serve on TensorRT here."""
    found = [(variant, DOORS["tensorrt"].find(bundle, variant, options).verdict) for variant in variants]
    good = [(variant, verdict) for variant, verdict in found if verdict is None or verdict.error is None]
    for variant, verdict in found:
        if verdict is not None and verdict.error is not None:
            log.warning("stage '%s': tensorrt %s is not used: %s", variant.stage, variant.precision, verdict.error)
    times = {id(variant): v.run_ms for variant, v in good if v is not None and v.run_ms is not None}
    if len(times) == len(good):
        good.sort(key=lambda pair: times[id(pair[0])])
    return [variant for variant, _ in good]


def serving(
    bundle: Bundle,
    backend: str,
    precision: str | None,
    *,
    simulated: bool = False,
    placed: Mapping[str, EngineOptions] = {},
) -> dict[str, list[tuple[str, Variant]]]:
    """Return network -> what may serve it, best first: (backend, variant).

    What could not be brought into the precision asked for has no such file, and runs as the exporter left it.

    Args:
        bundle: An open bundle.
        backend: ``auto``, or one of ``mmedge.types.Backend``.
        precision: Only this precision.
        simulated: ONNX Runtime also takes TensorRT's files of a stage that has no others.
        placed: Stage -> what its engine is to be (``mmedge.fusion.placement``).

    Raises:
        DeviceError: If ``tensorrt`` or a provider for GPUs was asked for and cannot run here.
        MissingDependencyError: If it is not installed.
    """
    found = {name: candidates(bundle, name, backend, precision, placed.get(name)) for name in _networks(bundle)}
    if any(found.values()) or simulated:
        for name in fallen_back(bundle, precision):
            found[name] = candidates(bundle, name, backend, None, placed.get(name))
    for name, own in found.items():
        if simulated and not own:
            found[name] = [("onnxruntime", variant) for variant in bundle.variants(name, "tensorrt")]
    return found


def fallen_back(bundle: Bundle, precision: str | None) -> list[str]:
    """Return the networks of a bundle that have no variant of a precision, and so run in another.

    Raises:
        ConfigError: If that is all of them.
    """
    networks = _networks(bundle)
    if precision is None or not networks:
        return []
    variants = bundle.manifest.variants
    have = {variant.stage for variant in variants if variant.precision == precision}
    if not have & set(networks):
        raise ConfigError(
            f"no stage has a variant of precision '{precision}'",
            where=str(bundle.path),
            fix=f"it has {', '.join(sorted({variant.precision for variant in variants}))}",
        )
    return [name for name in networks if name not in have]


def _networks(bundle: Bundle) -> list[str]:
    return [name for name, spec in bundle.manifest.stages.items() if spec.callable is None]
