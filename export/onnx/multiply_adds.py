"""How much a network multiplies and adds: what its time on a board is estimated from where nobody has measured it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

import onnx
from onnx import shape_inference

# Operators whose work is not counted, or is known only as they run.
_UNCOUNTED = ("If", "Loop", "Scan", "Einsum", "DeformConv", "Attention", "QLinearConv", "QLinearMatMul")
_SMALL = 1024  # elements: no shape is computed from more
Shapes = Mapping[str, Sequence[int]]


def multiply_adds(model: onnx.ModelProto) -> int | None:
    """Return the multiply-adds of convolutions and matrix products of one run.

    Args:
        model: The network; a dimension of an input that has a name counts as 1.

    Returns:
        How many; None where a shape that is needed is not known, or the work of an operator is not.

    Example:
        >>> multiply_adds(onnx.load("resnet18.onnx"))  # doctest: +SKIP
        1814073344
    """
    model = _without_weights(model)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    with suppress(shape_inference.InferenceError, RuntimeError, ValueError):
        model = shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
    total = 0
    for node in graph.node:
        if node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx"):
            return None
        try:
            total += _of_node(node, shapes)
        except (KeyError, IndexError):
            return None
    return total


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which large weights have a shape alone: inference of shapes would copy them again and again."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = light.graph
    graph.node.extend(model.graph.node)
    for name in ("input", "output", "value_info"):
        getattr(graph, name).extend(getattr(model.graph, name))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return light


def _of_node(node: onnx.NodeProto, shapes: Shapes) -> int:
    match node.op_type:
        case "Conv" | "ConvInteger":  # weights are [outputs, inputs of a group, kernel...]
            return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        case "ConvTranspose":  # weights are [inputs, outputs of a group, kernel...]
            return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        case "MatMul" | "MatMulInteger" | "Gemm":
            across = shapes[node.input[0]]
            turned = any(a.name == "transA" and a.i for a in node.attribute)
            return math.prod(shapes[node.output[0]]) * across[-2 if turned else -1]
        case (
            "LSTM" | "GRU" | "RNN"
        ):  # [directions, gates * hidden, inputs] and [..., hidden], at each step of each sequence
            return math.prod(shapes[node.input[0]][:2]) * sum(math.prod(shapes[node.input[place]]) for place in (1, 2))
        case _:
            return 0
