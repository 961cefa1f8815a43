"""The forms in which a network is quantised: which of the chosen nodes each takes, and how it writes them.

All start from one normal form, one choice of nodes and one set of ranges. TensorRT's parser takes each as it is written
here: symmetric, without zero points other than 0, biases in float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.types import AnyArray, FloatArray, Precision

from ..onnx.clean import strip
from ..onnx.graphs import drop_unused, free_ending, free_start, replace_nodes
from .qdq import WEIGHTED, data_inputs, insert_checked

# Model, nodes, tensor -> magnitude of the largest value, what it is -> quantised, node -> why it stays float.
Insert = Callable[[onnx.ModelProto, Collection[str], Mapping[str, float], str], tuple[onnx.ModelProto, dict[str, str]]]
Constants = Mapping[str, onnx.TensorProto]
FP8_LARGEST = 448.0
# TensorRT has kernels for blocks of 64 and 128 (TensorRT-RTX takes others, too): the smaller loses less.
INT4_BLOCK = 64
# Rules of INT4: a block's largest weight is the largest value, or the cut-off with the least square error. On a trained
# perceptron the first gave 2.5 dB more, on random weights the second 2.8 dB: both are tried.
_WHOLE = np.ones(1, np.float32)
_CUT = np.linspace(0.7, 1.0, 13, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How networks are quantised in one precision.

    Attributes:
        precision: Its name.
        opset: The least in which it can be written.
        refuses: Says why a node that INT8 takes stays float; None where it does not.
        insert: Writes it.
        rule: What there is in place of ranges of activations, ``blocks of 64``; None where they have ranges.
        by_rule: Rule -> what writes it by that rule, where ranges are not all that follows a rule.
    """

    precision: Precision
    opset: int
    refuses: Callable[[onnx.NodeProto, Constants], str | None]
    insert: Insert
    rule: str | None = None
    by_rule: Mapping[str, Insert] = field(default_factory=dict)

    def by(self, rule: str) -> Insert:
        """Return what writes it by a rule."""
        return self.by_rule.get(rule, self.insert)

    def tensors(self, model: onnx.ModelProto, nodes: Collection[str]) -> tuple[str, ...]:
        """Return the tensors that need a range: what enters ``nodes``, without weights."""
        if self.rule is not None:
            return ()
        constants = {tensor.name for tensor in model.graph.initializer}
        chosen = [node for node in model.graph.node if node.name in nodes]
        return tuple(dict.fromkeys(n for node in chosen for n in data_inputs(node) if n not in constants))


def _takes_all(node: onnx.NodeProto, constants: Constants) -> str | None:
    return None


def _fp8_refuses(node: onnx.NodeProto, constants: Constants) -> str | None:
    # TensorRT moves pairs of INT8 through additions and pools; of FP8 it does so with products alone.
    return None if node.op_type in WEIGHTED else f"{node.op_type} gains nothing from fp8"


def _int4_refuses(node: onnx.NodeProto, constants: Constants) -> str | None:
    if node.op_type not in ("MatMul", "Gemm"):
        return f"{node.op_type} does not sum along its last two axes, where TensorRT takes blocks of int4"
    shape = constants[node.input[1]].dims
    if len(shape) != 2:
        return "its weights are a matrix for each item"
    rows = shape[_summed(node)]
    return f"it sums {rows} products, not a multiple of {INT4_BLOCK}" if rows % INT4_BLOCK else None


def _summed(node: onnx.NodeProto) -> int:
    """Return the axis of a product's weights along which it sums."""
    return int(any(attribute.name == "transB" and attribute.i for attribute in node.attribute))


