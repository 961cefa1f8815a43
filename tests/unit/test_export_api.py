"""The package gives functions, lazily, whatever submodule was imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmedge import export


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_and_a_recipe_loads_neither_torch_nor_onnx():
    code = "import sys; from mmedge.export import Recipe; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    assert run(code) == "set()"


@pytest.mark.parametrize("first", ["mmedge.export.pack", "mmedge.export.int8.compare"])
def test_a_name_is_the_function_even_after_its_submodule_was_imported(first):
    code = (
        f"import importlib; m = importlib.import_module({first!r}); from mmedge import export; "
        "print(m.__name__, *(callable(getattr(export, n)) for n in ('compare', 'pack', 'quantize')))"
    )
    assert run(code) == f"{first} True True True"


def test_every_public_name_is_there_and_others_are_not():
    assert all(callable(getattr(export, name)) for name in export.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        _ = export.fly
