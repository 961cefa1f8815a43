"""What TensorRT would refuse in an ONNX file, found without TensorRT: every finding at once, with its source line.

A static list is a first answer only; where TensorRT is installed, ``mmedge inspect`` and ``export`` ask its parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .clean import source_of
from .graphs import all_nodes, model_nodes
from .network_file import load_network

MAX_OPSET = 22
# Scales and zero points are looked into; weights that lie beside a network are not read.
_SMALL_BYTES = 1 << 20
_UNSUPPORTED = re.compile(
    r"DFT|MelWeightMatrix|Unique|Multinomial|DeformConv|Attention|Det|Compress|Sequence\w+|ConcatFromSequence"
    r"|SplitToSequence|String\w+|TfIdfVectorizer"
)
_QOPERATOR = re.compile(r"QLinear\w+|ConvInteger|MatMulInteger|QGemm|QAttention|DynamicQuantize\w+")
_NO_IO = {TensorProto.INT16: "int16", TensorProto.UINT16: "uint16", TensorProto.DOUBLE: "float64"}


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that TensorRT refuses (``error``) or that deserves a look (``warning``)."""

    level: Literal["error", "warning"]
    rule: str
    node: str
    message: str
    fix: str
    source: str | None = None

    def __str__(self) -> str:
        where = f" at {self.source}" if self.source else ""
        return f"{self.rule}: {self.node}{where}: {self.message}. {self.fix[0].upper()}{self.fix[1:]}."


