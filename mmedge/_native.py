"""Import the compiled core, or raise an error with the line that builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge import _core as core
else:
    from importlib import import_module

    try:
        core = import_module("mmedge._core")
    # A plain ImportError means a broken shared library and must stay visible as what it is.
    except ModuleNotFoundError as error:
        if error.name != "mmedge._core":
            raise
        raise ImportError(
            "mmedge's native core is not built for this Python.\n"
            "  fix: pip install -e . (and in a checkout run `pytest`, not `python -m pytest`)",
            name="mmedge._core",
        ) from error

__all__ = ["core"]
