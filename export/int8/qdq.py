"""Which nodes become int8, and the Q/DQ pairs in front of them, in the one form that TensorRT's parser takes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from mmedge.errors import CheckError

from ..onnx.clean import strip
from ..onnx.graphs import all_nodes, subgraphs
from ..onnx.network_file import tensors_of

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# They have weights, but no explicit Q/DQ form that TensorRT takes.
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
# Int8 beside a weighted node: otherwise TensorRT converts int8 -> float -> int8 around each of them.
_JOINING = frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean"})
# Keep a tensor's scale (a builder moves the next pair in front of them), or fold into the kernel before them.
_PASSING = frozenset(
    {"Relu", "Clip", "LeakyRelu", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
    | {"Slice", "Pad"}
)
_FLOAT = "tensor(float)"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which nodes of a network run in int8.

    Attributes:
        nodes: Their names, in graph order.
        reasons: Weighted node that does not -> why.
        tensors: Float tensors that enter ``nodes``, without weights: those that need a range.
    """

    nodes: tuple[str, ...]
    reasons: Mapping[str, str]
    tensors: tuple[str, ...]


def choose(model: onnx.ModelProto, masks: Collection[str], types: Mapping[str, str] | None = None) -> Choice:
    """Choose the nodes that run in int8.

    Weighted nodes do; additions, concatenations and pools do where what they give reaches a weighted node;
    sums of probabilities, Sigmoid, Softmax, products and whatever takes the presence mask stay float. Only what a node
    computes with is followed: shapes, indices and axes are not data.

    Args:
        model: The fp32 network in normal form: weights are initializers, nodes have names of their own.
        masks: Inputs that carry presence or age, not data.
        types: Tensor -> type, as ONNX Runtime says it; by default every tensor counts as float.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    from_mask = set(masks)
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if inputs and all(name in from_mask for name in inputs):
            from_mask.update(node.output)
    reaching: set[str] = set()
    chosen: list[str] = []
    reasons: dict[str, str] = {}
    for node in reversed(graph.node):
        data = [name for name in data_inputs(node) if name not in constants]
        weighted = has_weight(node, constants)
        why = _reason(node, constants, from_mask, types) if weighted else None
        if why is not None:
            reasons[node.name] = why
        if from_mask.intersection(data) or any(types is not None and types.get(n) != _FLOAT for n in data):
            continue
        onward = any(output in reaching for output in node.output)
        joining = node.op_type in _JOINING and onward and not (node.op_type == "Add" and len(data) < 2)
        quantised = (weighted and why is None) or joining
        if quantised:
            chosen.append(node.name)
        if quantised or (node.op_type in _PASSING and onward):
            reaching.update(data)
    fixed = {tensor.name for tensor in tensors_of(model)}
    for inner in (inner for node in graph.node for inner in subgraphs(node)):
        for node in all_nodes(inner):
            if has_weight(node, fixed):
                reasons[node.name or node.output[0]] = f"{node.op_type} lies within a branch or loop"
    names = chosen[::-1]
    entering = [n for node in graph.node if node.name in set(names) for n in data_inputs(node) if n not in constants]
    return Choice(nodes=tuple(names), reasons=dict(reversed(reasons.items())), tensors=tuple(dict.fromkeys(entering)))


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs that a node computes with: no bias, no shape, no axes, no bounds."""
    if node.op_type in ("Add", "Concat"):
        return [name for name in node.input if name]
    if node.op_type in ("Gemm", "MatMul"):
        return list(node.input[:2])
    return [name for name in node.input[:1] if name]


