"""Operators that a target does not build, written out by the operators that ONNX itself defines them with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import onnx
from onnx import helper, inliner, shape_inference

from mmedge.errors import ConfigError

from .graphs import all_nodes
from .normal_form import normal_form
from .parity import check_rewrite

# TensorRT's parser takes it, and the builder fails: in float32 it has no kernel for it (measured with TensorRT-RTX
# 1.7; a graph of nothing else ended the builder).
TENSORRT_FAILS = frozenset({"Attention"})


def decompose(model: onnx.ModelProto, operators: Collection[str], where: str = "network") -> onnx.ModelProto:
    """Return a network in which standard operators are written out by simpler ones, in normal form.

    The definitions are those of the ONNX standard (``Attention``: MatMul, Softmax, MatMul).

    Args:
        model: Any network; it is not changed.
        operators: Names of the operators to write out. One that ONNX does not define by others stays.
        where: What it is, for messages.

    Returns:
        The network; the same object if it has none of the operators.

    Raises:
        CheckError: If what comes out differs from what went in.
        ConfigError: If an operator cannot be written out.

    Example:
        >>> decompose(model, {"Attention"})  # doctest: +SKIP
    """
    wanted = {node.op_type for node in all_nodes(model.graph) if node.op_type in operators and _is_defined(model, node)}
    if not wanted:
        return model
    try:
        # What an operator stands for depends on the types and ranks of its inputs.
        typed = shape_inference.infer_shapes(model, data_prop=True)
        typed.graph.value_info.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in typed.graph.initializer
        )
        written = inliner.inline_selected_functions(
            typed, [("", name) for name in sorted(wanted)], exclude=False, inline_schema_functions=True
        )
    except Exception as error:  # onnx raises its own classes and RuntimeError
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{', '.join(sorted(wanted))} cannot be written out by simpler operators: {text[0]}",
            where=where,
            fix="export the network with opset 20, which has no such operator",
        ) from error
    check_rewrite(model, written, f"written out: {', '.join(sorted(wanted))}", where=where)
    return normal_form(written, where)


def _is_defined(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)
