"""Bounds that the operators of a network set to its tensors, whatever goes in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

Bounds: TypeAlias = tuple[float, float]
ANY: Bounds = (-math.inf, math.inf)
_OWN: Mapping[str, Bounds] = {
    **dict.fromkeys(("Relu", "Abs", "Exp", "Softplus", "Sqrt"), (0.0, math.inf)),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), (0.0, 1.0)),
    "Tanh": (-1.0, 1.0),
    "HardSwish": (-0.375, math.inf),  # at -1.5
}
_SILU = -0.27847  # x * sigmoid(x) at -1.2785
# Each of their values is one of those that they take, or a mean of them, and of zeros around a picture.
_KEEPING = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Transpose", "Squeeze"}
    | {"Unsqueeze", "Identity", "Slice", "Concat", "DequantizeLinear", "QuantizeLinear"}
)


def bounds(graph: onnx.GraphProto) -> dict[str, Bounds]:
    """Return the bounds of every tensor of a graph that has any.

    Args:
        graph: The outermost graph, sorted; of a network in normal form, or with Q/DQ pairs.
    """
    found: dict[str, Bounds] = {}
    made: dict[str, onnx.NodeProto] = {}
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype.kind == "f" and value.size and np.isfinite(value).all():
            found[tensor.name] = float(value.min()), float(value.max())
    for node in graph.node:
        made.update(dict.fromkeys(node.output, node))
        if node.output and (own := _of(node, found, made)) != ANY:
            found[node.output[0]] = own
    return found


def _of(node: onnx.NodeProto, found: Mapping[str, Bounds], made: Mapping[str, onnx.NodeProto]) -> Bounds:
    taken = [found.get(name, ANY) for name in node.input]
    kind = node.op_type
    if kind == "Clip":
        low = taken[1][0] if len(node.input) > 1 and node.input[1] else -math.inf
        high = taken[2][1] if len(node.input) > 2 and node.input[2] else math.inf
        return max(low, min(taken[0][0], high)), min(high, max(taken[0][1], low))
    if kind in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in made:
        return ANY  # codes of a weight
    if kind in _KEEPING:
        data = taken if kind == "Concat" else taken[:1]
        low, high = min(low for low, _ in data), max(high for _, high in data)
        return (min(low, 0.0), max(high, 0.0)) if kind.endswith("Pool") else (low, high)
    if kind == "Add":
        return sum(low for low, _ in taken), sum(high for _, high in taken)
    if kind == "Mul":
        return _product(node, taken, made)
    return _OWN.get(kind, ANY)


def _product(node: onnx.NodeProto, taken: list[Bounds], made: Mapping[str, onnx.NodeProto]) -> Bounds:
    for share, other in ((0, 1), (1, 0)):
        factor = made.get(node.input[share])
        if factor is not None and factor.op_type == "Sigmoid" and factor.input[0] == node.input[other]:
            return _SILU, math.inf
        if taken[share][0] >= 0 and taken[share][1] <= 1:
            return min(taken[other][0], 0.0), max(taken[other][1], 0.0)
    return (0.0, math.inf) if min(low for low, _ in taken) >= 0 else ANY
