"""Where ONNX Runtime has 8-bit kernels on CPUs: what must be rounded around them, and what they are written as."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.types import AnyArray

HARD = frozenset({"HardSwish", "HardSigmoid"})
# They have a kernel where all that they take and all that they give is rounded.
_ROUNDED = HARD | {"Sigmoid", "LeakyRelu", "Mul", "Add", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean"}
# They become part of the rounding behind them, or move what is rounded already.
_PASSING = frozenset({"Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
_HARD_SWISH = (1 / 6, 0.5)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What runs on 8-bit kernels beside the layers that were quantised.

    Attributes:
        nodes: Names of nodes that take and give rounded tensors, or pass on what will be rounded.
        tensors: Tensors between them, and behind layers, that are not rounded yet, in the order in which they are made.
    """

    nodes: frozenset[str]
    tensors: tuple[str, ...]


def find_kernels(graph: onnx.GraphProto, layers: Collection[str], rounded: Collection[str]) -> Kernels:
    """Find what can run on 8-bit kernels between convolutions.

    A convolution has one only if what it gives is rounded, too: so its activation has to take and to give rounded
    tensors. What no rounded tensor depends on stays as it is, and so do outputs of the network.

    Args:
        graph: Without Q/DQ pairs of activations; sorted.
        layers: Names of the quantised nodes.
        rounded: Tensors that they take.
    """
    outputs = {value.name for value in graph.output}
    reachable = set(rounded)
    able: set[str] = set()
    for node in graph.node:
        data, free = _data(node), not outputs.intersection(node.output)
        if free and node.op_type == "Conv" and node.name in layers:
            reachable.update(node.output)
        elif free and reachable.issuperset(data) and (_has_kernel(node) or node.op_type in _PASSING):
            reachable.update(node.output)
            able.add(node.name)
    wanted = set(rounded)
    nodes: set[str] = set()
    ends: set[str] = set()
    for node in reversed(graph.node):
        if node.name in able and wanted.intersection(node.output):
            nodes.add(node.name)
            wanted.update(_data(node))
            if node.op_type not in _PASSING:
                ends.update(_data(node))
    between = [name for node in graph.node for name in node.output if name in ends and name not in rounded]
    return Kernels(nodes=frozenset(nodes), tensors=tuple(between))


def _data(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type in ("Mul", "Add", "Concat") else list(node.input[:1])


def _has_kernel(node: onnx.NodeProto) -> bool:
    if node.op_type == "HardSigmoid":
        slope, offset = hard_line(node)
        return slope > 0 and 0 <= offset <= 1
    return node.op_type in _ROUNDED


def hard_line(node: onnx.NodeProto) -> tuple[float, float]:
    """Return slope and offset of the line that HardSigmoid, or the factor in HardSwish, cuts off at 0 and 1."""
    if node.op_type == "HardSwish":
        return _HARD_SWISH
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return float(given.get("alpha", 0.2)), float(given.get("beta", 0.5))


class KernelWriter:
    """Writes nodes that take rounded tensors so that ONNX Runtime finds its 8-bit kernels.

    Args:
        graph: Gets their constants.
        start: How names of what is added begin.
    """

    def __init__(self, graph: onnx.GraphProto, start: str) -> None:
        self._graph, self._start, self._made = graph, start, set[str]()
        self._fixed = {tensor.name: tensor for tensor in graph.initializer}

    def __call__(self, node: onnx.NodeProto, rank: int | None) -> list[onnx.NodeProto]:
        """Return what stands in place of a node; mostly the node.

        Args:
            node: It takes a rounded tensor. What is written for HardSigmoid is rounded, too.
            rank: Of what it takes, where that is known.
        """
        if node.op_type in HARD:
            return self._hard(node)
        given = {attribute.name: attribute for attribute in node.attribute}
        make = helper.make_node
        if node.op_type == "Flatten" and ("axis" not in given or given["axis"].i == 1):
            shape = self._constant("flat", np.array([0, -1], np.int64))  # roundings move through Reshape, not Flatten
            return [make("Reshape", [node.input[0], shape], node.output[:1], name=node.name)]
        if node.op_type != "ReduceMean" or rank != 4 or sorted(a % 4 for a in self._axes(node)) != [2, 3]:
            return [node]
        if "keepdims" not in given or given["keepdims"].i:
            return [make("GlobalAveragePool", node.input[:1], node.output[:1], name=node.name)]
        pool = f"{self._start}{node.name}/pool"
        axes = self._constant("area", np.array([2, 3], np.int64))
        return [
            make("GlobalAveragePool", node.input[:1], [pool], name=pool),
            make("Squeeze", [pool, axes], node.output[:1], name=node.name),
        ]

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        if len(node.input) > 1:
            held = self._fixed.get(node.input[1])
            return [] if held is None else [int(axis) for axis in numpy_helper.to_array(held).ravel()]
        return [axis for attribute in node.attribute if attribute.name == "axes" for axis in attribute.ints]

    def _hard(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return HardSwish or HardSigmoid as an addition and a product.

        ``clip(slope * x + offset, 0, 1)`` is ``x + offset / slope``, rounded to 256 steps from 0 to ``1 / slope``,
        which cuts it off as it has to be, and read again as steps from 0 to 1.
        """
        slope, offset = hard_line(node)
        stem = f"{self._start}{node.name}"
        zero, full = self._constant("zero", np.uint8(0)), self._constant("full", np.uint8(255))
        narrow = self._constant(f"{slope:.9g}", np.float32(1 / slope / 255))
        one = self._constant("one", np.float32(1 / 255))
        shift = self._constant(f"{slope:.9g}/{offset:.9g}", np.float32(offset / slope / 255))
        factor = node.output[0] if node.op_type == "HardSigmoid" else f"{stem}/factor"
        make = helper.make_node
        nodes = [
            make("DequantizeLinear", [full, shift, zero], [f"{stem}/shift"], name=f"{stem}/shift"),
            make("Add", [node.input[0], f"{stem}/shift"], [f"{stem}/sum"], name=f"{stem}/sum"),
            make("QuantizeLinear", [f"{stem}/sum", narrow, zero], [f"{stem}/q"], name=f"{stem}/q"),
            make("DequantizeLinear", [f"{stem}/q", one, zero], [factor], name=f"{stem}/factor"),
        ]
        if node.op_type == "HardSwish":
            nodes.append(make("Mul", [node.input[0], factor], [node.output[0]], name=node.name))
        return nodes

    def _constant(self, name: str, value: AnyArray | np.generic) -> str:
        full = f"{self._start}{name}"
        if full not in self._made:
            self._made.add(full)
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full
