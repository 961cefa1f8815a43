"""A type that several threads decode for the first time at once ends no process."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

STORM = """
import sys, threading
import msgspec
from mmedge.learn import learn

sys.setswitchinterval(1e-6)
for number in range(150):
    inner = msgspec.defstruct(f"Inner{number}", [(f"f{k}", "int | None", None) for k in range(20)])
    kind = msgspec.defstruct("Outer", [(f"g{k}", dict[str, inner]) for k in range(5)])
    raw = msgspec.msgpack.encode({f"g{k}": {"a": {"f1": 1}} for k in range(5)})
    together = threading.Barrier(4)

    def decode():
        together.wait()
        assert msgspec.msgpack.decode(raw, type=learn(kind)).g0["a"].f1 == 1

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_threads_that_decode_a_new_type_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def names_a_type(call: ast.Call) -> ast.expr | None:
    """Return the type that a call of msgspec is given, or None."""
    what = ast.unparse(call.func)
    if re.fullmatch(r"msgspec\.\w+\.decode", what):
        return next((keyword.value for keyword in call.keywords if keyword.arg == "type"), None)
    if re.fullmatch(r"msgspec\.\w+\.Decoder", what):
        return next(iter(call.args), None)
    return call.args[1] if what == "msgspec.convert" else None


@pytest.mark.parametrize("part", ["mmedge", "export"])
def test_every_type_that_msgspec_is_given_is_learned_first(part: str) -> None:
    root, given = Path(__file__).parents[2], 0
    for path in (root / part).rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if path.name == "learn.py" or (kind := names_a_type(call)) is None:
                continue
            given += 1
            assert ast.unparse(kind).startswith("learn("), f"{path}:{call.lineno}"
    assert given > 5
