"""What an ONNX file is beside its signature: domains, functions, weights beside it, quantisation, its parts."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import onnx
from onnx import TensorProto

from .graphs import model_nodes, reads

_INTEGERS = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8", TensorProto.INT4: "int4", TensorProto.UINT4: "uint4"}
_INTEGERS |= {TensorProto.INT16: "int16", TensorProto.UINT16: "uint16", TensorProto.FLOAT8E4M3FN: "fp8"}
_QOPERATOR = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "MatMulNBits", "QMoE")
_MOST_PARTS = 40


def describe_network(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what a network is, as a JSON document; weights that lie in other files may be left there."""
    domains = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    used = Counter(node.domain or "ai.onnx" for node in model_nodes(model))
    return {
        "domains": {name: {"version": domains.get(name), "nodes": count} for name, count in sorted(used.items())},
        "functions": [f"{function.domain}.{function.name}" for function in model.functions],
        "operators": dict(Counter(node.op_type for node in model_nodes(model)).most_common()),
        "external_data": _external(model),
        "quantization": quantization_of(model),
        "parts": _parts(model.graph),
    }


def quantization_of(model: onnx.ModelProto) -> dict[str, Any] | None:
    """Return how a network is quantised already: in which format, to what, by how many nodes; None where it is not."""
    made = {name: node for node in model_nodes(model) for name in node.output}
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    pairs = dequantised = 0
    kinds: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for node in model_nodes(model):
        if node.op_type == "DequantizeLinear":
            source = made.get(node.input[0])
            is_pair = source is not None and source.op_type == "QuantizeLinear"
            pairs += is_pair
            dequantised += node.input[0] in weights
            if not is_pair and node.input[0] not in weights:  # an input, or what an integer operator made
                operators[node.op_type] += 1
            kind = weights.get(node.input[0]) or (weights.get(node.input[2]) if len(node.input) > 2 else None)
            if kind in _INTEGERS:
                kinds[_INTEGERS[kind]] += 1
        elif node.op_type.startswith(_QOPERATOR):
            operators[node.op_type] += 1
        elif node.op_type == "DynamicQuantizeLinear":
            operators[node.op_type] += 1
        elif node.op_type == "Cast" and node.input[0] in matrices and _is_float(node):
            kind = weights[node.input[0]]
            if kind in _INTEGERS:  # stored as integers and multiplied by their scale, without Q/DQ
                dequantised += 1
                kinds[_INTEGERS[kind]] += 1
    if not pairs and not dequantised and not operators:
        return None
    form = (
        "QDQ"
        if pairs
        else "dynamic"
        if "DynamicQuantizeLinear" in operators
        else "QOperator"
        if operators.keys() - {"DequantizeLinear"}
        else "QDQ"
        if operators
        else "weights"
    )
    return {"format": form, "pairs": pairs, "weights": dequantised, "types": dict(kinds), "operators": dict(operators)}


def already_quantised(model: onnx.ModelProto) -> str | None:
    """Say what in a network is quantised already, wherever it is nested; None for a float network."""
    found = quantization_of(model)
    if found is None:
        return None
    counted = {"Q/DQ pairs": found["pairs"], "weights stored so": found["weights"], **found["operators"]}
    return ", ".join(f"{count} {name}" for name, count in counted.items() if count)


def _is_float(cast: onnx.NodeProto) -> bool:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return any(attribute.name == "to" and attribute.i in floats for attribute in cast.attribute)


def _external(model: onnx.ModelProto) -> dict[str, int]:
    """Return the files that hold weights beside a network, and how many bytes of them it uses."""
    found: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            length = entries.get("length", "0")
            found[entries.get("location", "?")] += int(length) if length.isdecimal() else 0
    return dict(found)


def _parts(graph: onnx.GraphProto) -> list[dict[str, Any]] | None:
    """Return the graph as runs of nodes of which each feeds the next alone; None where those are too many to draw."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    read = [reads(node) for node in graph.node]
    feeds = [sorted({made[name] for name in names if name in made}) for names in read]
    users = Counter(source for sources in feeds for source in sources)
    ends = {made[value.name] for value in graph.output if value.name in made}
    part_of: dict[int, int] = {}
    parts: list[list[int]] = []
    constant = {i for i, node in enumerate(graph.node) if node.op_type == "Constant"}
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for index in range(len(graph.node)):
        if index in constant:
            continue
        sources = [source for source in feeds[index] if source not in constant]
        alone = len(sources) == 1 and users[sources[0]] == 1 and sources[0] not in ends
        if alone and sources[0] in part_of and not inputs & read[index]:
            part_of[index] = part_of[sources[0]]
            parts[part_of[index]].append(index)
        else:
            part_of[index] = len(parts)
            parts.append([index])
        if len(parts) > _MOST_PARTS:
            return None
    document = []
    for number, members in enumerate(parts):
        runs = [(op, len(list(same))) for op, same in groupby(graph.node[i].op_type for i in members)]
        before = {part_of[s] for i in members for s in feeds[i] if s in part_of} - {number}
        document.append(
            {
                "operators": [op if count == 1 else f"{op} x{count}" for op, count in runs],
                "from": sorted(before),
                "inputs": sorted({name for i in members for name in read[i] & inputs}),
                "outputs": sorted(v.name for v in graph.output if made.get(v.name) in members),
            }
        )
    return document
