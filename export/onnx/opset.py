"""Opsets before 13 written as opset 13, operator by operator, so that what is computed stays the same.

Newer opsets stay as they are. Older ones cannot stay: preprocessing and Q/DQ pairs are opset 13. What changed until
then is mostly where an operator takes its numbers from (an attribute before, an input since); Resize, Upsample and
Softmax also changed what they compute by default, and are given what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from mmedge.errors import ConfigError

from .folding import constant_tensor, infer, to_tensor
from .graphs import fresh, name_once, replace_nodes, sort_nodes, subgraphs, tensor_names
from .parity import check_rewrite

TARGET = 13


def opset_of(model: onnx.ModelProto) -> int:
    """Return the opset of ONNX's own operators; 0 where the network uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def raise_opset(
    model: onnx.ModelProto, where: str = "network", feeds: Iterable[Mapping[str, Any]] | None = None
) -> onnx.ModelProto:
    """Return a network in opset 13 or later that computes the same; one that is there already comes back as it is.

    Args:
        model: Any network without local functions; it is not changed.
        where: What it is, for messages.
        feeds: Inputs of the network's shapes [...] and dtypes to hold both against each other on; made up without.

    Raises:
        ConfigError: If its opset or an operator of it has no form in opset 13, by name; or if ONNX Runtime cannot
            run it.
        CheckError: If what comes out differs from what went in.

    Example:
        >>> raise_opset(onnx.load("upsample9.onnx")).opset_import[0].version  # doctest: +SKIP
        13
    """
    opset = opset_of(model)
    if opset >= TARGET or opset == 0:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = max(result.ir_version, 4)
    sort_nodes(result.graph)
    name_once(result)
    _Upgrade(result, opset, where).graph(result.graph, {})
    for entry in result.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = TARGET
    del result.graph.value_info[:]
    check_rewrite(model, result, f"opset {TARGET}", feeds, where=where)
    return result


def at_least(
    model: onnx.ModelProto, opset: int, where: str = "network", feeds: Iterable[Mapping[str, Any]] | None = None
) -> onnx.ModelProto:
    """Return a network in an opset or a later one, as ONNX's own converter writes it.

    Args:
        model: A network in opset 13 or later.
        opset: The least that is wanted.
        where: What it is, for messages.
        feeds: Inputs of the network's shapes [...] and dtypes to hold both against each other on; made up without.

    Raises:
        ConfigError: If it cannot be converted.
        CheckError: If what comes out differs from what went in.

    Example:
        >>> at_least(model, 21).opset_import[0].version  # doctest: +SKIP
        21
    """
    if opset_of(model) >= opset or opset_of(model) == 0:
        return model
    try:
        result: onnx.ModelProto = version_converter.convert_version(model, opset)
    except Exception as error:  # onnx raises its own classes and RuntimeError
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"opset {opset_of(model)} cannot be converted to {opset}: {text[0]}",
            where=where,
            fix=f"export it with opset {opset}",
        ) from error
    check_rewrite(model, result, f"opset {opset}", feeds, where=where)
    return result


