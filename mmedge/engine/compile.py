"""A variant of a bundle -> an engine for this device: from the cache, or built and published there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmedge.engine.base import Engine
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import (
    BuildReport,
    BuildResult,
    Progress,
    build_engine,
    target_capability,
)
from mmedge.engine.cache import CacheEntry, EngineCache, EngineKey, Verdict
from mmedge.engine.cuda import gpu_available, gpu_info
from mmedge.engine.low_precision import refuse_unused
from mmedge.engine.network import Network, read_network
from mmedge.engine.reach import PLAIN, EngineOptions
from mmedge.engine.shapes import Given, check_ranges
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt
from mmedge.errors import EngineError
from mmedge.types import Evidence

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledEngine:
    """An engine in the cache, or one that was built and is to be published there.

    Attributes:
        key: What it depends on.
        plan_path: Its file, once it is published.
        cached: Whether it was there already.
        runnable: Whether this machine has the GPU it was built for.
        evidence: ``built-not-run``: only a self-test that ran it may claim more.
        build: How it was built.
        verdict: What came of running it, if it ever ran.
        unpublished: The built engine, if it was not published.
        options: What was asked for: where it runs, beside what it was built as.
    """

    key: EngineKey
    plan_path: Path
    cached: bool
    runnable: bool
    evidence: Evidence
    build: BuildReport
    verdict: Verdict | None = None
    unpublished: BuildResult | None = None
    options: EngineOptions = PLAIN

    @property
    def plan_bytes(self) -> int:
        """Its size."""
        return self.plan_path.stat().st_size if self.unpublished is None else len(self.unpublished.plan)

    def open(self, name: str) -> Engine:
        """Load it on the GPU; the caller closes it.

        Raises:
            PlanError: If it is no engine for this device.
            EngineError: If it cannot be read or loaded.
        """
        from mmedge.engine.tensorrt import TensorRTEngine

        try:
            plan = self.plan_path.read_bytes() if self.unpublished is None else self.unpublished.plan
        except OSError as error:
            raise EngineError(
                f"the cached engine cannot be read: {error.strerror}",
                where=str(self.plan_path),
                fix="build it again: mmedge compile",
            ) from error
        options = msgspec.structs.replace(self.build.options, sms=self.options.sms, reserved=self.options.reserved)
        return TensorRTEngine(plan, name=name, module=self.key.module, version=self.key.version, options=options)


def engine_key(
    trt: TensorRT,
    variant_sha256: str,
    *,
    compute_capability: str,
    shapes: Given | None = None,
    workspace_bytes: int | None = None,
    options: EngineOptions = PLAIN,
) -> EngineKey:
    """Put together what an engine built here and now depends on.

    Args:
        trt: The module that builds.
        variant_sha256: Hash of the ONNX file, and of its weights where they lie in other files.
        compute_capability: What it is built for.
        shapes: Shapes, or ranges of them, given to inputs.
        workspace_bytes: Limit of the builder's scratch memory.
        options: Where it is to run.

    Returns:
        The key.
    """
    gpu = gpu_info() if gpu_available() else None
    if gpu is not None and gpu.compute_capability != compute_capability:
        gpu = None
    ranges = check_ranges(shapes)
    return EngineKey(
        variant_sha256=variant_sha256,
        module=trt.name,
        version=trt.version,
        compute_capability=compute_capability,
        device="none" if gpu is None else gpu.name,
        memory_gib=0 if gpu is None else round(gpu.memory_bytes / 2**30),
        cuda="none" if gpu is None else gpu.cuda,
        profile={name: usual for name, (least, usual, most) in ranges.items() if least == most},
        ranges={name: shape for name, shape in ranges.items() if shape[0] != shape[2]},
        flags=(*(() if workspace_bytes is None else (f"workspace={workspace_bytes}",)), *options.flags),
    )


def compile_network(
    network: Network,
    name: str | None = None,
    precision: str = "fp32",
    *,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
    module: str | None = None,
    compute_capability: str | None = None,
    shapes: Given | None = None,
    workspace_bytes: int | None = None,
    limits: BuildLimits | None = None,
    publish: bool = True,
    options: EngineOptions = PLAIN,
) -> CompiledEngine:
    """Take a network's engine from the cache, or build it in a child process and publish it.

    Args:
        network: What to compile.
        name: What to call it in messages; None is its file's name.
        precision: As in ``mmedge.types.Precision``.
        cache: Where engines are kept; None takes the default folder.
        progress: Called with the phase and the share done, 0..1; not called on a cache hit.
        sources: Node name -> source line, for the list of unsupported operators.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        compute_capability: What to build for; None is the GPU at hand, else SM86 ahead of time (SM89 in FP8).
        shapes: Input name -> shape, or least, usual and most, for inputs with open dimensions.
        workspace_bytes: Scratch memory the builder may use.
        limits: Time and memory that the build may take.
        publish: Put what was built into the cache at once; without, whoever has tested it does.
        options: Where it is to run; an engine in the cache that may run here by its own options is taken, too.

    Returns:
        The engine's place in the cache and how it was built.

    Raises:
        EngineError: If it cannot be built or saved.
        ConfigError: If an open dimension was not given, or a shape does not fit.
        DeviceError: If the module needs a GPU and there is none.
        MissingDependencyError: If TensorRT is not installed.

    Example:
        >>> compile_network(read_network("model.onnx"), shapes={"x": (1, 3, 320, 320)}).cached  # doctest: +SKIP
        False
    """
    cache = EngineCache() if cache is None else cache
    trt = load_tensorrt(module)
    target = target_capability(trt, compute_capability, precision)
    own = engine_key(
        *(trt, network.sha256),
        compute_capability=target,
        shapes=shapes,
        workspace_bytes=workspace_bytes,
        options=options,
    )
    key = cache.find(own)
    entry = cache.get(key)
    if entry is not None and limits is not None and limits.anew and entry.build.optimization_level is not None:
        _log.info("%s was built with less effort, since memory ran out: building it again", entry.plan_path)
        entry = None
    if entry is None:
        key = own  # what is built here is not what was built elsewhere
    cached = entry is not None
    if entry is not None:
        refuse_unused(entry.build, precision, str(entry.plan_path))
    built: BuildResult | None = None
    if entry is None:
        built = build_engine(
            network.model,
            name=name or Path(network.name).stem,
            precision=precision,
            log_path=cache.log_path(key),
            path=network.path if network.weights else None,
            workspace_bytes=workspace_bytes,
            limits=limits,
            progress=progress,
            sources=sources,
            module=trt.name,
            compute_capability=target,
            shapes=shapes,
            timing_path=cache.timing_path(key) if "timing_cache" in trt.caps else None,
            engine=msgspec.structs.replace(options, sms=None, reserved=True),
        )
        if network.weights and network.path is not None and read_network(network.path).sha256 != network.sha256:
            raise EngineError(
                "the network's files were changed while it was built",
                where=network.name,
                fix="build it again when they are complete",
            )
        if publish:
            entry, built = cache.put(key, built), None
        else:
            entry = CacheEntry(plan_path=cache.plan_path(key), build=built.report())
    return CompiledEngine(
        key=key,
        plan_path=entry.plan_path,
        cached=cached,
        runnable=key.device != "none",
        evidence="built-not-run",
        build=entry.build,
        verdict=entry.verdict,
        unpublished=built,
        options=options,
    )


def compile_variant(
    onnx: bytes,
    variant_sha256: str,
    name: str,
    precision: str,
    *,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    module: str | None = None,
    compute_capability: str | None = None,
    shapes: Given | None = None,
    limits: BuildLimits | None = None,
    publish: bool = True,
    options: EngineOptions = PLAIN,
) -> CompiledEngine:
    """Compile a variant of a bundle, whose file holds its weights; otherwise as ``compile_network``.

    Args:
        onnx: The variant's file.
        variant_sha256: Its hash, as in the manifest.
        name: Stage, for messages.
        precision: As in ``mmedge.types.Precision``.
        cache: Where engines are kept; None takes the default folder.
        progress: Called with the phase and the share done, 0..1; not called on a cache hit.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        compute_capability: What to build for.
        shapes: Input name -> shape, for inputs with open dimensions.
        limits: Time and memory that the build may take.
        publish: Put what was built into the cache at once; without, whoever has tested it does.
        options: Where it is to run; an engine in the cache that may run here by its own options is taken, too.

    Returns:
        The engine's place in the cache and how it was built.

    Raises:
        MmedgeError: As ``compile_network`` does.

    Example:
        >>> compile_variant(onnx, sha, "fusion", "fp16").cached  # doctest: +SKIP
        False
    """
    return compile_network(
        Network(name=name, model=onnx, path=None, weights=(), sha256=variant_sha256),
        name,
        precision,
        cache=cache,
        progress=progress,
        module=module,
        compute_capability=compute_capability,
        shapes=shapes,
        limits=limits,
        publish=publish,
        options=options,
    )


def engine_key_here(
    variant_sha256: str,
    shapes: Given | None = None,
    precision: str = "fp32",
    options: EngineOptions = PLAIN,
) -> EngineKey:
    """Return the key of an engine for this device, by the TensorRT that is installed.

    Raises:
        MmedgeError: If TensorRT is not installed, or cannot build here.
    """
    trt = load_tensorrt()
    target = target_capability(trt, precision=precision)
    return engine_key(trt, variant_sha256, compute_capability=target, shapes=shapes, options=options)
