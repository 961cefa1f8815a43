"""An ONNX file as ``mmedge inspect`` shows it: signature, parts, quantisation, and findings in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from mmedge.cli.graph import Key, draw
from mmedge.cli.output import add_names, out, styled

_WIDEST = 100  # columns: a wider drawing is hard to follow
_SHOWN = 3  # nodes of a group of findings that are named
_LONGEST = 12  # lines of a part
_OPERATORS = 8  # kinds of operators that are listed


def print_network(document: Mapping[str, Any]) -> None:
    """Print what ``mmedge.export.bounded.inspect_network`` returned."""
    table = Table(title=f"{document['file']}: opset {document['opset']}, {document['nodes']} nodes")
    items = [(kind[:-1], item) for kind in ("inputs", "outputs") for item in document[kind]]
    table.add_column("", no_wrap=True)
    add_names(table, "name", [item["name"] for _, item in items])
    table.add_column("dtype", no_wrap=True)
    table.add_column("shape", overflow="fold")
    for kind, item in items:
        table.add_row(kind, item["name"], item["dtype"], str(item["shape"]))
    out.print(table)
    drawing = None if out.options.ascii_only else _drawn(document)
    if drawing is not None:
        out.print(drawing)
    for line in _facts(document):
        out.print(line, highlight=False, markup=False)
    for group in grouped(document["findings"]):
        first = group[0]
        colour = "red" if first["level"] == "error" else "yellow"
        out.print(styled((first["level"], colour), f" {_told(group)}"), highlight=False)
    out.print(_verdict(document), highlight=False)


def grouped(findings: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return findings that say the same of several nodes together, in their order.

    Example:
        >>> same = {"level": "error", "rule": "qdq", "message": "the zero point is not zero"}
        >>> [len(group) for group in grouped([{**same, "node": "a"}, {**same, "node": "b"}])]
        [2]
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        groups.setdefault((finding["level"], finding["rule"], finding["message"]), []).append(finding)
    return list(groups.values())


def _verdict(document: Mapping[str, Any]) -> Any:
    """Return whether TensorRT takes the network, and who says so."""
    parser, refused = document["parser"], sum(finding["level"] == "error" for finding in document["findings"])
    if parser is None:
        found = f"{refused} things" if refused else "nothing"
        by = f"no TensorRT parser is installed here, so none was asked; a list of operators finds {found} to refuse"
        return styled((by, "yellow"))
    if parser["version"] == "?":
        return styled((f"the parser of {parser['module']} did not get to the end of it", "red"))
    says, colour = ("refuses", "red") if refused else ("takes", "green")
    return styled((f"the parser of {parser['module']} {parser['version']} {says} it", colour))


def _told(group: Sequence[Mapping[str, Any]]) -> str:
    if len(group) == 1:
        (finding,) = group
        where = f" at {finding['source']}" if finding.get("source") else ""
        return f"{finding['node']}{where}: {finding['message']}"
    named = ", ".join(str(finding["node"]) for finding in group[:_SHOWN])
    more = f" and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
    return f"{len(group)} nodes: {group[0]['message']} ({named}{more})"


def _facts(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that is worth one."""
    lines: list[str] = []
    detector = document["detector"]
    if detector is not None:
        count = detector["classes"]
        classes = {None: "its classes are in column 5", 1: "1 class"}.get(count, f"{count} classes")
        lines.append(f"by its shape a detector of the layout '{detector['layout']}', {classes}")
    quantization = document["quantization"]
    if quantization is not None:
        lines.append(f"already {_quantized(quantization)}")
    operators = list(document["operators"].items())
    more = f" and {len(operators) - _OPERATORS} other kinds" if len(operators) > _OPERATORS else ""
    if operators:
        lines.append(f"operators: {', '.join(f'{op} x{n}' for op, n in operators[:_OPERATORS])}{more}")
    for name, use in document["domains"].items():
        if name != "ai.onnx":
            lines.append(f"domain '{name}' {use['version'] or 'of no version'}: {use['nodes']} nodes")
    if document["functions"]:
        lines.append(f"{len(document['functions'])} functions: {', '.join(document['functions'][:_SHOWN])}")
    for file, size in document["external_data"].items():
        lines.append(f"weights in '{file}': {size / 1e6:.1f} MB")
    return lines


def _quantized(state: Mapping[str, Any]) -> str:
    kind = "/".join(sorted(state["types"])).upper() or "INT8"
    if state["pairs"]:
        weights = f", {state['weights']} tensors stored so" if state["weights"] else ""
        return f"{kind}: {state['pairs']} Q/DQ pairs{weights}"
    if state["operators"]:
        listed = ", ".join(f"{op} x{count}" for op, count in state["operators"].items())
        return f"{kind} in the {state['format']} format: {listed}"
    return f"{kind} in its weights alone: {state['weights']} tensors"


def _short(operators: Sequence[str]) -> list[str]:
    if len(operators) <= _LONGEST:
        return list(operators)
    return [*operators[: _LONGEST - 2], f"and {len(operators) - _LONGEST + 1} more", operators[-1]]


def _drawn(document: Mapping[str, Any]) -> Any:
    """Return the parts of a small network as a drawing; None where it is too large for one."""
    parts = document["parts"]
    if not parts:
        return None
    nodes: dict[Key, list[str]] = {("input", item["name"]): [str(item["shape"])] for item in document["inputs"]}
    edges: list[tuple[Key, Key]] = []
    shapes = {item["name"]: str(item["shape"]) for item in document["outputs"]}
    for number, part in enumerate(parts):
        key: Key = ("stage", f"part {number + 1}")
        nodes[key] = _short(part["operators"])
        edges += [(("stage", f"part {source + 1}"), key) for source in part["from"]]
        edges += [(("input", name), key) for name in part["inputs"]]
    for number, part in enumerate(parts):
        for name in part["outputs"]:
            nodes["task", name] = [shapes[name]]
            edges.append((("stage", f"part {number + 1}"), ("task", name)))
    return draw(nodes, edges, min(out.width, _WIDEST))
