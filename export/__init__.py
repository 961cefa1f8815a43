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
    from .int8.quantize import quantize
    from .onnx.to_onnx import to_onnx
    from .pack import pack
    from .recipe import Recipe
    from .run import run, run_steps
    from .training import train

__all__ = ["Recipe", "compare", "pack", "quantize", "run", "run_steps", "to_fp16", "to_onnx", "train"]

_HOME = {
    "Recipe": "recipe",
    "compare": "int8.compare",
    "pack": "pack",
    "quantize": "int8.quantize",
    "run": "run",
    "run_steps": "run",
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