def has_weight(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Tell whether a node multiplies data by weights of its own: a product of two activations has none."""
    if node.op_type in _RECURRENT or node.op_type in ("Conv", "ConvTranspose"):
        return True
    return node.op_type in ("Gemm", "MatMul") and any(name in constants for name in node.input[:2])


def gemm_factor(node: onnx.NodeProto, name: str) -> float:
    """Return ``alpha`` or ``beta`` of a Gemm."""
    return next((float(a.f) for a in node.attribute if a.name == name), 1.0)


def gemm_width(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int | None:
    """Return how many numbers a Gemm gives for each row; None where its weights are computed."""
    weight = constants.get(node.input[1])
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return None if weight is None else weight.dims[0 if turned else 1]


def _reason(
    node: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    from_mask: Collection[str],
    types: Mapping[str, str] | None,
) -> str | None:
    """Say why a weighted node cannot run in int8; None if it can."""
    data = [name for name in data_inputs(node) if name not in constants]
    if node.op_type in _RECURRENT:
        return f"{node.op_type} has no explicit INT8 form"
    if any(name in from_mask for name in data):
        return "it takes the presence mask"
    weight = constants.get(node.input[1])
    if weight is None:
        return (
            "its weights are computed" if node.op_type in ("Conv", "ConvTranspose") else "its first factor is constant"
        )
    if not data:
        return "all that it takes is constant"
    if weight.data_type != TensorProto.FLOAT:
        return f"its weights are {TensorProto.DataType.Name(weight.data_type).lower()}"
    if len(weight.dims) < 2:
        return "its weights are one vector"
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] and gemm_factor(node, "beta") != 1.0:
        return f"its bias is computed and counts {gemm_factor(node, 'beta'):g} times"
    bias = constants.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) > 2 else None
    if bias is not None and list(bias.dims) != [gemm_width(node, constants)]:
        return "its bias differs from row to row"
    found = None if types is None else types.get(data[0])
    return None if found in (None, _FLOAT) else f"it takes {found}"


def insert_qdq(model: onnx.ModelProto, nodes: Collection[str], thresholds: Mapping[str, float]) -> onnx.ModelProto:
    """Return a copy with Q/DQ pairs in front of ``nodes``.

    Symmetric int8 with zero point 0, weights per channel and stored as int8, biases in float, one pair per
    consumer, nothing behind a node: the next one's pair decides, so heads and graph outputs stay float.

    Args:
        model: The fp32 network.
        nodes: Names of the nodes to quantise.
        thresholds: Tensor -> magnitude of the int8 value 127.

    Returns:
        The quantised network, topologically sorted and checked.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if not nodes:  # the quantizer takes an empty list for all nodes
        return copied
    operators = sorted(WEIGHTED | _JOINING)
    ranges = {
        name: TensorData(lowest=np.float32(-value), highest=np.float32(value)) for name, value in thresholds.items()
    }
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=operators,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "AddQDQPairToWeight": False,
            "OpTypesToExcludeOutputQuantization": operators,
            "TensorQuantOverrides": {name: [{"symmetric": True}] for name in _batched(model, nodes)},
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    strip(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _batched(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return weights of MatMul that are a matrix for each item: a scale for each column fits no kernel of theirs."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    found = [n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.name in nodes]
    return sorted({name for name in found if ranks.get(name, 2) > 2})


def _left_out(quantised: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return those of ``nodes`` that take something as data that is not int8, without a word of the quantizer."""
    int8 = {name for node in quantised.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [n.name for n in quantised.graph.node if n.name in nodes and not int8.issuperset(data_inputs(n))]


def insert_checked(
    model: onnx.ModelProto, nodes: Collection[str], thresholds: Mapping[str, float], where: str
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Insert the pairs, and leave float what the toolchain cannot quantise.

    Args:
        model: The fp32 network.
        nodes: Names of the nodes to quantise.
        thresholds: Tensor -> magnitude of the int8 value 127.
        where: For messages.

    Returns:
        The quantised network, and node -> why it stays float.

    Raises:
        CheckError: If the nodes can be quantised one by one, but not together.
    """
    refused: dict[str, str] = {}
    try:
        quantised = insert_qdq(model, nodes, thresholds)
    except Exception as error:
        for name in nodes:
            try:
                insert_qdq(model, [name], thresholds)
            except Exception as alone:
                _log.debug("%s: %s cannot be quantised", where, name, exc_info=alone)
                refused[name] = "ONNX Runtime's quantiser fails on it"
        if not refused:
            raise CheckError(
                f"the network cannot be quantised: {str(error).strip().splitlines()[0]}",
                where=where,
                fix='export precisions = ["fp32"], and report the network',
            ) from error
    else:
        refused = dict.fromkeys(_left_out(quantised, nodes), "ONNX Runtime's quantiser leaves it out")
        if not refused:
            return quantised, {}
    quantised, more = insert_checked(model, [name for name in nodes if name not in refused], thresholds, where)
    return quantised, refused | more
