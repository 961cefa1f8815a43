"""Measurement and reports. ``mmedge.bench`` is this package and the function of the same name at once."""

import sys
from types import ModuleType
from typing import Any

from mmedge.bench.machine import machine
from mmedge.bench.report import Report
from mmedge.bench.run import bench

__all__ = ["Report", "bench", "machine"]


class _CallablePackage(ModuleType):
    # Importing a submodule binds the package over the function's name in `mmedge`: let both be callable.
    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        return bench(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
