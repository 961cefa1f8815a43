"""Walking and renaming in ONNX graphs at every depth: branches and bodies read tensors of the graphs around."""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator, Mapping

import onnx
from onnx import AttributeProto


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches or the body that a node runs."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, also those of branches and bodies."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def model_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a network, also those of branches, bodies and functions."""
    for part in (model.graph, *model.functions):
        yield from all_nodes(part)


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node takes, with those that its branches or body take from the graph around."""
    names = {name for name in node.input if name}
    for inner in subgraphs(node):
        names |= captured(inner)
    return names


def captured(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that a branch or body takes from the graphs around it."""
    names = {value.name for value in graph.output if value.name}
    for node in graph.node:
        names |= reads(node)
    return names - set(defined(graph))


def defined(graph: onnx.GraphProto) -> list[str]:
    """Return the tensors that a graph itself makes or is given, each once, in order."""
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    names += [tensor.values.name for tensor in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output]
    return list(dict.fromkeys(name for name in names if name))


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name that a tensor has at any depth."""
    names = {*defined(graph), *(value.name for value in graph.output)}
    for node in graph.node:
        names.update(node.input)
        for inner in subgraphs(node):
            names |= tensor_names(inner)
    return names


def fresh(name: str, taken: set[str]) -> str:
    """Return ``name``, with a number behind it where something is called so already, and note that it is taken."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def free_start(model: onnx.ModelProto, start: str) -> str:
    """Return ``start``, lengthened until no tensor and no node of the network begins with it."""
    names = _every_name(model)
    while any(name.startswith(start) for name in names):
        start += "_"
    return start


def free_ending(model: onnx.ModelProto, ending: str) -> str:
    """Return ``ending``, lengthened until no name of the network begins with another one and it."""
    names = _every_name(model)
    while any(name[: at.start()] in names for name in names for at in re.finditer(re.escape(ending), name)):
        ending += "_"
    return ending


def _every_name(model: onnx.ModelProto) -> set[str]:
    return tensor_names(model.graph) | {node.name for node in all_nodes(model.graph)}


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever nodes make or read them, at any depth, in place.

    The graph's own inputs and outputs, which are its signature, keep their names, and so does what a branch or body
    makes itself under the same name.

    Args:
        graph: The outermost graph.
        names: Old name -> new name, one that nothing in the graph has.
    """
    for named in (*graph.initializer, *graph.value_info):
        named.name = names.get(named.name, named.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    _rename_nodes(graph, names)


def _rename_nodes(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for used in (node.input, node.output):
            used[:] = [names.get(name, name) for name in used]
        for inner in subgraphs(node):
            own = set(defined(inner))
            outer = {old: new for old, new in names.items() if old not in own}
            _rename_nodes(inner, outer)
            for value in inner.output:
                value.name = outer.get(value.name, value.name)


def name_once(model: onnx.ModelProto) -> None:
    """Give every node and every tensor a name that nothing else has, at any depth, in place.

    What has such a name keeps it: of several the outermost and first. A node without a name is called by its operator
    and what it makes.
    """
    taken = {*defined(model.graph), *(value.name for value in model.graph.output)}
    _scope(model.graph, {}, taken, outermost=True)
    nodes: set[str] = set()
    unnamed = []
    for node in all_nodes(model.graph):
        if node.name and node.name not in nodes:
            nodes.add(node.name)
        else:
            unnamed.append(node)
    for node in unnamed:
        node.name = fresh(node.name or "/".join([node.op_type, *node.output[:1]]), nodes)


def has_name_twice(graph: onnx.GraphProto) -> bool:
    """Tell whether two nodes of one graph have the same name, which ONNX Runtime refuses."""
    names = [node.name for node in graph.node if node.name]
    inside = (inner for node in graph.node for inner in subgraphs(node))
    return len(names) != len(set(names)) or any(has_name_twice(inner) for inner in inside)


def _scope(graph: onnx.GraphProto, outer: Mapping[str, str], taken: set[str], *, outermost: bool = False) -> None:
    """Rename what a branch or body makes itself, where that name is taken."""
    own: dict[str, str] = {}

    def define(name: str) -> str:
        if name and name not in own:
            own[name] = name if outermost else fresh(name, taken)
        return own.get(name, name)

    def now(name: str) -> str:
        return own.get(name, outer.get(name, name))

    for named in (*graph.input, *graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        named.name = define(named.name)
    for node in graph.node:
        node.input[:] = [now(name) for name in node.input]
        for inner in subgraphs(node):
            _scope(inner, {**outer, **own}, taken)
        node.output[:] = [define(name) for name in node.output]
    for value in (*graph.output, *graph.value_info):
        value.name = now(value.name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that make what it reads, in place; a sorted graph stays as it is.

    Nodes that wait for each other stay at the end: ONNX Runtime says what is wrong.
    """
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in reads(node) if name in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for index, makers in enumerate(waits):
        for other in makers:
            readers.setdefault(other, []).append(index)
    ready = [index for index, makers in enumerate(waits) if not makers]
    order: list[int] = []
    while ready:
        first = heapq.heappop(ready)
        order.append(first)
        for index in readers.get(first, ()):
            waits[index].discard(first)
            if not waits[index]:
                heapq.heappush(ready, index)
    order += sorted(set(range(len(waits))) - set(order))
    if order != list(range(len(waits))):
        replace_nodes(graph, [graph.node[index] for index in order])


def replace_nodes(graph: onnx.GraphProto, nodes: Collection[onnx.NodeProto]) -> None:
    """Make ``nodes``, old ones among them, the nodes of a graph, in place."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that nothing reads, in place; the graph is sorted."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used |= reads(node)
            kept.append(node)
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept[::-1])
    for weights in (graph.initializer, graph.sparse_initializer):
        for index in reversed(range(len(weights))):
            held = weights[index]
            if (held.name if isinstance(held, onnx.TensorProto) else held.values.name) not in used:
                del weights[index]


def set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Write a static shape."""
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.SetInParent()
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size
