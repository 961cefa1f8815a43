"""The committed stub is what the module says of itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmedge
from mmedge import _native


def test_stub_matches_the_module(tmp_path: Path) -> None:
    pytest.importorskip("nanobind", reason="the stub generator comes with nanobind: pip install nanobind")
    fresh = tmp_path / "_core.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "mmedge._core", "-o", str(fresh)]
    subprocess.run(command, check=True, cwd=tmp_path)
    committed = Path(mmedge.__file__).with_name("_core.pyi")
    assert ast.dump(ast.parse(committed.read_text())) == ast.dump(ast.parse(fresh.read_text())), (
        "regenerate it: python -m nanobind.stubgen -m mmedge._core -o mmedge/_core.pyi && ruff format mmedge/_core.pyi"
    )


def test_missing_core_says_how_to_build_it() -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'mmedge._core': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import mmedge._native\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "fix: pip install -e ." in run.stderr
    assert _native.core.__name__ == "mmedge._core"
