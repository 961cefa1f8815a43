"""Loading a script of scripts/ as a module, as they are no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def load_script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
