"""Public functions that take or return arrays say of what shape and dtype these are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARRAY = re.compile(r"\b(AnyArray|FloatArray|ByteArray|NDArray|Tensors?)\b")
SHAPE = re.compile(r"\[[^\]]*\]|\(\w[\w *+/.-]*,[^)]*\)|\bany shape\b")
DTYPE = re.compile(r"\b(u?int(8|16|32|64)|[Ff]loat(16|32|64)?|bool|dtypes?|as it comes)\b")
# In the runtime a Tensor is a packet, not an array.
PACKET = re.compile(r"\bTensor\b")
OPERATORS = ("__init__", "__call__", "forward")  # the docstring of the class may speak for them

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function, str]]:
    """Yield path and name, definition and docstrings of every public function, those of its class's bases included."""
    trees = {
        path: ast.parse(path.read_text()) for folder in ("mmedge", "export") for path in (ROOT / folder).rglob("*.py")
    }
    classes = {node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def said(owner: ast.ClassDef, name: str) -> str:
        texts = [ast.get_docstring(part) for part in owner.body if isinstance(part, Function) and part.name == name]
        bases = (classes[key] for base in owner.bases if (key := ast.unparse(base).rpartition(".")[2]) in classes)
        return " ".join(filter(None, texts)) + "".join(said(base, name) for base in bases if base is not owner)

    for path, tree in sorted(trees.items()):
        place = path.relative_to(ROOT).as_posix()
        for node in tree.body:
            if isinstance(node, Function) and node.name[0] != "_":
                yield f"{place} {node.name}", node, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                for part in node.body:
                    if isinstance(part, Function) and (part.name[0] != "_" or part.name in OPERATORS):
                        own = ast.get_docstring(node) or "" if part.name in OPERATORS else ""
                        yield f"{place} {node.name}.{part.name}", part, own + said(node, part.name)


def annotations(function: Function) -> str:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return " ".join(
        ast.unparse(note) for note in (*(a.annotation for a in every if a is not None), function.returns) if note
    )


def test_public_functions_give_shape_and_dtype_of_arrays() -> None:
    found, bare = 0, []
    for place, function, text in functions():
        signature = annotations(function)
        if place.startswith("mmedge/"):
            signature = PACKET.sub("", signature)
        if ARRAY.search(signature):
            found += 1
            wanting = [what for what, pattern in (("shape", SHAPE), ("dtype", DTYPE)) if not pattern.search(text)]
            if wanting:
                bare.append(f"{place} gives no {' and no '.join(wanting)}")
    assert found > 120, "the search has lost its way"
    assert bare == []
