"""Packages whose public names are imported when they are first used, and what imports cost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import without Python's collector, which would look through all that stays again and again, and find nothing.

    It takes a twentieth of a cold start.
    """
    if not gc.isenabled():  # by whoever has called, or by another thread that starts a run
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
