"""Build the engines of a whole bundle into the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmedge.bundle import Bundle
from mmedge.engine.compile import CompiledEngine, compile_variant
from mmedge.errors import ConfigError

Progress = Callable[[str, float], None]


def compile_bundle(bundle: Bundle, precision: str | None, progress: Progress) -> list[dict[str, Any]]:
    """Build every TensorRT variant of a bundle, or those of one precision; return one row per engine."""
    variants = [v for v in bundle.manifest.variants if v.target == "tensorrt"]
    if precision is not None and any(v.precision == precision for v in variants):
        # A stage that stays float has no variant of this precision, and its others serve.
        own = {v.stage for v in variants if v.precision == precision}
        variants = [v for v in variants if v.precision == precision or v.stage not in own]
    elif precision is not None:
        variants = []
    if not variants:
        raise ConfigError(
            f"no TensorRT variant of precision '{precision or 'any'}'",
            where=str(bundle.path),
            fix='export it with targets = ["cpu", "tensorrt"]',
        )
    rows = []
    for index, variant in enumerate(variants):

        def show(text: str, share: float, index: int = index, name: str = variant.file) -> None:
            progress(f"{name}: {text}", (index + share) / len(variants))

        compiled = compile_variant(
            bundle.read(variant.file),
            bundle.manifest.files[variant.file].sha256,
            variant.stage,
            variant.precision,
            progress=show,
        )
        rows.append(engine_row(variant.stage, variant.precision, compiled))
    return rows


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
        "bytes": compiled.plan_path.stat().st_size,
        "layers": build.layers,
        "int8_layers": build.int8_layers,
        "int8_coverage": round(build.int8_coverage, 3),
        "evidence": compiled.evidence,
    }
