"""Compare the manifest's and the graph's view of a stage's tensors with its network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.source import Age, State
from mmedge.engine.base import Engine
from mmedge.errors import BundleError
from mmedge.fusion.tensors import Shape, Upstream, input_dtypes, input_shapes, output_shapes


def check_signature(
    name: str, spec: StageSpec, engine: Engine, inputs: Mapping[str, Input], upstream: Upstream, *, raw: bool
) -> None:
    """Raise BundleError at the first name, shape or dtype in which network and graph differ; tells both sides."""
    where = f"manifest.json: $.stages.{name}"
    for kind, declared, own in (("inputs", spec.inputs, engine.inputs), ("outputs", spec.outputs, engine.outputs)):
        if set(declared) != set(own):
            raise BundleError(
                f"the network's {kind} are {sorted(own)}, the manifest says {sorted(declared)}",
                where=f"{where}.{kind}",
                fix="use the network's names",
            )

    def agree(key: str, tensor: str, shape: Shape, dtype: str | None) -> None:
        array = (engine.inputs if key == "inputs" else engine.outputs)[tensor]
        if array.shape == shape and dtype in (None, array.dtype.name):
            return
        prefixes = ("", "") if dtype is None else (f"{array.dtype} ", f"{dtype} ")
        raise BundleError(
            f"tensor '{tensor}' of the network is {prefixes[0]}{list(array.shape)}, "
            f"the graph has {prefixes[1]}{list(shape)}",
            where=f"{where}.{key}.{tensor}",
            fix="correct the manifest or export the network again",
        )

    for tensor, shape in output_shapes(spec).items():
        agree("outputs", tensor, shape, None)
    dtypes = input_dtypes(spec, inputs, upstream, raw=raw)
    sources = spec.sources
    for tensor, shape in input_shapes(spec, inputs, upstream, raw=raw).items():
        source = sources[tensor]
        fed_back = engine.outputs[source.output].dtype.name if isinstance(source, State) else None
        agree("inputs", tensor, shape, fed_back or dtypes.get(tensor))
        if source == Age() and engine.inputs[tensor].dtype == np.bool_:
            raise BundleError(
                f"tensor '{tensor}' of the network is bool, an age is a number of ms",
                where=f"{where}.inputs.{tensor}",
                fix="export the network with a number there, or feed it '@present'",
            )
