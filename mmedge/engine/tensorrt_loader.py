"""One loader for `tensorrt` and `tensorrt_rtx`: code asks for capabilities, never for versions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import msgspec

from mmedge.errors import ConfigError, EngineError, MissingDependencyError
from mmedge.extras import require

MODULES = ("tensorrt", "tensorrt_rtx")
_log = logging.getLogger(__name__)

# Capability -> the attribute that shows it.
_CAPS = {
    "strongly_typed_flag": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "weak_typing": "BuilderFlag.INT8",
    "runtime_config": "ICudaEngine.create_runtime_config",
    "cuda_graph_strategy": "IRuntimeConfig.cuda_graph_strategy",
    "stream_capturable": "IExecutionContext.is_stream_capturable",
    "engine_validity": "Runtime.get_engine_validity",
    "compute_capability": "IBuilderConfig.set_compute_capability",
    "same_capability": "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
}


class PlanError(EngineError):
    """A plan that does not belong to this TensorRT or this GPU, or is damaged: it must be built again."""


class PrecisionError(EngineError):
    """A precision that this device, or this part of it, does not have: another one serves."""


class TensorRT(msgspec.Struct, frozen=True, kw_only=True):
    """A TensorRT module and what it can do.

    Attributes:
        module: The imported module.
        name: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: Its full version.
        caps: Capabilities, found with ``hasattr``.
    """

    module: Any
    name: str
    version: str
    caps: frozenset[str]

    @property
    def weak_fallback(self) -> bool:
        """True where strong typing is not yet complete (10.3, JetPack 6) and weak typing still exists."""
        return "weak_typing" in self.caps and "runtime_config" not in self.caps

    @property
    def ahead_of_time(self) -> bool:
        """True when it builds engines for a GPU that is not there."""
        return "compute_capability" in self.caps

    def compute_capabilities(self) -> tuple[str, ...]:
        """Targets it can build for ahead of time; empty when it builds for the GPU at hand only."""
        if not self.ahead_of_time:
            return ()
        return tuple(name for name in self.module.ComputeCapability.__members__ if name.startswith("SM"))


def _has(module: Any, path: str) -> bool:
    value = module
    for part in path.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def tensorrt_choice(prefer: str | None = None) -> str | None:
    """Name the module that ``load_tensorrt`` would import, without importing it; None if there is none.

    Raises:
        ConfigError: If ``prefer`` or ``MMEDGE_TENSORRT`` names something else.
    """
    chosen = prefer or os.environ.get("MMEDGE_TENSORRT") or None
    if chosen is not None and chosen not in MODULES:
        raise ConfigError(
            f"unknown TensorRT module '{chosen}'",
            where="module" if prefer else "MMEDGE_TENSORRT",
            fix=f"use one of {', '.join(MODULES)}",
        )
    if chosen is not None:
        return chosen
    return next((name for name in MODULES if find_spec(name) is not None), None)


def load_tensorrt(prefer: str | None = None) -> TensorRT:
    """Import TensorRT: `tensorrt` if it is installed, else `tensorrt_rtx`.

    Args:
        prefer: Forces one of the two; so does the environment variable ``MMEDGE_TENSORRT``.

    Returns:
        The module with its version and capabilities.

    Raises:
        MissingDependencyError: If none, or the forced one, is not installed.
        ConfigError: If the forced name is not a TensorRT module.

    Example:
        >>> trt = load_tensorrt("tensorrt_rtx")  # doctest: +SKIP
        >>> "compute_capability" in trt.caps  # doctest: +SKIP
        True
    """
    name = tensorrt_choice(prefer)
    if name is None:
        raise MissingDependencyError(
            "TensorRT is not installed",
            where="import tensorrt",
            fix="on Jetson install the JetPack package `nvidia-jetpack` and use a venv with --system-site-packages; "
            "elsewhere: pip install 'mmedge[tensorrt-rtx]'",
        )
    return _load(name)


@cache
def _load(name: str) -> TensorRT:
    try:
        module = require(name, "building and running TensorRT engines")
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"'{name}' is installed but does not load: {error}",
            where=f"import {name}",
            fix="its libraries (libnvinfer) must match the Python package; run `mmedge doctor`",
        ) from error
    caps = frozenset(cap for cap, path in _CAPS.items() if _has(module, path))
    if name != "tensorrt_rtx" and _has(module, "IBuilderConfig.create_timing_cache"):
        caps |= {"timing_cache"}  # tensorrt_rtx has the call, which does nothing but warn
    return TensorRT(module=module, name=name, version=str(module.__version__), caps=caps)


def make_logger(trt: TensorRT, sink: Callable[[int, str], None]) -> Any:
    """Make an ``ILogger`` that hands ``(severity, message)`` to ``sink``; 0 and 1 are errors, 4 is verbose."""

    class Logger(trt.module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            sink(int(severity), message)

    return Logger()


class RunLog:
    """What TensorRT said while an engine was loaded or run: to the log, and the last errors kept."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def __call__(self, severity: int, message: str) -> None:
        """Take one message."""
        level = (logging.ERROR, logging.ERROR, logging.WARNING, logging.DEBUG, logging.DEBUG)[severity]
        _log.log(level, "%s", message)
        if severity <= 1:
            self.errors = [*self.errors[-9:], message]

    def take(self) -> str:
        """Return and forget the errors so far."""
        text, self.errors = "; ".join(self.errors), []
        return text or "no reason given"


@cache
def run_logger(name: str) -> tuple[Any, RunLog]:
    """Return the process's one logger of module ``name`` (TensorRT warns about a second one) and its sink."""
    sink = RunLog()
    return make_logger(_load(name), sink), sink
