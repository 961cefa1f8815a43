"""Make the engine of a stage that runs on the CPU, and the stage around any engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from mmedge.bundle import Bundle, Variant
from mmedge.engine.base import Engine
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.consent import Consent
from mmedge.fusion.rules import LISTED
from mmedge.fusion.stage import StageRunner, array_of
from mmedge.fusion.stream import StreamStage, is_stream
from mmedge.fusion.tensors import constants, fill, input_dtypes, input_shapes, output_shapes


def make_callable(
    bundle: Bundle, name: str, upstream: Mapping[str, StageRunner], consent: Consent, *, patience: float = 1.0
) -> CallableEngine:
    """Return the engine of a stage that is a rule instead of a network; the SDK's own rules need no thread."""
    spec = bundle.manifest.stages[name]
    assert spec.callable is not None
    give = partial(array_of, upstream)
    return CallableEngine(
        spec.callable,
        {**dict.fromkeys(constants(spec), ()), **input_shapes(spec, bundle.inputs, give, raw=False)},
        output_shapes(spec),
        dtypes=input_dtypes(spec, bundle.inputs, give, raw=False),
        timeout_ms=None if spec.callable in LISTED else spec.timeout_ms * patience,
        stage=name,
        consent=consent,
    )


def make_network(
    bundle: Bundle, variant: Variant, upstream: Mapping[str, StageRunner], where: str
) -> OnnxRuntimeEngine:
    """Return a variant on ONNX Runtime; the graph's shapes are those of its dynamic dimensions.

    A CPU variant serves, on 8-bit kernels where it has them; TensorRT's is simulated as written.

    Raises:
        BundleError: If a constant does not fit into its tensor.
        EngineError: If the network cannot be loaded.
    """
    spec = bundle.manifest.stages[variant.stage]
    raw = variant.target == "tensorrt"
    shapes = input_shapes(spec, bundle.inputs, partial(array_of, upstream), raw=raw)
    numbers = constants(spec)
    load = partial(OnnxRuntimeEngine, bundle.read(variant.file), name=where, shapes=shapes, as_written=raw)
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused when its stage fills it
            return load(constants=numbers)
    except OverflowError:  # it does not say which: the engine's own tensors do
        with load() as engine:
            for tensor in numbers.keys() & engine.inputs.keys():
                fill(engine.inputs[tensor], numbers[tensor], f"manifest.json: $.stages.{variant.stage}.inputs.{tensor}")
        raise


def make_stage(
    bundle: Bundle, name: str, engine: Engine, upstream: Mapping[str, StageRunner], *, raw: bool = False
) -> StageRunner:
    """Return a stage around its engine, one that listens where it is a stream."""
    spec = bundle.manifest.stages[name]
    kind = StreamStage if is_stream(spec, bundle.inputs) else StageRunner
    return kind(name, spec, bundle.inputs, engine, upstream, raw=raw, read=bundle.read)
