"""Branches of an ONNX network that constants and shapes alone decide: the one that is taken replaces the If."""

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
        branch = next(attribute.g for attribute in node.attribute if attribute.name == taken)
        ends = [
            helper.make_node("Identity", [inner.name], [outer], name=f"{outer}/taken")
            for inner, outer in zip(branch.output, node.output, strict=True)
        ]
        nodes = [*graph.node[:index], *branch.node, *ends, *graph.node[index + 1 :]]
        kept = [onnx.NodeProto.FromString(item.SerializeToString()) for item in nodes]
        graph.initializer.extend(branch.initializer)
        del graph.node[:]
        graph.node.extend(kept)


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
