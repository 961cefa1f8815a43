"""Bounds in one form: a Min or Max with a constant is a Clip, however the exporter wrote it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .folding import Known, to_tensor
from .graphs import drop_unused, fresh, reads, tensor_names

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_OPSET = 11  # since when the bounds of a Clip are tensors


def write_clips(model: onnx.ModelProto, known: Mapping[str, Known]) -> None:
    """Write Max(x, 0) as Relu, Min and Max with one number as Clip, and two Clips in a row as one, in place.

    A Clip folds into the layer before it, and INT8 then rounds what is left, not what will be cut off.

    Args:
        model: A network whose constants are weights of the outermost graph; its nodes are sorted.
        known: What is known of its tensors.
    """
    if max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0) < _OPSET:
        return
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken, ours = tensor_names(graph), set[str]()
    for node in graph.node:
        if node.op_type not in ("Min", "Max") or node.domain not in ("", "ai.onnx") or len(node.input) != 2:
            continue
        data = next((name for name in node.input if name not in weights), "")
        bound = next((weights[name] for name in node.input if name in weights), None)
        if bound is None or not _is_number(bound, known.get(data)):
            continue
        value = numpy_helper.to_array(bound).reshape(())
        name = fresh(f"{node.output[0]}/bound", taken)
        graph.initializer.append(to_tensor(name, value))
        node.input[:] = [data, name] if node.op_type == "Max" else [data, "", name]
        node.op_type = "Clip"
        ours.add(node.output[0])
    if not ours:
        return
    _join(graph, ours)
    values = _numbers(graph)
    for node in graph.node:
        if node.op_type == "Clip" and node.output[0] in ours and len(node.input) == 2 and values[node.input[1]] == 0:
            node.op_type = "Relu"
            del node.input[1]
    drop_unused(graph)


def _is_number(bound: onnx.TensorProto, data: Known | None) -> bool:
    """Tell whether a constant is one float that leaves the shape of ``data`` as it is."""
    if bound.data_type not in _FLOATS or int(np.prod(bound.dims)) != 1 or np.isnan(numpy_helper.to_array(bound)).any():
        return False
    return not bound.dims or (data is not None and data.dims is not None and len(data.dims) >= len(bound.dims))


def _join(graph: onnx.GraphProto, ours: set[str]) -> None:
    """Let the second of two Clips do what both did, where one of them was made here and nothing else reads between."""
    outputs = {value.name for value in graph.output}
    made = {node.output[0]: node for node in graph.node if node.op_type == "Clip" and node.domain in ("", "ai.onnx")}
    values = _numbers(graph)
    for node in list(made.values()):
        before = made.get(node.input[0])
        if before is None or not ours & {node.output[0], before.output[0]} or before.output[0] in outputs:
            continue
        if sum(before.output[0] in reads(other) for other in graph.node) != 1:
            continue
        bounds = [[*each.input[1:], "", ""][:2] for each in (before, node)]
        if not all(name == "" or name in values for pair in bounds for name in pair):
            continue
        low, high = ([pair[place] for pair in bounds if pair[place]] for place in (0, 1))
        lowest = max(low, key=lambda name: values[name], default="")
        highest = min(high, key=lambda name: values[name], default="")
        if min((values[name] for name in high), default=np.inf) < max((values[name] for name in low), default=-np.inf):
            continue
        node.input[:] = [before.input[0], lowest, *([highest] if highest else [])]
        ours.add(node.output[0])
        graph.node.remove(before)
        del made[before.output[0]]


def _numbers(graph: onnx.GraphProto) -> dict[str, float]:
    return {t.name: float(numpy_helper.to_array(t).item()) for t in graph.initializer if _is_number(t, None)}
