"""Replace each ONNX If whose condition depends only on constants and shapes by the branch that it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmedge.types import AnyArray

_RANDOM = frozenset(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"))
Run = Callable[[onnx.ModelProto, Mapping[str, AnyArray]], list[AnyArray]]


def take_branches(model: onnx.ModelProto, feeds: Mapping[str, AnyArray], constants: Collection[str], run: Run) -> None:
    """Replace every If whose condition cannot change by the branch it takes, in place.

    ``feeds`` have the static shapes [...] and the dtypes of the network's inputs.

    Args:
        model: The network, before its shapes are made static: the branch that is not taken may not fit them.
        feeds: An array of the final shape for every input.
        constants: Inputs that are always fed the same.
        run: Runs a network.
    """
    while True:
        graph = model.graph
        made = {name: node for node in graph.node for name in node.output}
        weights = {tensor.name for tensor in graph.initializer}
        found = [
            (index, node)
            for index, node in enumerate(graph.node)
            if node.op_type == "If" and _fixed(node.input[0], made, weights | set(constants))
        ]
        if not found:
            return
        index, node = found[0]
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        del probe.graph.output[:]
        probe.graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.BOOL, None))
        taken = "then_branch" if np.all(run(probe, feeds)[0]) else "else_branch"
        branch = _renamed(next(a.g for a in node.attribute if a.name == taken), f"{node.output[0]}/")
        ends = [
            helper.make_node("Identity", [inner.name], [outer], name=f"{outer}/taken")
            for inner, outer in zip(branch.output, node.output, strict=True)
        ]
        nodes = [*graph.node[:index], *branch.node, *ends, *graph.node[index + 1 :]]
        kept = [onnx.NodeProto.FromString(item.SerializeToString()) for item in nodes]
        graph.initializer.extend(branch.initializer)
        del graph.node[:]
        graph.node.extend(kept)


def _renamed(branch: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """Return a copy whose own tensors have names of their own: branches may use one name for different things."""
    copy: onnx.GraphProto = onnx.GraphProto.FromString(branch.SerializeToString())
    own = {tensor.name for tensor in copy.initializer} | {name for node in copy.node for name in node.output if name}

    def rename(graph: onnx.GraphProto) -> None:
        for named in (*graph.initializer, *graph.output):
            named.name = prefix + named.name if named.name in own else named.name
        for node in graph.node:
            node.name = prefix + node.name if node.name else ""
            for names in (node.input, node.output):
                names[:] = [prefix + name if name in own else name for name in names]
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    rename(inner)

    rename(copy)
    return copy


def _fixed(name: str, made: Mapping[str, onnx.NodeProto], known: Collection[str]) -> bool:
    """Tell whether a tensor depends on constants and shapes alone."""
    waiting, seen = [name], set(known)
    while waiting:
        current = waiting.pop()
        if current in seen or not current:
            continue
        seen.add(current)
        node = made.get(current)
        if node is None or node.op_type in _RANDOM or node.op_type in ("If", "Loop", "Scan"):
            return False
        if node.op_type not in ("Shape", "Size"):
            waiting.extend(node.input)
    return True
