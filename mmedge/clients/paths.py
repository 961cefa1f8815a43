"""Where the library for C and C++ lies."""

from __future__ import annotations

from pathlib import Path

from mmedge._native import core
from mmedge.errors import MissingDependencyError


def prefix() -> Path:
    """Return the folder that holds ``include/mmedge.h`` and ``lib/libmmedge.so``, for CMAKE_PREFIX_PATH and the like.

    Raises:
        MissingDependencyError: If this installation was made without them.

    Example:
        >>> (prefix() / "include" / "mmedge.h").exists()
        True
    """
    folder = Path(core.__file__).parent
    if not (folder / "include" / "mmedge.h").exists():
        fix = "install the package again (pip install mmedge), or build the library alone: docs/attach.md"
        raise MissingDependencyError("the library for C and C++ is not there", where=str(folder), fix=fix)
    return folder
