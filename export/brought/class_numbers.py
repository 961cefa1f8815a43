"""Outputs that are the number of a class: made scores of the classes, which a task can read."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle.source import State, parse_source

from ..onnx.graphs import rename, set_shape
from .brought import MIN_IR, dims, dtype
from .infer import Guess, Network


def spread_class_numbers(network: Network) -> list[Guess]:
    """Make each output that is one whole number a row of scores, 1 for its class, by nodes of the network's file.

    Without the classes' names or number, or where another output has a score for each, it stays as it is.
    """
    count = len(network.labels)
    outputs = list(network.model.graph.output)
    scored = any(dtype(v).kind == "f" and dims(v)[-1:] == (count,) for v in outputs if dims(v))
    sources = map(parse_source, network.sources.values())
    fed_back = {source.output for source in sources if isinstance(source, State)}
    guesses: list[Guess] = []
    for value in outputs:
        whole = dtype(value).kind in "iu" and all(dim in (1, None) for dim in dims(value)) and len(dims(value)) <= 2
        if not whole or not count or scored or value.name in fed_back:
            continue
        _spread(network.model, value, count)
        guesses.append(
            Guess(network.name, value.name, f"scores of {count} classes", "the number of a class, from 0 on")
        )
    return guesses


def _spread(model: onnx.ModelProto, value: onnx.ValueInfoProto, count: int) -> None:
    name, graph = value.name, model.graph
    model.ir_version = max(model.ir_version, MIN_IR)
    inner = f"{name}/number"
    rename(graph, {name: inner})
    numbers = np.arange(count, dtype=dtype(value))[None]
    graph.initializer.extend(
        [numpy_helper.from_array(numbers, f"{name}/classes"), numpy_helper.from_array(np.array([1, 1]), f"{name}/one")]
    )
    graph.node.extend(
        [
            helper.make_node("Reshape", [inner, f"{name}/one"], [f"{name}/row"], name=f"{name}/Reshape"),
            helper.make_node("Equal", [f"{name}/row", f"{name}/classes"], [f"{name}/same"], name=f"{name}/Equal"),
            helper.make_node("Cast", [f"{name}/same"], [name], name=f"{name}/Cast", to=TensorProto.FLOAT),
        ]
    )
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    set_shape(value, (1, count))
