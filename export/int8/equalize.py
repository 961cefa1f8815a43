"""Cross-layer equalisation: channels whose weights differ by orders of magnitude are brought to one size.

Between two weighted nodes that are joined by nothing but positively homogeneous operators a channel may be made smaller
if the next node's weights for it are made larger by as much: the function stays the same, and one scale fits all
channels. (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
from onnx import numpy_helper

from mmedge.types import AnyArray

# f(s x) = s f(x) for every s > 0, channel by channel.
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"})
_ROUNDS = 20
_CLOSE = 1.02


@dataclass(frozen=True)
class _Pair:
    first: onnx.NodeProto
    second: onnx.NodeProto


def equalize(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return a copy in which pairs of Conv and Gemm have weights of like size, and how many pairs were changed.

    Args:
        model: The fp32 network in normal form.

    Returns:
        The network, which computes the same, and the number of pairs.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    values = {name: numpy_helper.to_array(tensor).astype(np.float64) for name, tensor in weights.items()}
    pairs = _pairs(graph, values)
    changed: set[int] = set()
    for _ in range(_ROUNDS):
        widest = 1.0
        for number, pair in enumerate(pairs):
            before = _view(pair.first, values, "out")
            after = _view(pair.second, values, "in")
            r1, r2 = np.abs(before).max(axis=1), np.abs(after).max(axis=1)
            usable = (r1 > 0) & (r2 > 0)
            scale = np.where(usable, np.sqrt(r1 / np.where(usable, r2, 1.0)), 1.0)
            if not np.isfinite(scale).all() or (ratio := scale.max() / scale.min()) < _CLOSE:
                continue
            # Only what differs between channels matters: a common factor is left where it is.
            scale /= np.exp(np.log(scale).mean())
            widest = max(widest, ratio)
            changed.add(number)
            _set(pair.first, values, "out", before / scale[:, None])
            _set(pair.second, values, "in", after * scale[:, None])
            if len(pair.first.input) > 2 and pair.first.input[2]:
                values[pair.first.input[2]] = values[pair.first.input[2]] / scale
        if widest < _CLOSE:
            break
    for name, tensor in weights.items():
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(values[name].astype(np.float32), name))
    return copied, len(changed)


def _pairs(graph: onnx.GraphProto, values: dict[str, AnyArray]) -> list[_Pair]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    pairs: list[_Pair] = []
    for first in graph.node:
        if not _weighted(first, values, readers):
            continue
        node = first
        while True:
            following = readers.get(node.output[0], [])
            if len(following) != 1 or node.output[0] in outputs or following[0].input[0] != node.output[0]:
                break
            node = following[0]
            if _weighted(node, values, readers):
                if _channels(first, values) == _channels_in(node, values):
                    pairs.append(_Pair(first, node))
                break
            if node.op_type == "PRelu" and node.input[1] not in values:
                break
            # Behind a Flatten each channel must still be one value: the number of columns of what follows tells.
            if node.op_type not in _HOMOGENEOUS and node.op_type != "Flatten":
                break
    return pairs


def _weighted(node: onnx.NodeProto, values: dict[str, AnyArray], readers: dict[str, list[onnx.NodeProto]]) -> bool:
    """Tell whether a node's weights and bias are its own, so that they may be changed."""
    if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
        return False
    if node.op_type == "Gemm" and any(
        (a.name == "transA" and a.i) or (a.name in ("alpha", "beta") and a.f != 1.0) for a in node.attribute
    ):
        return False
    own = [name for name in node.input[1:3] if name]
    if not all(name in values and len(readers[name]) == 1 for name in own):
        return False
    return len(own) < 2 or values[own[1]].shape == (_channels(node, values),)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _channels(node: onnx.NodeProto, values: dict[str, AnyArray]) -> int:
    weight = values[node.input[1]]
    return int(weight.shape[0] if node.op_type == "Conv" or _attribute(node, "transB", 0) else weight.shape[1])


def _channels_in(node: onnx.NodeProto, values: dict[str, AnyArray]) -> int:
    weight = values[node.input[1]]
    if node.op_type == "Conv":
        return int(weight.shape[1]) * _attribute(node, "group", 1)
    return int(weight.shape[1] if _attribute(node, "transB", 0) else weight.shape[0])


def _view(node: onnx.NodeProto, values: dict[str, AnyArray], side: str) -> AnyArray:
    """Return a node's weights as [channels, rest], channels being those that it gives (``out``) or takes (``in``)."""
    weight = values[node.input[1]]
    if node.op_type == "Gemm":
        rows = weight if _attribute(node, "transB", 0) else weight.T  # [out, in]
        return rows if side == "out" else rows.T
    if side == "out":
        return cast("AnyArray", weight.reshape(weight.shape[0], -1))
    groups = _attribute(node, "group", 1)
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return cast("AnyArray", split.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1))


def _set(node: onnx.NodeProto, values: dict[str, AnyArray], side: str, view: AnyArray) -> None:
    """Write back what ``_view`` returned."""
    shape = values[node.input[1]].shape
    if node.op_type == "Gemm":
        rows = view if side == "out" else view.T
        values[node.input[1]] = rows if _attribute(node, "transB", 0) else rows.T
    elif side == "out":
        values[node.input[1]] = view.reshape(shape)
    else:
        groups = _attribute(node, "group", 1)
        split = view.reshape(groups, shape[1], shape[0] // groups, -1)
        values[node.input[1]] = split.transpose(0, 2, 1, 3).reshape(shape)
