"""The host toolchain: train, export to ONNX, quantise to INT8, compare, pack.

    recipe = export.Recipe.load("recipes/av_digits.toml"); model = export.train(recipe)
    onnx = export.to_onnx(model, recipe); int8 = export.quantize(onnx, recipe.calibration)
    export.compare(onnx, int8, recipe.calibration).raise_for_status(max_drop_points=0.3)
    export.pack("digits.mmedge", recipe, [onnx, int8])
    export.run(recipe)  # all of it, resumable

Names are imported on first use, so that ``import mmedge.export`` loads neither torch nor onnx.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .int8.compare import compare
    from .int8.fp16 import to_fp16
    from .int8.half_rest import half_rest
    from .int8.quantize import quantize
    from .measure import measure
    from .onnx.gate import parser_gate
    from .onnx.normal_form import normal_form
    from .onnx.to_onnx import check_parity, export_stages, to_onnx
    from .pack import make_members, pack
    from .recipe import Recipe
    from .run import run, run_steps
    from .smoke import smoke
    from .training import train

__all__ = [
    "Recipe",
    "check_parity",
    "compare",
    "export_stages",
    "half_rest",
    "make_members",
    "measure",
    "normal_form",
    "pack",
    "parser_gate",
    "quantize",
    "run",
    "run_steps",
    "smoke",
    "to_fp16",
    "to_onnx",
    "train",
]

_HOME = {
    "Recipe": "recipe",
    "check_parity": "onnx.to_onnx",
    "compare": "int8.compare",
    "export_stages": "onnx.to_onnx",
    "half_rest": "int8.half_rest",
    "make_members": "pack",
    "measure": "measure",
    "normal_form": "onnx.normal_form",
    "pack": "pack",
    "parser_gate": "onnx.gate",
    "quantize": "int8.quantize",
    "run": "run",
    "run_steps": "run",
    "smoke": "smoke",
    "to_fp16": "int8.fp16",
    "to_onnx": "onnx.to_onnx",
    "train": "training",
}


class _Package(ModuleType):
    """Keeps ``export.compare`` the function: importing the submodule would rebind the name to the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


sys.modules[__name__].__class__ = _Package
