"""Replace each ONNX If whose condition never changes by the branch that it takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.types import AnyArray

from .folding import constant_nodes, fold, to_tensor
from .graphs import defined, fresh, rename, replace_nodes, tensor_names


def take_branches(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    fixed: Mapping[str, AnyArray] | None = None,
) -> bool:
    """Replace every If whose condition never changes by the branch that it takes, in place.

    That is a condition which follows from constants and from shapes that nothing but the inputs' shapes decide.
    The branch that is not taken need not fit those shapes.

    Args:
        model: The network; its nodes are sorted.
        shapes: Input -> its static shape, where the network leaves it open.
        fixed: Inputs that are always fed the same, of the network's shapes [...] and dtypes.

    Returns:
        True if a branch was taken.
    """
    has_taken = False
    while True:
        decided = _decided(model, shapes or {}, fixed or {}) if _ifs(model.graph) else {}
        if not decided:
            return has_taken
        has_taken = True
        for index in reversed(_ifs(model.graph)):
            name = model.graph.node[index].input[0]
            if name in decided:
                _take(model.graph, index, "then_branch" if decided[name] else "else_branch")


def _ifs(graph: onnx.GraphProto) -> list[int]:
    return [index for index, node in enumerate(graph.node) if node.op_type == "If" and node.domain in ("", "ai.onnx")]


def _decided(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], fixed: Mapping[str, AnyArray]
) -> dict[str, bool]:
    """Return the conditions that never change."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    for index in reversed(range(len(graph.input))):
        value = graph.input[index]
        if value.name in fixed:
            graph.initializer.append(to_tensor(value.name, fixed[value.name]))
            del graph.input[index]
        elif value.name in shapes:
            own = helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shapes[value.name])
            value.CopyFrom(own)
    fold(probe)
    held = {tensor.name: tensor for tensor in graph.initializer} | constant_nodes(graph)
    names = {graph.node[index].input[0] for index in _ifs(graph)}
    return {name: bool(np.all(numpy_helper.to_array(held[name]))) for name in names & held.keys()}


def _take(graph: onnx.GraphProto, index: int, which: str) -> None:
    node = graph.node[index]
    branch = onnx.GraphProto()
    branch.CopyFrom(next(attribute.g for attribute in node.attribute if attribute.name == which))
    # Branches may use one name for different things; what a branch makes must not hide what it reads.
    taken = tensor_names(graph)
    own = {name: fresh(f"{node.output[0]}/{name}", taken) for name in defined(branch)}
    ends = [own.get(value.name, value.name) for value in branch.output]
    rename(branch, own)
    for made in branch.node:
        made.name = f"{node.name or node.output[0]}/{made.name}" if made.name else ""
    copies = [
        helper.make_node("Identity", [inner], [outer], name=f"{outer}/taken")
        for inner, outer in zip(ends, node.output, strict=True)
        if outer
    ]
    graph.initializer.extend(branch.initializer)
    graph.sparse_initializer.extend(branch.sparse_initializer)
    replace_nodes(graph, [*graph.node[:index], *branch.node, *copies, *graph.node[index + 1 :]])
