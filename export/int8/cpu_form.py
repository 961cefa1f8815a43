"""The INT8 form of CPUs: unsigned activations and 32-bit biases, so that ONNX Runtime finds its 8-bit kernels.

It is made of TensorRT's form, which was calibrated and compared: each tensor is cut off at the same magnitude, in steps
that are never wider. What has a lower bound (Relu, HardSwish, Sigmoid) gets all 256 of them from there up, which takes
a Relu into the rounding. TensorRT rounds in front of layers alone; here what lies between layers is rounded as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.bundle.onnx_file import PAIRS_FIT
from mmedge.types import AnyArray

from ..onnx.graphs import drop_unused, free_ending, free_start, reads, replace_nodes, sort_nodes
from .bounds import ANY, Bounds, bounds
from .cpu_kernels import HARD, Kernels, KernelWriter, find_kernels, hard_line
from .pairs import fit_weights

_LEAST = 1e-30  # of a range: a step is a normal number in float32


def to_cpu_form(
    model: onnx.ModelProto, ranges: Mapping[str, float] | None = None, *, pairs: bool = True
) -> onnx.ModelProto:
    """Return a copy of a network in TensorRT's INT8 form in that of CPUs; one without Q/DQ comes back as it is.

    Args:
        model: Q/DQ pairs of int8 with zero point 0, as ``insert_qdq`` writes them; weights stay as they are.
        ranges: Tensor -> magnitude that is kept of it, of tensors that TensorRT does not round (``find_kernels``);
            one that is missing stays float, and so do the convolutions that need it.
        pairs: Round weights so that pairs of products fit into 16 bits (``fit_pairs``), and note that. Otherwise CPUs
            without VNNI take kernels that cannot saturate, which are slower.

    Returns:
        The network: one pair of uint8 per tensor, behind which weighted nodes have int32 biases.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    limits, places = _take_pairs(graph, constants)
    if not limits:
        return result
    if pairs and fit_weights(graph, places.keys()):
        onnx.helper.set_model_props(result, {PAIRS_FIT: "1"})
    constants.update((tensor.name, numpy_helper.to_array(tensor)) for tensor in graph.initializer)
    kernels = find_kernels(graph, places.keys(), limits.keys())
    extra = {name: ranges[name] for name in kernels.tensors if name in ranges} if ranges else {}
    form = _Form(model, graph, {**limits, **extra}, kernels, plain=limits.keys())
    made = {name: node for node in graph.node for name in node.output}
    write = KernelWriter(graph, free_start(model, "cpu/"))
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        rank = len(shapes[node.input[0]].dim) if node.input and node.input[0] in shapes else None
        for place in range(len(node.input)) if node.name in kernels.nodes else places.get(node.name, ()):
            node.input[place] = form.rounded.get(node.input[place], node.input[place])
        nodes += form.bias(node, made, constants)
        rounded = node.op_type == "Flatten" or (node.input and node.input[0] in form.scales)
        nodes += write(node, rank) if rounded and node.name in kernels.nodes else [node]
    replace_nodes(graph, [*nodes, *form.pairs])
    sort_nodes(graph)
    drop_unused(graph)
    del graph.value_info[:]
    result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
    onnx.checker.check_model(result, full_check=True)
    return result


