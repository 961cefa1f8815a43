"""Which nodes become int8, and the Q/DQ pairs in front of them, in the one form that TensorRT's parser takes."""

from __future__ import annotations

import logging
import re
from collections import Counter
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
from ..onnx.graphs import all_nodes, defined, fresh, rename, subgraphs, tensor_names
from ..onnx.network_file import tensors_of

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# They have weights, but no explicit Q/DQ form that TensorRT takes; the last ones only where an input is a weight.
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_OTHERS = frozenset({"Einsum", "DeformConv", "FusedConv", "FusedGemm", "FusedMatMul", "FusedMatMulActivation"})
_OTHERS |= {"Attention", "EmbedLayerNormalization", "GemmFastGelu", "TransposeMatMul", "BiasSplitGelu", "NhwcConv"}
# Int8 beside a weighted node: otherwise TensorRT converts int8 -> float -> int8 around each of them.
_JOINING = frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean"})
# Keep a tensor's scale (a builder moves the next pair in front of them), or fold into the kernel before them.
_PASSING = frozenset(
    {"Relu", "Clip", "LeakyRelu", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
    | {"Slice", "Pad"}
)
_FLOAT = "tensor(float)"
# What ONNX Runtime's quantizer adds to the name of a tensor for what it puts beside it.
_ADDED = re.compile(r"(.*?)_(scale|zero_point|quantized|QuantizeLinear\w*|DequantizeLinear\w*)$", re.DOTALL)
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
    if node.op_type in _OTHERS and (node.domain or node.op_type != "Attention"):
        return any(name in constants for name in node.input)
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
    if node.op_type in _RECURRENT | _OTHERS:
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
    numbered = _number_tensors(copied) if _has_names_of_quantizer(copied) else {name: name for name in thresholds}
    ranges = {
        numbered[name]: TensorData(lowest=np.float32(-value), highest=np.float32(value))
        for name, value in thresholds.items()
        if name in numbered
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
            "TensorQuantOverrides": {
                numbered.get(name, name): [{"symmetric": True}] for name in _batched(model, nodes)
            },
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    if numbered.keys() != set(numbered.values()):
        _name_tensors(result, numbered)
    strip(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _has_names_of_quantizer(model: onnx.ModelProto) -> bool:
    """Tell whether the network has a name that the quantizer may give: ``w_scale`` beside ``w``.

    It takes a tensor that has that name for its own. A bias that two nodes read becomes two, ``b0`` and ``b1``.
    """
    tensors = tensor_names(model.graph)
    biases = Counter(node.input[2] for node in model.graph.node if len(node.input) > 2)
    shared = {name for name, count in biases.items() if count > 1}
    for name in (*tensors, *(node.name for node in all_nodes(model.graph))):
        if (found := _ADDED.match(name)) and found[1] in tensors:
            return True
    return any(name.removeprefix(bias).isdigit() for bias in shared for name in tensors if name.startswith(bias))


def _number_tensors(model: onnx.ModelProto) -> dict[str, str]:
    """Give every tensor of the outermost graph a number for a name, in place; return name -> number."""
    graph = model.graph
    every = {*tensor_names(graph), *(node.name for node in all_nodes(graph))}
    stem = "t"
    while any(name.startswith(stem) for name in every):
        stem += "_"
    names = dict.fromkeys([*defined(graph), *(value.name for value in graph.output)])
    numbered = {name: f"{stem}{index}." for index, name in enumerate(names)}
    _rename_all(graph, numbered)
    return numbered


def _name_tensors(model: onnx.ModelProto, numbered: Mapping[str, str]) -> None:
    """Give tensors their names back, and what was added to them names that nothing else has, in place."""
    graph = model.graph
    own = {number: name for name, number in numbered.items()}
    nodes = [node.name for node in all_nodes(graph)]
    added = [name for name in defined(graph) if name not in own]
    taken = {*own.values(), *(tensor_names(graph) - own.keys() - set(added))}
    stem = next(iter(own), "").rstrip("0123456789.")

    def named(name: str) -> str:
        number = re.match(rf"{stem}\d+\.", name)
        return name if number is None else own[number[0]] + name[number.end() :]

    names = {**own, **{name: fresh(named(name), taken) for name in added}}
    _rename_all(graph, names)
    taken = set(nodes)
    for node in graph.node:
        if (name := named(node.name)) != node.name:
            node.name = fresh(name, taken)


def _rename_all(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    rename(graph, names)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


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
