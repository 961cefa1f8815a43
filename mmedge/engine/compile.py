"""A variant of a bundle -> an engine for this device: from the cache, or built and published there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmedge.engine.build_parent import BuildReport, Progress, build_engine, target_capability
from mmedge.engine.cache import EngineCache, EngineKey
from mmedge.engine.cuda import gpu_available, gpu_info
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt
from mmedge.types import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledEngine:
    """An engine in the cache.

    Attributes:
        plan_path: Its file.
        cached: Whether it was there already.
        runnable: Whether this machine has the GPU it was built for.
        evidence: ``built-not-run``: only a self-test that ran it may claim more.
        build: How it was built.
    """

    plan_path: Path
    cached: bool
    runnable: bool
    evidence: Evidence
    build: BuildReport


def engine_key(
    trt: TensorRT,
    variant_sha256: str,
    *,
    compute_capability: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    workspace_bytes: int | None = None,
) -> EngineKey:
    """Put together what an engine built here and now depends on.

    Args:
        trt: The module that builds.
        variant_sha256: Hash of the ONNX file.
        compute_capability: What it is built for.
        shapes: Shapes given to dynamic inputs.
        workspace_bytes: Limit of the builder's scratch memory.

    Returns:
        The key.
    """
    gpu = gpu_info() if gpu_available() else None
    if gpu is not None and gpu.compute_capability != compute_capability:
        gpu = None
    return EngineKey(
        variant_sha256=variant_sha256,
        module=trt.name,
        version=trt.version,
        compute_capability=compute_capability,
        device="none" if gpu is None else gpu.name,
        memory_gib=0 if gpu is None else round(gpu.memory_bytes / 2**30),
        cuda="none" if gpu is None else gpu.cuda,
        profile=dict(shapes or {}),
        flags=() if workspace_bytes is None else (f"workspace={workspace_bytes}",),
    )


def compile_variant(
    onnx: bytes,
    variant_sha256: str,
    name: str,
    precision: str,
    *,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
    module: str | None = None,
    compute_capability: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    workspace_bytes: int | None = None,
    timeout_s: float = 1800.0,
) -> CompiledEngine:
    """Take the variant's engine from the cache, or build it in a child process and publish it.

    Args:
        onnx: The variant's file.
        variant_sha256: Its hash, as in the manifest.
        name: Stage, for messages.
        precision: ``fp32``, ``fp16`` or ``int8``.
        cache: Where engines are kept; None takes the default folder.
        progress: Called with the phase and the share done, 0..1; not called on a cache hit.
        sources: Node name -> source line, for the list of unsupported operators.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        compute_capability: What to build for; None is the GPU at hand, else SM86 ahead of time.
        shapes: Input name -> shape, for inputs with dynamic dimensions (1 where not given).
        workspace_bytes: Scratch memory the builder may use.
        timeout_s: A build that takes longer is stopped.

    Returns:
        The engine's place in the cache and how it was built.

    Raises:
        EngineError: If it cannot be built or saved.
        DeviceError: If the module needs a GPU and there is none.
        MissingDependencyError: If TensorRT is not installed.

    Example:
        >>> compile_variant(onnx, sha, "fusion", "fp16").cached  # doctest: +SKIP
        False
    """
    cache = EngineCache() if cache is None else cache
    trt = load_tensorrt(module)
    target = target_capability(trt, compute_capability)
    key = engine_key(trt, variant_sha256, compute_capability=target, shapes=shapes, workspace_bytes=workspace_bytes)
    entry = cache.get(key)
    cached = entry is not None
    if entry is None:
        built = build_engine(
            onnx,
            name=name,
            precision=precision,
            log_path=cache.log_path(key),
            workspace_bytes=workspace_bytes,
            timeout_s=timeout_s,
            progress=progress,
            sources=sources,
            module=trt.name,
            compute_capability=target,
            shapes=shapes,
        )
        entry = cache.put(key, built)
    return CompiledEngine(
        plan_path=entry.plan_path,
        cached=cached,
        runnable=key.device != "none",
        evidence="built-not-run",
        build=entry.build,
    )