def insert_fp8(
    model: onnx.ModelProto, nodes: Collection[str], thresholds: Mapping[str, float], where: str
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy with E4M3 Q/DQ pairs in front of ``nodes``, and their weights stored in it, all per tensor.

    Args:
        model: The fp32 network in normal form, in opset 19 or later.
        nodes: Names of the nodes to quantise.
        thresholds: Tensor -> magnitude that becomes 448, the largest of E4M3.
        where: For messages; nothing is refused here.
    """
    writer = _Writer(model, "fp8")
    zero = writer.constant("zero", np.zeros((), ml_dtypes.float8_e4m3fn))
    for node in writer.each(nodes):
        source, weight = node.input[:2]
        scale = writer.constant(f"{source}/scale", np.float32(thresholds[source] / FP8_LARGEST))
        pair = f"{node.name}{writer.ending}data"
        writer.add(node, "QuantizeLinear", [source, scale, zero], f"{pair}/q")
        node.input[0] = writer.add(node, "DequantizeLinear", [f"{pair}/q", scale, zero], pair)
        stored, own = writer.stored(weight, _fp8_weights)
        node.input[1] = writer.add(node, "DequantizeLinear", [stored, own, zero], f"{node.name}{writer.ending}weight")
    return writer.written(), {}


def insert_int4(
    model: onnx.ModelProto,
    nodes: Collection[str],
    thresholds: Mapping[str, float],
    where: str,
    *,
    shares: FloatArray = _WHOLE,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy whose ``nodes`` have weights of four bits, with a scale for each block along what they sum.

    Args:
        model: The fp32 network in normal form, in opset 21 or later.
        nodes: Names of the products to quantise.
        thresholds: Of no use: activations stay float.
        where: For messages; nothing is refused here.
        shares: float32 [n], cut-offs to try, as shares of a block's largest weight.
    """
    writer = _Writer(model, "int4")
    for node in writer.each(nodes):
        axis = _summed(node)
        stored, own = writer.stored(node.input[1], partial(int4_blocks, axis=axis, shares=shares), f"/{axis}")
        made = f"{node.name}{writer.ending}weight"
        node.input[1] = writer.add(node, "DequantizeLinear", [stored, own], made, axis=axis, block_size=INT4_BLOCK)
    return writer.written(), {}


def _fp8_weights(weight: AnyArray) -> tuple[AnyArray, AnyArray]:
    scale = np.float32(float(np.abs(weight).max(initial=0.0)) / FP8_LARGEST or 1.0)
    return np.clip(weight / scale, -FP8_LARGEST, FP8_LARGEST).astype(ml_dtypes.float8_e4m3fn), scale


def int4_blocks(weight: FloatArray, axis: int, shares: FloatArray = _WHOLE) -> tuple[AnyArray, FloatArray]:
    """Return weights of four bits and the scale of each block of ``INT4_BLOCK`` along an axis.

    Args:
        weight: float32 [K, N], or [N, K].
        axis: That of K, a multiple of the block.
        shares: float32 [n], cut-offs to try, of a block's largest weight; the one with the least square error is taken.

    Returns:
        int4 of the shape of ``weight``; float32, the same with K / 64 in place of K.
    """
    last = np.moveaxis(weight, axis, -1)
    blocks = last.reshape(*last.shape[:-1], -1, INT4_BLOCK)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    largest = np.where(largest > 0, largest, np.float32(1))
    best = np.full(largest.shape, np.inf, np.float32)
    scale, codes = largest / 7, np.zeros(blocks.shape, np.float32)
    for share in shares:
        tried = (largest * (share / np.float32(7))).astype(np.float32)
        rounded = np.clip(np.rint(blocks / tried), -8, 7)
        error = np.square(rounded * tried - blocks).sum(axis=-1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        scale, codes = np.where(better, tried, scale), np.where(better, rounded, codes)
    shaped = np.moveaxis(codes.reshape(last.shape), -1, axis).astype(ml_dtypes.int4)
    return shaped, np.ascontiguousarray(np.moveaxis(scale[..., 0], -1, axis))


class _Writer:
    """Puts nodes in front of others in a copy of a network."""

    def __init__(self, model: onnx.ModelProto, kind: str) -> None:
        self._model, self._kind = onnx.ModelProto(), free_start(model, f"{kind}/").removesuffix("/")
        self._model.CopyFrom(model)
        self.ending = free_ending(model, f"/{kind}/")
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: dict[str, str] = {}
        self._front: dict[str, list[onnx.NodeProto]] = {}

    def each(self, nodes: Collection[str]) -> list[onnx.NodeProto]:
        """Return the nodes to change, in place."""
        return [node for node in self._model.graph.node if node.name in nodes]

    def constant(self, name: str, value: AnyArray) -> str:
        """Add a constant once and return its name."""
        full = f"{self._kind}/{name}"
        if full not in self._made:
            self._made[full] = full
            self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def stored(
        self, weight: str, quantise: Callable[[AnyArray], tuple[AnyArray, AnyArray]], kind: str = ""
    ) -> tuple[str, str]:
        """Store a weight in another type once; return the names of its codes and of its scales."""
        names = f"{weight}{kind}/codes", f"{weight}{kind}/scale"
        if f"{self._kind}/{names[0]}" not in self._made:
            for name, value in zip(names, quantise(numpy_helper.to_array(self._weights[weight])), strict=True):
                self.constant(name, value)
        return f"{self._kind}/{names[0]}", f"{self._kind}/{names[1]}"

    def add(self, before: onnx.NodeProto, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Put a node in front of another one and return what it makes."""
        made = helper.make_node(op, inputs, [output], name=output, **attributes)
        self._front.setdefault(before.name, []).append(made)
        return output

    def written(self) -> onnx.ModelProto:
        """Return the network, checked."""
        graph = self._model.graph
        replace_nodes(graph, [new for node in graph.node for new in (*self._front.get(node.name, ()), node)])
        drop_unused(graph)
        del graph.value_info[:]
        # Newer files than what a network was exported with hold these types.
        self._model.ir_version = max(self._model.ir_version, 10)
        result = onnx.shape_inference.infer_shapes(self._model)
        strip(result)
        onnx.checker.check_model(result, full_check=True)
        return result


INT8 = Form(precision="int8", opset=13, refuses=_takes_all, insert=insert_checked)
FP8 = Form(precision="fp8", opset=19, refuses=_fp8_refuses, insert=insert_fp8)
INT4 = Form(
    precision="int4",
    opset=21,
    refuses=_int4_refuses,
    insert=insert_int4,
    rule=f"blocks of {INT4_BLOCK}",
    by_rule={"mse": partial(insert_int4, shares=_CUT)},
)
FORMS: Mapping[str, Form] = {form.precision: form for form in (INT8, FP8, INT4)}