class _Graph:
    """An ONNX graph with what the rules ask for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.local = {(function.domain, function.name) for function in model.functions}
        self.nodes = list(model_nodes(model))
        self.constants = {t.name: t for t in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.constants[node.output[0]] = attribute.t
        values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        self.dtypes = {v.name: v.type.tensor_type.elem_type for v in values}
        self.inputs = [v for v in model.graph.input if v.name not in self.constants]

    def label(self, node: onnx.NodeProto) -> str:
        return node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}"


Found = Iterator[tuple[Literal["error", "warning"], str, str, str]]


def _opset(graph: _Graph) -> Found:
    for entry in graph.model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > MAX_OPSET:
            yield "error", "graph", f"opset {entry.version} is newer than {MAX_OPSET}", "export with opset 20"


def _io(graph: _Graph) -> Found:
    for kind, values in (("input", graph.inputs), ("output", graph.model.graph.output)):
        for value in values:
            if value.type.tensor_type.elem_type in _NO_IO:
                name = _NO_IO[value.type.tensor_type.elem_type]
                yield "error", value.name, f"TensorRT takes no {name} {kind}", "use float32 or int32 (PCM as float32)"


def _dynamic(graph: _Graph) -> Found:
    for value in graph.inputs:
        dims = value.type.tensor_type.shape.dim
        names = [d.dim_param or "?" for d in dims if not d.HasField("dim_value")]
        if names:
            message = f"input '{value.name}' has dynamic dimensions {names}"
            yield "warning", value.name, message, "make them static, or declare their ranges when compiling"


def _uint8(graph: _Graph) -> Found:
    unsigned = {v.name for v in graph.inputs if v.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.nodes:
        for name in unsigned.intersection(node.input):
            if node.op_type != "Cast":
                message = f"uint8 input '{name}' enters {node.op_type}"
                yield "error", graph.label(node), message, "cast it to float first; TensorRT takes uint8 only there"


def _operators(graph: _Graph) -> Found:
    for node in graph.nodes:
        if _UNSUPPORTED.fullmatch(node.op_type) and node.domain in ("", "ai.onnx"):
            fix = (
                "use a strided Conv as the DFT"
                if node.op_type in ("DFT", "MelWeightMatrix")
                else "write it with others"
            )
            yield "error", graph.label(node), f"TensorRT has no {node.op_type}", fix
        elif _QOPERATOR.fullmatch(node.op_type):
            fix = "quantise in QDQ format: export.quantize, or quantize_static(quant_format=QDQ)"
            yield "error", graph.label(node), f"{node.op_type} is the QOperator format", fix
        elif node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in graph.local:
            message = f"{node.op_type} is of domain '{node.domain}'"
            yield "error", graph.label(node), message, "export standard operators, do not save an optimised model"
        elif node.op_type in ("NonMaxSuppression", "RoiAlign"):
            message = f"{node.op_type} is not built by every TensorRT"
            yield "warning", graph.label(node), message, "keep it out of the graph until it ran on the device"


def _resize(graph: _Graph) -> Found:
    for node in graph.nodes:
        if node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute):
            fix = "use antialias=False, or average by an integer factor (AveragePool) before it"
            yield "error", graph.label(node), "TensorRT has no antialiased Resize", fix


def _quantised(graph: _Graph) -> Found:
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        label, constants = graph.label(node), graph.constants
        if node.op_type == "DequantizeLinear":
            source = constants.get(node.input[0])
            dtype = source.data_type if source is not None else graph.dtypes.get(node.input[0])
            if dtype == TensorProto.INT32:
                yield "error", label, "an int32 bias is dequantised", "quantise with QuantizeBias=False"
        if len(node.input) > 2 and node.input[2] in constants:
            zero = constants[node.input[2]]
            if np.any(numpy_helper.to_array(zero)):
                yield "error", label, "the zero point is not zero", "quantise symmetrically"
            elif zero.data_type == TensorProto.UINT8:
                yield "error", label, "it quantises to uint8", "use int8"
        elif len(node.input) < 3 and node.op_type == "QuantizeLinear" and not _says_int8(node):
            yield "error", label, "without a zero point it quantises to uint8", "give an int8 zero point of 0"


def _says_int8(node: onnx.NodeProto) -> bool:
    return any(a.name == "output_dtype" and a.i == TensorProto.INT8 for a in node.attribute)


def _sorted(graph: _Graph) -> Found:
    known = {"", *graph.constants, *(v.name for v in graph.model.graph.input)}
    for node in graph.model.graph.node:
        late = [name for name in node.input if name not in known]
        if late:
            message = f"'{late[0]}' is used before it is computed"
            yield "error", graph.label(node), message, "sort the graph topologically"
            return
        known.update(node.output)


def _control(graph: _Graph) -> Found:
    for node in graph.nodes:
        if node.op_type in ("If", "Loop", "Scan"):
            message = f"{node.op_type} makes shapes or control flow depend on data"
            yield "warning", graph.label(node), message, "unroll it, or use Where"


def _private(graph: _Graph) -> Found:
    text = [graph.model.doc_string, graph.model.graph.doc_string]
    text += [p.value for node in graph.nodes for p in node.metadata_props] + [node.doc_string for node in graph.nodes]
    if any(re.search(r'File "/|(?:^|\s)/(?:home|Users|root)/', part) for part in text):
        yield "warning", "graph", "the file names paths of its author's disk", "strip the metadata before sharing it"


_RULES: dict[str, Callable[[_Graph], Found]] = {
    "opset": _opset,
    "io-type": _io,
    "dynamic": _dynamic,
    "uint8-cast": _uint8,
    "operator": _operators,
    "resize-antialias": _resize,
    "qdq": _quantised,
    "unsorted": _sorted,
    "control-flow": _control,
    "private-paths": _private,
}


def lint(model: onnx.ModelProto, sources: Mapping[str, str] | None = None) -> list[Finding]:
    """Return everything that TensorRT would refuse in a network, errors first.

    Args:
        model: Any ONNX network.
        sources: Node name -> source line; by default what the file itself tells.

    Returns:
        The findings; empty when there are none.

    Example:
        >>> for finding in lint(onnx.load("model.onnx")): print(finding)  # doctest: +SKIP
        resize-antialias: encoder.pre/Resize at my/model.py:41 (encoder.pre): TensorRT has no antialiased Resize...
    """
    graph = _Graph(model)
    lines = {**lines_of(model), **(sources or {})}
    findings = [
        Finding(level=level, rule=rule, node=node, message=message, fix=fix, source=lines.get(node))
        for rule, check in _RULES.items()
        for level, node, message, fix in check(graph)
    ]
    return sorted(findings, key=lambda finding: finding.level != "error")


def inspect_onnx(file: str | Path) -> dict[str, object]:
    """Return the signature of an ONNX file and what TensorRT would refuse in it, as a JSON document.

    Raises:
        ConfigError: As ``load_network`` raises it.
    """
    model = load_network(file, largest_bytes=_SMALL_BYTES)
    graph = _Graph(model)
    opset = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)
    return {
        "schema": "mmedge.inspect/1",
        "file": str(file),
        "opset": opset,
        "nodes": len(model.graph.node),
        "inputs": [_signature(value) for value in graph.inputs],
        "outputs": [_signature(value) for value in model.graph.output],
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "findings": [msgspec.to_builtins(finding) for finding in lint(model)],
    }


def source_lines(file: str | Path) -> dict[str, str]:
    """Return node name -> ``"file:line (module)"`` as far as an ONNX file tells (exports of torch do)."""
    return lines_of(load_network(file, largest_bytes=0))


def lines_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return what ``source_lines`` does, of a network that is loaded."""
    found = {node.name: source_of(node)[1] for node in all_nodes(model.graph) if node.name}
    return {name: line for name, line in found.items() if line}


def _signature(value: onnx.ValueInfoProto) -> dict[str, object]:
    tensor = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "?"
    return {"name": value.name, "dtype": dtype, "shape": shape}
