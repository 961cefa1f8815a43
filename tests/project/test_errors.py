"""Every error of the SDK says what to do about it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mmedge.errors
from mmedge.capture.uri import parse

ROOT = Path(__file__).parents[2]
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in ("mmedge", "export")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# What is wrong with a source address: `mmedge.capture.uri.parse` adds the address and the forms that there are.
EXEMPT = {"mmedge/capture/kinds.py", "mmedge/capture/simulator.py", "mmedge/capture/uri.py"}
SAYING = {"fail", "_error", "ValueError", "TypeError", "warning", "error", "info"}


def error_classes() -> set[str]:
    """Return the classes built like MmedgeError; one with its own ``__init__`` takes the fix of its cause."""
    own = {name for name, kind in vars(mmedge.errors).items() if isinstance(kind, type) and name.endswith("Error")}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or not {ast.unparse(base) for base in node.bases} & own:
                continue
            if not any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body):
                own.add(node.name)
    return own


def test_every_error_has_a_fix() -> None:
    classes = error_classes()
    assert {"ConfigError", "FrameExpiredError", "CancelledError", "UnsupportedNodesError"} <= classes
    found, without = 0, []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes:
                found += 1
                if path not in EXEMPT and "fix" not in {keyword.arg for keyword in node.keywords}:
                    without.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert found > 300, "the search has lost its way"
    assert without == []


@pytest.mark.parametrize("uri", ["", "v4l2://video0", "test://?gap_at_s=3", "test://?fps=x", "udp://", "ftp://host"])
def test_the_exempt_errors_get_their_fix_from_parse(uri: str) -> None:
    with pytest.raises(mmedge.errors.ConfigError) as caught:
        parse(uri)
    assert caught.value.fix is not None


def test_messages_and_help_are_plain_english() -> None:
    riddle = re.compile(r"\b(nobody|told|so many|what cannot|the begin|(is|are) no (?!longer\b))", re.IGNORECASE)
    calls, found, odd = SAYING | error_classes(), 0, []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            said = [word.value for word in getattr(node, "keywords", []) if word.arg in ("help", "fix", "detail")]
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in calls:
                said += node.args
            for part in (part for text in said for part in ast.walk(text)):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    found += 1
                    if (match := riddle.search(part.value)) and not part.value.startswith("there "):
                        odd.append(f"{path}:{part.lineno}: '{match.group()}' in '{part.value}'")
    assert found > 1000, "the search has lost its way"
    assert odd == []
