"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module


def lazily(package: str, homes: Mapping[str, str], name: str) -> object:
    """Return a public name of a package, for its ``__getattr__``, and keep it there.

    Args:
        package: The package's name.
        homes: Public name -> the module that defines it.
        name: The name that is wanted.

    Raises:
        AttributeError: If it is none of them.
    """
    if name not in homes:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    value: object = getattr(import_module(homes[name]), name)
    # Set in any case: importing a submodule of that name has bound it to the module (`mmedge.bench`, a function too).
    setattr(sys.modules[package], name, value)
    return value
