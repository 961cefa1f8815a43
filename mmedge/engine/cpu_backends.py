"""The back ends for CPUs: which are installed, what version they are, and how each loads a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.engine.cpu_engine import CpuEngine
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.ort_providers import PROVIDERS, provider_version
from mmedge.engine.prepared import PreparedKey, load_prepared
from mmedge.errors import EngineError
from mmedge.extras import is_installed, require
from mmedge.types import AnyArray

CPU_BACKENDS = ("onnxruntime", "openvino")
"""In the order in which they serve where nothing was measured."""
_BLOB = "model.blob"
_log = logging.getLogger(__name__)


def installed_backends() -> tuple[str, ...]:
    """Return the back ends for CPUs that are installed; ONNX Runtime where none is, so that its absence is said."""
    return tuple(name for name in CPU_BACKENDS if is_installed(name)) or CPU_BACKENDS[:1]


def library_module(backend: str) -> str:
    """Return what is imported to have a back end's library, and nothing that it would report."""
    return "mmedge.engine.openvino_library" if backend == "openvino" else backend


def library_version(backend: str) -> str:
    """Return the version of a back end's library; empty where it does not say.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    if backend in PROVIDERS:
        return provider_version(backend)
    if backend == "openvino" and is_installed(
        backend
    ):  # importing it takes a quarter of a second, and it may not serve
        return _installed_version(backend)
    return str(getattr(require(backend, "running networks on the CPU"), "__version__", ""))


@cache
def _installed_version(module: str) -> str:
    """Return the version of a module whose distribution has its name, by the folder beside it: each start asks."""
    spec = find_spec(module)
    beside = (
        [] if spec is None or spec.origin is None else [*Path(spec.origin).parents[1].glob(f"{module}-*.dist-info")]
    )
    if len(beside) == 1:
        return beside[0].stem.partition("-")[2]
    from importlib.metadata import version  # takes as long as a small network does

    return version(module)


def load_on_cpu(
    backend: str,
    read: Callable[[], tuple[bytes, Mapping[str, AnyArray]]],
    *,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, float],
    as_written: bool = False,
    sha256: str | None = None,
) -> CpuEngine:
    """Load a network of a bundle.

    Args:
        backend: One of ``CPU_BACKENDS``, or of ``PROVIDERS``, which keep nothing.
        read: Returns the ONNX file, and the weights of it that lie outside, [as it says] in its dtypes.
        name: For messages.
        shapes: Input -> the shape that it is fed with.
        constants: Input -> a number that fills it.
        as_written: Run Q/DQ pairs in float (ONNX Runtime alone).
        sha256: Hash of the network, if what is prepared of it is to be kept and used; None: it is read and prepared.

    Returns:
        The engine; the caller closes it.

    Raises:
        EngineError: If it cannot be loaded.
        MissingDependencyError: If the library is not installed.
    """
    options: dict[str, Any] = {"name": name, "shapes": shapes, "constants": constants}
    if backend in PROVIDERS:
        content, weights = read()
        return OnnxRuntimeEngine(content, **options, as_written=as_written, weights=weights, backend=backend)
    load = _OPENERS[backend](read, options, as_written)
    if sha256 is None:
        return load(None, None)
    key = PreparedKey(
        sha256=sha256,
        backend=backend,
        version=library_version(backend),
        shapes={n: tuple(shape) for n, shape in shapes.items()},
        constants=dict(constants),
    )
    return load_prepared(key, lambda folder: load(folder, None), lambda folder: load(None, folder))


_Load = Callable[[Path | None, Path | None], CpuEngine]  # from what was prepared; from the file, and keep that there


def _onnxruntime(
    read: Callable[[], tuple[bytes, Mapping[str, AnyArray]]], options: dict[str, Any], as_written: bool
) -> _Load:
    def load(prepared: Path | None, keep: Path | None) -> CpuEngine:
        if prepared is not None:
            return OnnxRuntimeEngine(prepared, **options, prepared=True)
        content, weights = read()
        make = partial(OnnxRuntimeEngine, content, **options, as_written=as_written, weights=weights)
        try:
            return make(keep=keep)
        except EngineError as error:
            if keep is None:
                raise
            _let_go(keep, error)
        return make()  # it may be the disk, or what ONNX Runtime can run and cannot write

    return load


def _openvino(
    read: Callable[[], tuple[bytes, Mapping[str, AnyArray]]], options: dict[str, Any], as_written: bool
) -> _Load:
    from mmedge.engine.openvino import OpenVINOEngine

    def load(prepared: Path | None, keep: Path | None) -> CpuEngine:
        if prepared is not None:  # mapped: its weights are shared by all processes, and none writes there
            return OpenVINOEngine(np.memmap(prepared / _BLOB, np.uint8, "c"), **options, prepared=True)
        content, weights = read()
        if weights or as_written:
            what = "weights outside of the network" if weights else "Q/DQ pairs as they are written"
            raise EngineError(f"OpenVINO does not take {what}", where=options["name"], fix="use backend 'onnxruntime'")
        engine = OpenVINOEngine(content, **options)
        if keep is not None:
            try:
                (keep / _BLOB).write_bytes(engine.export())
            except (EngineError, OSError) as error:
                _let_go(keep, error)
        return engine

    return load


def _let_go(keep: Path, error: Exception) -> None:
    """Remove what was written into an entry that failed: a half of it would be published as a whole."""
    _log.info("nothing prepared is kept: %s", error)
    for file in keep.iterdir():
        file.unlink()


_OPENERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}
