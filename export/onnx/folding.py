"""Which tensors of a network never change, and what they are: constants, and sizes that follow from static shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mmedge.types import AnyArray

from ..judge import judge_session
from .graphs import all_nodes, drop_unused, subgraphs
from .outside import is_left

_RANDOM = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")
)
# A quantised weight stays as it was stored.
_KEPT = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
# Their outputs are no larger than a few times what goes in, though their shape depends on values.
_BOUNDED = frozenset(("NonZero", "Unique", "Compress", "NonMaxSuppression"))
# A constant may grow to this, or to twice what it is made of: a scalar expanded over a picture stays an Expand.
_MOST_BYTES = 1 << 16
# Values of larger tensors are no shapes: shape inference is shown their types alone.
_SHAPE_ELEMENTS = 256
# Types of ONNX that numpy and ONNX Runtime's Python side do not hand over alike.
_PLAIN = frozenset("biufcO")


class Known(NamedTuple):
    """Type and shape of a tensor; None for a dimension, or the shape, that is open."""

    elem: int
    dims: tuple[int | None, ...] | None

    @property
    def is_static(self) -> bool:
        """True where every dimension is known."""
        return self.dims is not None and None not in self.dims


def infer(model: onnx.ModelProto) -> dict[str, Known]:
    """Return what is known about the tensors of the outermost graph from inputs, weights and nodes alone.

    What the file itself says of tensors inside and of the shapes of its outputs is not believed: it may have been
    written for other sizes.
    """
    probe = _without_data(model)
    for graph in _graphs(probe.graph):
        del graph.value_info[:]
        for value in graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    # Of another domain, or wrong: ONNX Runtime says so when it runs.
    with suppress(shape_inference.InferenceError, RuntimeError, ValueError):
        probe = shape_inference.infer_shapes(probe, data_prop=True)
    values = [*probe.graph.input, *probe.graph.value_info, *probe.graph.output]
    found = {value.name: _known(value.type.tensor_type) for value in values if value.type.HasField("tensor_type")}
    found |= {tensor.name: Known(tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer}
    return found


def constants(model: onnx.ModelProto, known: Mapping[str, Known]) -> dict[str, AnyArray]:
    """Return the tensors of the outermost graph that never change and are not stored as weights already.

    Arrays have the tensors' shapes [...] and dtypes. Quantised weights, random numbers, other domains' operators and
    what would make the file much larger are left out.

    Args:
        model: The network; its nodes are sorted.
        known: What ``infer`` says of it.
    """
    graph = model.graph
    # What stays in files is not copied: whoever asks for it as it is used computes it each time.
    weights = {tensor.name: tensor for tensor in graph.initializer if not is_left(tensor)} | constant_nodes(graph)
    sizes = {name: _bytes(Known(tensor.data_type, tuple(tensor.dims))) for name, tensor in weights.items()}
    outputs = {value.name for value in graph.output}
    values: dict[str, AnyArray] = {}
    chosen: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in ("Shape", "Size") and node.domain == "" and known.get(node.input[0], _UNKNOWN).is_static:
            values[node.output[0]] = _size(node, known[node.input[0]])
            sizes[node.output[0]] = values[node.output[0]].nbytes
        elif _is_foldable(node, sizes, known) and not outputs.intersection(node.output):
            chosen.append(node)
            sizes.update({name: _bytes(known.get(name, _UNKNOWN)) or 0 for name in node.output if name})
    values |= _computed(model, chosen, values, weights)
    return {name: value for name, value in values.items() if name not in outputs and value.dtype.kind in _PLAIN}


def to_tensor(name: str, value: AnyArray) -> onnx.TensorProto:
    """Return an array of any shape [...] and dtype as an initializer."""
    tensor: onnx.TensorProto = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
    return tensor


_UNKNOWN = Known(0, None)


def _is_foldable(node: onnx.NodeProto, sizes: Mapping[str, int | None], known: Mapping[str, Known]) -> bool:
    if node.op_type in _RANDOM | _KEPT or node.domain not in ("", "ai.onnx") or next(subgraphs(node), None) is not None:
        return False
    names = [name for name in node.input if name]
    if not names or not all(name in sizes for name in names):
        return False
    if node.op_type in _BOUNDED:
        return sum(sizes[name] or 0 for name in names) <= _MOST_BYTES
    made = [_bytes(known.get(name, _UNKNOWN)) for name in node.output if name]
    largest = max(_MOST_BYTES, 2 * sum(sizes[name] or 0 for name in names))
    return all(size is not None and size <= largest for size in made)


def _bytes(known: Known) -> int | None:
    if not known.is_static or known.elem == TensorProto.UNDEFINED:
        return None
    assert known.dims is not None
    count = int(np.prod([int(dim or 0) for dim in known.dims], dtype=np.float64))
    return count * int(np.dtype(helper.tensor_dtype_to_np_dtype(known.elem)).itemsize)


def _size(node: onnx.NodeProto, known: Known) -> AnyArray:
    assert known.dims is not None
    dims = np.array(known.dims, np.int64)
    if node.op_type == "Size":
        return np.asarray(dims.prod(dtype=np.int64))
    at = {attribute.name: attribute.i for attribute in node.attribute}
    return dims[at.get("start", 0) : at.get("end", len(dims))]


def _computed(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, AnyArray],
    weights: Mapping[str, onnx.TensorProto],
) -> dict[str, AnyArray]:
    """Return what nodes of constants make, on ONNX Runtime; a node that cannot run is left out."""
    if not nodes:
        return {}
    try:
        return _run(model, nodes, values, weights)
    except Exception:  # onnxruntime raises one private class per status code
        if len(nodes) == 1:
            return {}
    found: dict[str, AnyArray] = {}
    for node in nodes:
        if all(not name or name in weights or name in values or name in found for name in node.input):
            found |= _computed(model, [node], {**values, **found}, weights)
    return found


def _run(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, AnyArray],
    weights: Mapping[str, onnx.TensorProto],
) -> dict[str, AnyArray]:
    names = [name for node in nodes for name in node.output if name]
    graph = onnx.GraphProto(name="constants")
    graph.node.extend(nodes)
    needed = {name for node in nodes for name in node.input}
    for name in needed & weights.keys():
        graph.initializer.append(weights[name])
        graph.initializer[-1].name = name
    graph.initializer.extend(to_tensor(name, values[name]) for name in needed & values.keys())
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    probe = onnx.ModelProto(graph=graph, ir_version=max(model.ir_version, 4))
    probe.opset_import.extend(model.opset_import)
    made: Sequence[Any] = judge_session(probe, optimised=False).run(None, {})
    return {name: value for name, value in zip(names, made, strict=True) if isinstance(value, np.ndarray)}


def constant_nodes(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return what the Constant nodes of a graph hold."""
    return {node.output[0]: constant_tensor(node) for node in graph.node if node.op_type == "Constant"}


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return what a Constant node holds as a tensor."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        held: onnx.TensorProto = attribute.t
        return held
    if attribute.name == "sparse_value":
        return dense(attribute.sparse_tensor, node.output[0])
    dtype: Any = {"value_float": np.float32, "value_int": np.int64}.get(attribute.name.rstrip("s"), object)
    return to_tensor(node.output[0], np.array(helper.get_attribute_value(attribute), dtype))


def dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """Return a sparse tensor with its zeros written out."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    whole = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        whole.reshape(-1)[places] = values
    else:
        whole[tuple(places.T)] = values
    return to_tensor(name, whole)


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network whose large weights are inputs: types and shapes are all that inference needs of them."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "g"
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    given = {value.name for value in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in given)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.float64)) <= _SHAPE_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    return [graph, *(inner for node in all_nodes(graph) for inner in subgraphs(node))]


def _known(kind: Any) -> Known:
    if not kind.HasField("shape"):
        return Known(kind.elem_type, None)
    dims = (dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in kind.shape.dim)
    return Known(kind.elem_type, tuple(dims))


def fold(model: onnx.ModelProto) -> dict[str, Known]:
    """Turn every tensor that never changes into a weight, in place, and return what is known of the others.

    The network's nodes are sorted; nodes and weights that nothing reads any more are removed.
    """
    graph = model.graph
    while True:
        known = infer(model)
        values = constants(model, known)
        gone = [index for index, node in enumerate(graph.node) if values.keys() >= {n for n in node.output if n}]
        if not gone:
            return known
        made = [name for index in gone for name in graph.node[index].output if name]
        for index in reversed(gone):
            del graph.node[index]
        graph.initializer.extend(to_tensor(name, values[name]) for name in made)
        drop_unused(graph)
