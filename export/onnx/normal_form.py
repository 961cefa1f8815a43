"""The one form in which a network is quantised, so that nothing depends on how its exporter happened to write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx
from onnx import helper, inliner

from mmedge.errors import ConfigError

from .branches import take_branches
from .clips import write_clips
from .feeds import sample_feeds
from .folding import Known, constant_tensor, dense, fold
from .graphs import (
    all_nodes,
    defined,
    drop_unused,
    model_nodes,
    name_once,
    rename,
    replace_nodes,
    sort_nodes,
    subgraphs,
)
from .parity import check_rewrite

# Weights had to be inputs, too, before.
_MIN_IR = 4


def normal_form(
    model: onnx.ModelProto, where: str = "network", feeds: Iterable[Mapping[str, Any]] = ()
) -> onnx.ModelProto:
    """Return a network that computes the same, written in the one way that ranges and Q/DQ insertion expect.

    What it guarantees:

    - no local functions: they are inlined, and domains that nothing uses are gone;
    - weights are dense initializers of the outermost graph: Constant nodes are lifted, none is an input as well;
    - what never changes is a weight: constants and sizes that follow from static shapes are computed, transposed and
      reshaped weights stored as they are used; branches that such values decide are taken;
    - one float as a bound is that of a Clip, or a Relu: no Min, no Max with it;
    - no Identity, no Dropout of inference, no node whose result nothing reads; nodes are sorted;
    - every node and every tensor has a name of its own, in branches and bodies too; names that were unique are kept;
    - ``value_info`` gives the type of every tensor of the outermost graph, and its shape as far as it follows from the
      inputs (also of fp16).

    Left alone: Q/DQ pairs with what they hold, random numbers, branches and bodies that data decide, names of inputs
    and outputs. The normal form of a normal form is itself.

    Args:
        model: Any network; it is not changed.
        where: What it is, for messages.
        feeds: Inputs of the shapes [...] and dtypes of the network to hold both against each other on, beside those
            that are made up: for a network that runs on few.

    Raises:
        CheckError: If what comes out differs from what went in: it names the first node.
        ConfigError: If the network does not run, or its functions cannot be inlined.

    Example:
        >>> [node.name for node in normal_form(model).graph.node]  # doctest: +SKIP
        ['Conv/y', 'Relu/z']
    """
    samples = [*feeds, *sample_feeds(model)]
    result = inlined(model, where, samples)
    result.ir_version = max(result.ir_version, _MIN_IR)
    graph = result.graph
    sort_nodes(graph)
    name_once(result)
    weights = {tensor.name for tensor in graph.initializer}
    _keep(graph.input, lambda value: value.name not in weights)
    while True:
        before = len(graph.node)
        _lift_constants(graph)
        _drop_identities(graph)
        known = fold(result)
        if not take_branches(result) and len(graph.node) == before:
            break
    drop_unused(graph)
    write_clips(result, known)
    name_once(result)
    _write_types(graph, known)
    used = {node.domain for node in all_nodes(graph)} | {""}
    _keep(result.opset_import, lambda entry: (entry.domain if entry.domain != "ai.onnx" else "") in used)
    check_rewrite(model, result, "normal form", samples, where=where)
    return result


def inlined(
    model: onnx.ModelProto, where: str = "network", feeds: Iterable[Mapping[str, Any]] | None = None
) -> onnx.ModelProto:
    """Return a copy in which every local function is written out where it is called.

    Raises:
        ConfigError: If that cannot be done.
        CheckError: If what comes out differs from what went in.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if not model.functions:
        return copied
    _write_defaults(copied)
    try:
        written: onnx.ModelProto = inliner.inline_local_functions(copied, convert_version=True)
    except Exception as error:  # onnx raises its own classes and RuntimeError
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"its local functions cannot be inlined: {text[0]}", where=where, fix="export it without local functions"
        ) from error
    left = sorted({f"{node.domain}.{node.op_type}" for node in all_nodes(written.graph)} & _function_names(model))
    if left:
        raise ConfigError(
            f"the local function '{left[0]}' cannot be inlined",
            where=where,
            fix="export its functions with the opset of the network, or without local functions",
        )
    del written.functions[:]
    check_rewrite(model, written, "inlined functions", feeds, where=where)
    return written


def _write_defaults(model: onnx.ModelProto) -> None:
    """Write into every call what its function takes where it says nothing: onnx's inliner leaves that out."""
    known = {(f.domain, f.name, f.overload): f for f in model.functions}
    for node in model_nodes(model):
        function = known.get((node.domain, node.op_type, node.overload))
        if function is not None:
            said = {attribute.name for attribute in node.attribute}
            node.attribute.extend(entry for entry in function.attribute_proto if entry.name not in said)


def _function_names(model: onnx.ModelProto) -> set[str]:
    return {f"{function.domain}.{function.name}" for function in model.functions}


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn the Constant nodes of the outermost graph into weights, but for one that is an output itself."""
    graph.initializer.extend(dense(sparse, sparse.values.name) for sparse in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type != "Constant" or node.output[0] in outputs:
            kept.append(node)
            continue
        graph.initializer.append(constant_tensor(node))
        graph.initializer[-1].name = node.output[0]
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept)


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Let whoever reads a copy read what was copied, at the outermost level."""
    given = {*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    outputs = {value.name for value in graph.output}
    made = set(defined(graph)) - given
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not _copies(node):
            continue
        source, copy = node.input[0], node.output[0]
        if copy in outputs:
            # An output keeps its name: what makes it takes that name, unless it is an input, a weight or an output.
            if source not in made or source in outputs:
                node.CopyFrom(helper.make_node("Identity", [source], [copy], name=node.name))
                continue
            source, copy = copy, source
        del graph.node[index]
        rename(graph, {copy: source})


def _copies(node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Dropout":
        return len(node.input) < 3 and not any(node.output[1:])
    return node.op_type == "Identity"


def _write_types(graph: onnx.GraphProto, known: dict[str, Known]) -> None:
    """Write what is known of the tensors inside, in the order of the nodes that make them."""
    outer = {value.name for value in (*graph.input, *graph.output)}
    del graph.value_info[:]
    for node in graph.node:
        for name in node.output:
            found = known.get(name)
            if found is not None and found.elem and name not in outer:
                dims = None if found.dims is None else list(found.dims)
                graph.value_info.append(helper.make_tensor_value_info(name, found.elem, dims))
    for node in graph.node:
        for inner in subgraphs(node):
            del inner.value_info[:]


def _keep(items: Any, wanted: Callable[[Any], bool]) -> None:
    """Remove from a repeated field what is not wanted."""
    for index in reversed(range(len(items))):
        if not wanted(items[index]):
            del items[index]
