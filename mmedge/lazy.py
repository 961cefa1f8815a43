"""Packages whose public names are imported when they are first used, and what imports cost."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
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
def imported_beside(modules: Collection[str]) -> Iterator[None]:
    """Import modules in a thread while the block does what leaves the interpreter alone much of the time.

    What is missing is found out by who needs it, and said there.
    """

    def bring() -> None:
        for module in modules:
            with suppress(Exception):
                import_module(module)

    if all(module in sys.modules for module in modules):
        yield
        return
    thread = threading.Thread(target=bring, name="mmedge-import")
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import without Python's collector, which would look through all that stays again and again, and find nothing.

    It takes a twentieth of a cold start. What is there afterwards counts as old, or the next three small collections
    would each look through all of it.
    """
    if not gc.isenabled():  # by whoever has called, or by another thread that starts a run
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # or what the user has frozen would thaw
            gc.freeze()
            gc.unfreeze()
        gc.enable()