def _take_pairs(
    graph: onnx.GraphProto, constants: Mapping[str, AnyArray]
) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Take the Q/DQ pairs of activations out of a graph, in place; those of one tensor are alike.

    Returns:
        Tensor -> magnitude of the int8 value 127; node -> which of its inputs were rounded.
    """
    limits: dict[str, float] = {}
    behind: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            limits.setdefault(node.input[0], 127 * float(constants[node.input[1]]))
            behind[node.output[0]] = node.input[0]
        elif node.op_type == "DequantizeLinear" and node.input[0] in behind:
            behind[node.output[0]] = behind[node.input[0]]
    rounded: dict[str, list[int]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in behind:
                node.input[place] = behind[name]
                rounded.setdefault(node.name, []).append(place)
    replace_nodes(graph, [node for node in graph.node if node.output[0] not in behind])
    return limits, rounded


class _Form:
    """The pairs of a network, written into it.

    Args:
        model: The network as it was, for names that are free.
        graph: Without pairs; gets their constants.
        limits: Tensor -> magnitude that is kept of it.
        kernels: What else runs on 8-bit kernels.
        plain: Tensors that TensorRT rounds, too.

    Attributes:
        pairs: Their nodes.
        rounded: Tensor -> what stands for it behind its pair.
        scales: That -> the width of its steps.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        graph: onnx.GraphProto,
        limits: Mapping[str, float],
        kernels: Kernels,
        plain: Collection[str],
    ) -> None:
        self.pairs: list[onnx.NodeProto] = []
        self.rounded: dict[str, str] = {}
        self.scales: dict[str, float] = {}
        self._graph = graph
        scale_end, zero_end, codes_end, self._bias_end = (
            free_ending(model, f"/cpu_{what}") for what in ("scale", "zero", "codes", "bias")
        )
        value_end = free_ending(model, "/cpu")
        known, cut = bounds(graph), _cut_off(graph, kernels)
        hard = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "HardSigmoid" and n.name in kernels.nodes}
        for tensor, limit in limits.items():
            if tensor in hard and hard[tensor] in limits and tensor not in plain:
                self.rounded[tensor] = tensor  # it is written as codes that are read again
                continue
            own = [known.get(tensor, ANY), cut.get(tensor, ANY)]
            scale, zero = steps(limit, max(low for low, _ in own), min(high for _, high in own))
            names = f"{tensor}{scale_end}", f"{tensor}{zero_end}"
            for name, value in zip(names, (scale, zero), strict=True):
                graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
            codes, value_name = f"{tensor}{codes_end}", f"{tensor}{value_end}"
            self.pairs += [
                helper.make_node("QuantizeLinear", [tensor, *names], [codes], name=codes),
                helper.make_node("DequantizeLinear", [codes, *names], [value_name], name=value_name),
            ]
            self.rounded[tensor] = value_name
            self.scales[value_name] = float(scale)

    def bias(
        self, node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], constants: Mapping[str, AnyArray]
    ) -> list[onnx.NodeProto]:
        """Turn the float bias of a node into int32, in units of what the node sums; return what makes it float."""
        weight = made.get(node.input[1]) if len(node.input) > 2 else None
        if (
            node.op_type not in ("Conv", "ConvTranspose", "Gemm")
            or node.input[0] not in self.scales
            or weight is None
            or weight.op_type != "DequantizeLinear"
            or node.input[2] not in constants
            # Only a plain sum of products counts in those units.
            or any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute)
        ):
            return []
        bias = constants[node.input[2]]
        unit = (np.float64(self.scales[node.input[0]]) * constants[weight.input[1]].astype(np.float64)).astype(
            np.float32
        )
        if node.op_type == "ConvTranspose" and unit.ndim == 1:  # its weights have a scale for each channel of a group
            unit = np.tile(unit, next((a.i for a in node.attribute if a.name == "group"), 1))
        if bias.ndim != 1 or (unit.ndim == 1 and unit.shape != bias.shape):
            return []
        counts = np.rint(bias.astype(np.float64) / unit)
        if np.abs(counts).max(initial=0.0) >= 2**31:
            return []
        stem = f"{node.name}{self._bias_end}"
        self._graph.initializer.extend(
            [
                numpy_helper.from_array(counts.astype(np.int32), f"{stem}_int32"),
                numpy_helper.from_array(unit, f"{stem}_scale"),
                numpy_helper.from_array(np.zeros(unit.shape, np.int32), f"{stem}_zero"),
            ]
        )
        node.input[2] = f"{stem}_float"
        inputs = [f"{stem}_int32", f"{stem}_scale", f"{stem}_zero"]
        return [helper.make_node("DequantizeLinear", inputs, [f"{stem}_float"], name=stem, axis=0)]


def steps(limit: float, low: float = -math.inf, high: float = math.inf) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of 256 steps from ``-limit`` to ``limit``, or between bounds that are closer.

    Args:
        limit: Magnitude beyond which a tensor is cut off.
        low: What it is never below, at most 0 or it counts as 0.
        high: What it is never above, at least 0 or it counts as 0.
    """
    low, high = max(min(low, 0.0), -limit), min(max(high, 0.0), limit)
    if low == -limit and high == limit:
        return np.float32(limit / 127), np.uint8(128)  # as far as TensorRT's, which has no -128
    if high - low < _LEAST:
        return np.float32(limit / 255), np.uint8(0)  # it is always zero
    scale = (high - low) / 255
    return np.float32(scale), np.uint8(round(-low / scale))


def _cut_off(graph: onnx.GraphProto, kernels: Kernels) -> dict[str, Bounds]:
    """Return the bounds beyond which a tensor makes no difference to what reads it: HardSwish is 0 below -3."""
    kept: dict[str, list[Bounds]] = {}
    for node in graph.node:
        for name in reads(node):
            slope, offset = hard_line(node) if node.op_type in HARD and node.name in kernels.nodes else (0.0, 0.0)
            high = math.inf if node.op_type == "HardSwish" else (1 - offset) / slope if slope else math.inf
            kept.setdefault(name, []).append((-offset / slope, high) if slope else ANY)
    for value in graph.output:
        kept.setdefault(value.name, []).append(ANY)
    return {name: (min(low for low, _ in own), max(high for _, high in own)) for name, own in kept.items()}
