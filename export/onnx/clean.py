"""Make an exported graph fit to be shipped: names that say where a node comes from, no traces of the author's disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx

from ..user_code import is_user_file
from .graphs import all_nodes, fresh, name_once, subgraphs

_FRAME = re.compile(r'File "(.+?)", line (\d+), in')
_SCOPE = re.compile(r"'([^']*)'")
_PREFIX = "pkg.torch.onnx."


def user_line(trace: str) -> str | None:
    """Return ``file:line`` of the innermost frame of a stack trace that is not torch's own."""
    frames = [(file, line) for file, line in _FRAME.findall(trace) if is_user_file(file, packages=True)]
    return short_line(*frames[-1]) if frames else None


def short_line(file: str, line: str | int) -> str:
    """Return ``file:line``, relative where the file lies below the current folder."""
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def clean(model: onnx.ModelProto) -> dict[str, str]:
    """Name nodes by module and operator, and strip all metadata, in place.

    Args:
        model: As the dynamo exporter made it.

    Returns:
        Node name -> ``"file:line (module)"``, where known. Keep it private: it names the author's files.
    """
    if any(True for node in model.graph.node for _ in subgraphs(node)):
        name_once(model)  # torch calls tensors of branches by their operators, as it does those around them
    sources: dict[str, str] = {}
    taken: set[str] = set()
    for node in all_nodes(model.graph):
        module, line = source_of(node)
        node.name = fresh(f"{module}/{node.op_type}" if module else node.op_type, taken)
        if line is not None:
            sources[node.name] = line
    strip(model)
    return sources


def source_of(node: onnx.NodeProto) -> tuple[str, str | None]:
    """Return the module path of a node and ``"file:line (module)"``, as far as its metadata tells."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = _SCOPE.findall(notes.get(_PREFIX + "name_scopes", ""))
    module = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    line = user_line(notes.get(_PREFIX + "stack_trace", ""))
    return module, f"{line} ({module})" if line and module else line


def strip(model: onnx.ModelProto) -> None:
    """Remove doc strings, metadata and the producer, in place."""
    _strip(model)
    model.producer_name, model.producer_version, model.domain = "mmedge", "", ""


def _strip(message: Any) -> None:
    """Clear every doc string and metadata entry, at any depth."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                _strip(item)
