"""Which nodes become int8, and the Q/DQ pairs in front of them, in the one form that TensorRT's parser takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from ..onnx.clean import strip

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Int8 beside a weighted node: otherwise TensorRT converts int8 -> float -> int8 around each of them.
_JOINING = frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean"})
# Keep a tensor's scale (a builder moves the next pair in front of them), or fold into the kernel before them.
_PASSING = frozenset(
    {"Relu", "Clip", "LeakyRelu", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
    | {"Slice", "Pad"}
)


def quantizable(model: onnx.ModelProto, masks: Collection[str]) -> list[str]:
    """Return the names of the nodes that run in int8.

    Weighted nodes do; additions, concatenations and pools do where what they give reaches a weighted node;
    sums of probabilities, Sigmoid, Softmax, products and whatever takes the presence mask stay float.

    Args:
        model: The fp32 network.
        masks: Inputs that carry presence or age, not data.

    Returns:
        Node names, in graph order.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    from_mask = set(masks)
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if inputs and all(name in from_mask for name in inputs):
            from_mask.update(node.output)
    reaching: set[str] = set()
    chosen: list[str] = []
    for node in reversed(graph.node):
        data = [name for name in node.input if name and name not in constants]
        weighted = node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in constants
        onward = any(output in reaching for output in node.output)
        joining = node.op_type in _JOINING and onward and not (node.op_type == "Add" and len(data) < 2)
        if from_mask.intersection(data):
            continue
        if weighted or joining:
            chosen.append(node.name)
        if weighted or joining or (node.op_type in _PASSING and onward):
            reaching.update(data)
    return chosen[::-1]


def activations(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return the float tensors that enter ``nodes``, without weights: those that need a range."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [name for node in model.graph.node if node.name in nodes for name in node.input if name]
    return list(dict.fromkeys(name for name in names if name not in constants))


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
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    strip(result)
    onnx.checker.check_model(result, full_check=True)
    return result
