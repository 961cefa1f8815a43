"""Self-test of variants of a bundle on this CPU: as they would serve here, TensorRT's files as written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from mmedge.bundle import Bundle, stage_order
from mmedge.engine.base import EngineBase
from mmedge.errors import BundleError, CheckError, EngineError, MmedgeError
from mmedge.fusion.consent import Consent
from mmedge.fusion.golden import self_test
from mmedge.fusion.load import make_callable, make_network
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import Shapes, array_of, constants, input_dtypes, input_shapes, output_shapes
from mmedge.fusion.weigh import run_ms

_TEXT = 2000  # characters of an error


class StandIn(EngineBase):
    """Has a stage's tensors and computes nothing: what it feeds is tested on its golden inputs alone."""

    def __init__(self, bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], known: Shapes) -> None:
        super().__init__("stand-in")
        spec, give = bundle.manifest.stages[name], partial(array_of, upstream)
        shapes = {**dict.fromkeys(constants(spec), ()), **input_shapes(spec, bundle.inputs, give, raw=False)}
        dtypes = input_dtypes(spec, bundle.inputs, give, raw=False)
        outputs = known.get(name) or {n: (list(shape), "float32") for n, shape in output_shapes(spec).items()}
        self.outputs = {n: np.zeros(shape, dtype) for n, (shape, dtype) in outputs.items()}
        fed_back = {tensor: self.outputs[output].dtype.name for tensor, output in spec.states.items()}
        self.inputs = {n: np.zeros(shape, (dtypes | fed_back).get(n, "float32")) for n, shape in shapes.items()}


def check_variants(
    bundle: Bundle,
    progress: Callable[[str, float], None] | None = None,
    *,
    only: Collection[int] | None = None,
    known: Shapes | None = None,
    consent: Consent | None = None,
    give: Callable[[dict[str, Any]], None] | None = None,
    backend: str = "onnxruntime",
) -> list[dict[str, Any]]:
    """Run the golden self-test of every variant, in this process: ``trial`` has bounds for networks of others.

    Functions that a bundle calls are not run, and imported only to see whether they fit, if they are allowed.

    Args:
        bundle: An open bundle.
        progress: Called with a message and a share 0..1.
        only: Places of variants in the manifest; the rest is left out.
        known: The outputs of stages that are not to be loaded.
        consent: What the user allows; None: no function is imported.
        give: Called with each row as soon as there is one.
        backend: What they run on.

    Returns:
        One row per variant: its index in the manifest, stage, target, precision, file, error_over_tolerance, run_ms (of
        one run here, of CPU files), error and fix (None when it passed), and the whole error as ``fault``.
    """
    rows: list[dict[str, Any]] = []
    upstream: dict[str, StageRunner] = {}
    known = known or {}
    variants = [(i, v) for i, v in enumerate(bundle.manifest.variants) if only is None or i in only]
    for name in stage_order(bundle.manifest.stages):
        spec = bundle.manifest.stages[name]
        if not all(link.stage in upstream for link in spec.links.values()):
            continue  # it cannot be tested without what feeds it
        if spec.callable is not None or name in known:
            engine: Any
            if spec.callable is not None and consent is not None and consent.covers(spec.callable):
                engine = make_callable(bundle, name, upstream, consent)
            else:
                engine = StandIn(bundle, name, upstream, known)
            upstream[name] = make_stage(bundle, name, engine, upstream)
        for index, variant in ((i, v) for i, v in variants if v.stage == name):
            row: dict[str, Any] = {
                "index": index,
                "stage": name,
                "target": variant.target,
                "precision": variant.precision,
                "file": variant.file,
                "error_over_tolerance": None,
                "run_ms": None,
                "error": None,
                "fix": None,
                "fault": None,
            }
            rows.append(row)
            if progress is not None:
                progress(f"network '{variant.file}'", len(rows) / len(variants))
            opened: list[StageRunner] = []
            try:
                engine = make_network(bundle, variant, upstream, f"{bundle.path}: {variant.file}", backend)
                stage = make_stage(bundle, name, engine, upstream, raw=variant.target == "tensorrt")
                opened.append(stage)
                where = f"{variant.file} on {engine.backend}"
                golden = bundle.golden(variant.golden)
                worst = self_test(stage, golden, variant.tolerance, where, rows=variant.row_tolerance)
                row["error_over_tolerance"] = round(worst, 4)
                if variant.target == "cpu" and only is None:
                    row["run_ms"] = round(run_ms(stage)[0], 3)
                if name not in upstream:
                    shapes = {n: (list(array.shape), array.dtype.name) for n, array in engine.outputs.items()}
                    stand_in = StandIn(bundle, name, upstream, {name: shapes})
                    upstream[name] = make_stage(bundle, name, stand_in, upstream)
            except CheckError as error:
                # Its own fix is to build the engine anew, and here there is none.
                _note(row, error, "export the bundle again")
                if (variant.target, variant.precision) == ("cpu", "int8"):
                    row["fix"] += ", or leave --precision out: on this CPU fp32 serves"
            except (EngineError, BundleError) as error:
                _note(row, error, error.fix)
            finally:  # no more than one network is open at a time
                for stage in opened:
                    stage.close()
            if give is not None:
                give(row)
    return rows


def _note(row: dict[str, Any], error: MmedgeError, fix: str | None) -> None:
    row["error"], row["fix"] = error.message[:_TEXT], fix
    row["fault"] = {key: v[:_TEXT] if isinstance(v, str) else v for key, v in error.to_dict().items()}