class _Upgrade:
    """Rewrites the nodes of one network; what they need in front of them comes with them."""

    def __init__(self, model: onnx.ModelProto, opset: int, where: str) -> None:
        self._opset, self._where = opset, where
        self._known = infer(model)
        self._taken = tensor_names(model.graph)
        self._front: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def graph(self, graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto]) -> None:
        """Rewrite a graph and those inside; ``outer`` are the constants around it."""
        constants = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = constant_tensor(node)
            for inner in subgraphs(node):
                self.graph(inner, constants)
            self._front, self._constants = [], constants
            _taken(node, "consumed_inputs")  # a hint of the first opsets
            since, rewrite = _REWRITES.get(node.op_type, (0, None))
            if rewrite is not None and self._opset < since and node.domain in ("", "ai.onnx"):
                rewrite(self, node)
            nodes += [*self._front, node]
        replace_nodes(graph, nodes)

    def refuse(self, node: onnx.NodeProto, what: str) -> ConfigError:
        """Say which node has no form in the new opset."""
        return ConfigError(
            f"opset {self._opset} cannot be converted: {node.op_type} '{node.name}' {what}",
            where=self._where,
            fix=f"export it with opset {TARGET} or later",
        )

    def before(self, node: onnx.NodeProto, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Put a node in front and return what it makes."""
        made = fresh(f"{node.output[0]}/{name}", self._taken)
        self._front.append(helper.make_node(op, inputs, [made], name=f"{node.name}/{name}", **attributes))
        return made

    def constant(self, node: onnx.NodeProto, name: str, value: Any, dtype: Any = np.int64) -> str:
        """Put a constant in front and return its name."""
        tensor = to_tensor("", np.asarray(value, dtype))
        made = self.before(node, "Constant", [], name, value=tensor)
        self._constants[made] = tensor
        return made

    def to_inputs(self, node: onnx.NodeProto, names: Sequence[str]) -> None:
        """Make inputs of attributes with whole numbers; one that is not given is left out."""
        for name in names:
            value = _taken(node, name)
            node.input.append("" if value is None else self.constant(node, name, value))
        while node.input and not node.input[-1]:
            node.input.pop()

    def number(self, node: onnx.NodeProto, name: str, default: float | None) -> None:
        """Make an input of an attribute with one number, of the type of what the node takes."""
        value = _taken(node, name)
        value = default if value is None else value
        found = self._known.get(node.input[0])
        elem = found.elem if found is not None and found.elem else TensorProto.FLOAT
        dtype = helper.tensor_dtype_to_np_dtype(elem)
        node.input.append("" if value is None else self.constant(node, name, value, dtype))

    def pad(self, node: onnx.NodeProto) -> None:
        """Pads and value were attributes."""
        self.to_inputs(node, ("pads",))
        self.number(node, "value", 0.0)

    def clip(self, node: onnx.NodeProto) -> None:
        """Both limits were attributes."""
        self.number(node, "min", None)
        self.number(node, "max", None)

    def top_k(self, node: onnx.NodeProto) -> None:
        """Its k was an attribute, and is a tensor of one number now."""
        node.input.append(self.constant(node, "k", [_taken(node, "k")]))

    def dropout(self, node: onnx.NodeProto) -> None:
        """Nothing is dropped outside training; the mask was of floats."""
        for name in ("ratio", "is_test"):
            _taken(node, name)
        if any(node.output[1:]):
            raise self.refuse(node, "gives its mask, which was of another type")

    def batch_norm(self, node: onnx.NodeProto) -> None:
        """It could normalise each place of its own."""
        _taken(node, "is_test")
        if _taken(node, "spatial") == 0:
            raise self.refuse(node, "normalises each place of its own")

    def softmax(self, node: onnx.NodeProto) -> None:
        """Everything from ``axis`` on was one row."""
        given, found = _taken(node, "axis"), self._known.get(node.input[0])
        axis = 1 if given is None else int(given)
        rank = None if found is None or found.dims is None else len(found.dims)
        node.attribute.append(helper.make_attribute("axis", -1))
        if rank and axis % rank == rank - 1:
            return
        shape = self.before(node, "Shape", [node.input[0]], "shape")
        flat = self.before(node, "Flatten", [node.input[0]], "flat", axis=axis)
        rows = self.before(node, node.op_type, [flat], "rows", axis=-1)
        node.CopyFrom(helper.make_node("Reshape", [rows, shape], list(node.output), name=f"{node.name}/back"))

    def scatter(self, node: onnx.NodeProto) -> None:
        """It has another name."""
        node.op_type = "ScatterElements"

    def scan(self, node: onnx.NodeProto) -> None:
        """It took a batch of sequences with their lengths."""
        raise self.refuse(node, "takes a batch of sequences, which later ones do not")

    def upsample(self, node: onnx.NodeProto) -> None:
        """It is a Resize."""
        node.op_type = "Resize"
        if self._opset < 9:
            node.input.append(self.constant(node, "scales", _taken(node, "scales"), np.float32))
        self.resize(node)

    def resize(self, node: onnx.NodeProto) -> None:
        """There was one way: coordinates divided by the scale, rounded down, or up where pixels are left out."""
        attributes: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric"}
        if _attribute(node, "mode") != b"linear":
            given = self._constants.get(node.input[1])
            scales = np.ones(1) if given is None else numpy_helper.to_array(given)
            if scales.min() < 1 < scales.max():
                raise self.refuse(node, "makes one side larger and another smaller, and rounds each in another way")
            attributes["nearest_mode"] = "ceil" if scales.min() < 1 else "floor"
        node.input[:] = [node.input[0], "", node.input[1]]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), None)


def _taken(node: onnx.NodeProto, name: str) -> Any:
    """Remove an attribute from a node and return its value; None where it has none."""
    for index, entry in enumerate(node.attribute):
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            del node.attribute[index]
            return value
    return None


# Operator -> the opset since which it is written as now, and what makes an older one so.
_REWRITES: dict[str, tuple[int, Callable[[_Upgrade, onnx.NodeProto], None]]] = {
    "BatchNormalization": (9, _Upgrade.batch_norm),
    "Clip": (11, _Upgrade.clip),
    "Dropout": (12, _Upgrade.dropout),
    "Hardmax": (13, _Upgrade.softmax),
    "LogSoftmax": (13, _Upgrade.softmax),
    "Pad": (11, _Upgrade.pad),
    "ReduceSum": (13, partial(_Upgrade.to_inputs, names=("axes",))),
    "Resize": (11, _Upgrade.resize),
    "Scan": (9, _Upgrade.scan),
    "Scatter": (11, _Upgrade.scatter),
    "Slice": (10, partial(_Upgrade.to_inputs, names=("starts", "ends", "axes"))),
    "Softmax": (13, _Upgrade.softmax),
    "Split": (13, partial(_Upgrade.to_inputs, names=("split",))),
    "Squeeze": (13, partial(_Upgrade.to_inputs, names=("axes",))),
    "TopK": (10, _Upgrade.top_k),
    "Unsqueeze": (13, partial(_Upgrade.to_inputs, names=("axes",))),
    "Upsample": (10, _Upgrade.upsample),
}
