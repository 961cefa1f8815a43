"""The INT8 form of CPUs: unsigned activations and 32-bit biases, so that ONNX Runtime finds its 8-bit kernels.

It is made of TensorRT's form, which was calibrated and compared: each tensor is cut off at the same magnitude, in steps
that are never wider. What is never negative gets all 256 of them from zero up, which takes a Relu into the rounding.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.types import AnyArray

from ..onnx.graphs import drop_unused, free_ending

# What these give is never negative; of the others, if what they take is not.
_POSITIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus"})
_SIGN_KEEPING = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Transpose", "Squeeze"}
    | {"Unsqueeze", "Identity", "Slice", "Concat"}
)


def to_cpu_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a network in TensorRT's INT8 form in that of CPUs; one without Q/DQ comes back as it is.

    Args:
        model: Q/DQ pairs of int8 with zero point 0, as ``insert_qdq`` writes them; weights stay as they are.

    Returns:
        The network: one pair of uint8 per tensor, behind which weighted nodes have int32 biases.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in constants]
    replaced: dict[str, str] = {}
    scales: dict[str, float] = {}
    kept: dict[str, str] = {}
    gone: set[str] = set()
    scale_end, zero_end, bias_end = (free_ending(model, f"/cpu_{what}") for what in ("scale", "zero", "bias"))
    for node in quantizers:
        source = node.input[0]
        readers = [other for other in graph.node if node.output[0] in other.input]
        if source in kept:  # pairs of one tensor are alike, and a kernel ends in one
            replaced.update({reader.output[0]: kept[source] for reader in readers})
            gone.update([node.name, *(reader.name for reader in readers)])
            continue
        scale = constants[node.input[1]].astype(np.float32)
        zero = np.uint8(128)
        if never_negative(source, made, constants):
            scale, zero = (scale * np.float32(127 / 255)).astype(np.float32), np.uint8(0)
        names = f"{source}{scale_end}", f"{source}{zero_end}"
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, (scale, zero), strict=True)
        )
        for pair in (node, *readers):
            pair.input[1:] = names
        for reader in readers[1:]:
            replaced[reader.output[0]] = readers[0].output[0]
            gone.add(reader.name)
        kept[source] = readers[0].output[0]
        scales[kept[source]] = float(scale)
    nodes = [node for node in graph.node if node.name not in gone]
    for node in nodes:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    ordered = [new for node in nodes for new in (*_bias(node, graph, scales, made, constants, bias_end), node)]
    del graph.node[:]
    graph.node.extend(ordered)
    drop_unused(graph)
    del graph.value_info[:]
    result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
    onnx.checker.check_model(result, full_check=True)
    return result


def never_negative(tensor: str, made: dict[str, onnx.NodeProto], constants: dict[str, AnyArray]) -> bool:
    """Tell whether a tensor cannot be less than zero, whatever goes in.

    Args:
        tensor: Its name.
        made: Tensor -> the node that makes it.
        constants: Weights by name, of any shape [...] and dtype.
    """
    node = made.get(tensor)
    if node is None:
        return tensor in constants and bool((constants[tensor] >= 0).all())
    if node.op_type == "Clip":
        low = constants.get(node.input[1]) if len(node.input) > 1 else None
        return low is not None and bool((low >= 0).all())
    if node.op_type in _SIGN_KEEPING:
        data = node.input if node.op_type == "Concat" else node.input[:1]
        return all(never_negative(name, made, constants) for name in data)
    if node.op_type == "DequantizeLinear" and node.input[0] in made:
        return never_negative(made[node.input[0]].input[0], made, constants)
    return node.op_type in _POSITIVE


def _bias(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    scales: dict[str, float],
    made: dict[str, onnx.NodeProto],
    constants: dict[str, AnyArray],
    ending: str,
) -> list[onnx.NodeProto]:
    """Turn the float bias of an int8 node into int32, in units of what the node sums; return what makes it float."""
    weight = made.get(node.input[1]) if len(node.input) > 2 else None
    if (
        node.op_type not in ("Conv", "ConvTranspose", "Gemm")
        or node.input[0] not in scales
        or weight is None
        or weight.op_type != "DequantizeLinear"
        or node.input[2] not in constants
        # Only a plain sum of products counts in those units.
        or any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute)
    ):
        return []
    bias = constants[node.input[2]]
    unit = (np.float64(scales[node.input[0]]) * constants[weight.input[1]].astype(np.float64)).astype(np.float32)
    if node.op_type == "ConvTranspose" and unit.ndim == 1:  # its weights have a scale for each channel of a group
        unit = np.tile(unit, next((a.i for a in node.attribute if a.name == "group"), 1))
    if bias.ndim != 1 or (unit.ndim == 1 and unit.shape != bias.shape):
        return []
    counts = np.rint(bias.astype(np.float64) / unit)
    if np.abs(counts).max(initial=0.0) >= 2**31:
        return []
    stem = f"{node.name}{ending}"
    graph.initializer.extend(
        [
            numpy_helper.from_array(counts.astype(np.int32), f"{stem}_int32"),
            numpy_helper.from_array(unit, f"{stem}_scale"),
            numpy_helper.from_array(np.zeros(unit.shape, np.int32), f"{stem}_zero"),
        ]
    )
    node.input[2] = f"{stem}_float"
    inputs = [f"{stem}_int32", f"{stem}_scale", f"{stem}_zero"]
    return [helper.make_node("DequantizeLinear", inputs, [f"{stem}_float"], name=stem, axis=0)]
