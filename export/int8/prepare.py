"""What quantisation starts from: one normal form, float32 throughout, and never a network that is quantised already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from mmedge.errors import CheckError

from ..judge import judge_session
from ..onnx.feeds import sample_feeds
from ..onnx.graphs import (
    all_nodes,
    drop_unused,
    free_ending,
    fresh,
    name_once,
    rename,
    replace_nodes,
    subgraphs,
    tensor_names,
)
from ..onnx.normal_form import normal_form
from ..onnx.parity import check_rewrite
from .qdq import gemm_factor, gemm_width

_HALF = TensorProto.FLOAT16


def prepare(
    model: onnx.ModelProto, where: str = "network", shapes: Mapping[str, Sequence[int]] | None = None
) -> onnx.ModelProto:
    """Return a network in normal form and in float32: half precision is widened, which loses nothing.

    Its inputs and outputs keep their names and types.

    Args:
        model: Any float network.
        where: What it is, for messages.
        shapes: Input -> the shape that it is fed, where it is known.

    Raises:
        CheckError: If what comes out differs from what went in.
        ConfigError: If it runs neither on these shapes nor on others.
    """
    normal = normal_form(model, where, sample_feeds(model, shapes) if shapes else ())
    if not _has_half(normal):
        return normal
    wide = _widened(normal)
    feeds = chain(sample_feeds(normal, shapes), sample_feeds(normal))
    check_rewrite(normal, wide, "computing float16 in float32", feeds, where=where)
    return wide


def _has_half(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == _HALF for tensor in model.graph.initializer) or any(
        node.op_type == "Cast" and any(a.name == "to" and a.i == _HALF for a in node.attribute)
        for node in model.graph.node
    )


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float16 network computed in float32; what enters and leaves stays float16."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    graphs = [graph, *(inner for node in all_nodes(graph) for inner in subgraphs(node))]
    for tensor in (tensor for part in graphs for tensor in part.initializer):
        if tensor.data_type == _HALF:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == _HALF:
                attribute.i = TensorProto.FLOAT
            if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == _HALF:
                value = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))
    ending = free_ending(model, "/float32")
    front: list[onnx.NodeProto] = []
    back: list[onnx.NodeProto] = []
    made = {name for node in graph.node for name in node.output}
    for value in graph.input:
        if value.type.tensor_type.elem_type == _HALF:
            rename(graph, {value.name: f"{value.name}{ending}"})
            front.append(cast(value.name, f"{value.name}{ending}", TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == _HALF and value.name in made:
            rename(graph, {value.name: f"{value.name}{ending}"})
            back.append(cast(f"{value.name}{ending}", value.name, _HALF))
    for inner in graphs[1:]:
        for value in (*inner.input, *inner.output, *inner.value_info):
            if value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    replace_nodes(graph, [*front, *graph.node, *back])
    del graph.value_info[:]
    name_once(wide)
    return onnx.shape_inference.infer_shapes(wide)


def cast(source: str, target: str, to: int) -> onnx.NodeProto:
    """Return a Cast, named after what it makes."""
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to)


def plain_gemms(model: onnx.ModelProto, where: str = "network") -> onnx.ModelProto:
    """Return a network whose Gemm nodes have ``alpha`` in the weights, ``beta`` in the bias, and a bias of [N].

    ONNX Runtime's quantizer takes a ``beta`` for 1, and fails on a bias of another shape that is repeated. What is not
    constant, or not the same in every row, stays.

    Args:
        model: A network in normal form.
        where: What it is, for messages.

    Raises:
        CheckError: If what comes out differs from what went in.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    taken = tensor_names(graph)
    for node in graph.node:
        for factor, place in (("alpha", 1), ("beta", 2)) if node.op_type == "Gemm" else ():
            if len(node.input) <= place or node.input[place] not in weights:
                continue
            value, held = gemm_factor(node, factor), numpy_helper.to_array(weights[node.input[place]])
            made = held if value == 1.0 else (held.astype(np.float64) * value).astype(np.float32)
            width = gemm_width(node, weights) if factor == "beta" else None
            if width is not None and made.size == int(np.prod(made.shape[-1:])):  # one row
                made = np.broadcast_to(made.ravel(), (width,))
            if value == 1.0 and made.shape == held.shape:
                continue
            # Others may read it as it was.
            node.input[place] = fresh(f"{node.input[place]}/{node.name}/{factor}", taken)
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(made), node.input[place]))
            rest = [attribute for attribute in node.attribute if attribute.name != factor]
            del node.attribute[:]
            node.attribute.extend(rest)
    if len(graph.initializer) == len(model.graph.initializer):
        return model
    drop_unused(graph)
    check_rewrite(model, plain, "alpha and beta of Gemm in its weights", where=where)
    return plain


def tensor_types(model: onnx.ModelProto, name: str = "model") -> dict[str, tuple[str, tuple[object, ...]]]:
    """Return the type and shape of every tensor that a node of the outer graph makes, as ONNX Runtime finds them.

    Args:
        model: Any network that it runs, operators of other domains included.
        name: For messages.

    Returns:
        Name -> (``tensor(float)``, shape; a dimension that is not known is no int).

    Raises:
        CheckError: If it cannot be loaded.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in probe.graph.output}
    made = [out for node in probe.graph.node for out in node.output if out and out not in given]
    probe.graph.output.extend(onnx.ValueInfoProto(name=out) for out in made)
    try:
        session = judge_session(probe, optimised=False)
    except Exception as error:  # onnxruntime raises one private class per status code
        raise CheckError(
            f"ONNX Runtime cannot load the network: {str(error).splitlines()[0]}",
            where=name,
            fix="run `mmedge inspect` on it",
        ) from error
    values = [*session.get_inputs(), *session.get_outputs()]
    return {value.name: (value.type, tuple(value.shape)) for value in values}


def note_types(model: onnx.ModelProto, floats: Iterable[str]) -> None:
    """Write down which tensors are float32 where shape inference does not find it, in place.

    Behind an operator of another domain it finds nothing, and ONNX Runtime's quantizer leaves out what has no type.

    Args:
        model: The network.
        floats: Names of float32 tensors.
    """
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    missing = [name for name in floats if name not in known]
    graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in missing)
