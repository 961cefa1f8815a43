"""Self-test of every variant of a bundle on ONNX Runtime: as it would serve here, TensorRT's files as written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmedge.bundle import Bundle, stage_order
from mmedge.errors import BundleError, CheckError, EngineError
from mmedge.fusion.golden import self_test
from mmedge.fusion.load import make_callable, make_network, make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.weigh import run_ms


def check_variants(bundle: Bundle, progress: Callable[[str, float], None] | None = None) -> list[dict[str, Any]]:
    """Run the golden self-test of every variant.

    Args:
        bundle: An open bundle.
        progress: Called with a message and a share 0..1.

    Returns:
        One row per variant: stage, target, precision, file, error_over_tolerance, run_ms (of one run here, of
        CPU files), and error and fix (None when it passed).
    """
    rows: list[dict[str, Any]] = []
    upstream: dict[str, StageRunner] = {}
    stages: list[StageRunner] = []
    try:
        for name in stage_order(bundle.manifest.stages):
            spec = bundle.manifest.stages[name]
            if spec.callable is not None:
                upstream[name] = make_stage(bundle, name, make_callable(bundle, name, upstream), upstream)
                stages.append(upstream[name])
            for variant in (v for v in bundle.manifest.variants if v.stage == name):
                row: dict[str, Any] = {
                    "stage": name,
                    "target": variant.target,
                    "precision": variant.precision,
                    "file": variant.file,
                    "error_over_tolerance": None,
                    "run_ms": None,
                    "error": None,
                    "fix": None,
                }
                rows.append(row)
                if progress is not None:
                    progress(f"self-test {variant.file}", len(rows) / len(bundle.manifest.variants))
                try:
                    engine = make_network(bundle, variant, upstream, variant.file)
                    stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
                    stages.append(stage)
                    worst = self_test(stage, bundle.golden(variant.golden), variant.tolerance, variant.file)
                    row["error_over_tolerance"] = round(worst, 4)
                    if variant.target == "cpu":
                        row["run_ms"] = round(run_ms(stage)[0], 3)
                    upstream.setdefault(name, stage)
                except CheckError as error:
                    # Its own fix is to build the engine anew, and here there is none.
                    row["error"], row["fix"] = error.message, "export the bundle again"
                    if (variant.target, variant.precision) == ("cpu", "int8"):
                        row["fix"] += ", or leave --precision out: on this CPU fp32 serves"
                except (EngineError, BundleError) as error:
                    row["error"], row["fix"] = error.message, error.fix
            if name not in upstream:
                break  # what it feeds cannot be tested
    finally:
        for stage in stages:
            stage.close()
    return rows
