"""Load one ONNX file as an engine, without a pipeline."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from mmedge.engine.base import Engine
from mmedge.engine.compile import compile_variant
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.tensorrt_loader import tensorrt_choice
from mmedge.errors import ConfigError, DeviceError, EngineError

log = logging.getLogger("mmedge.engine")


def load_engine(path: str | Path, backend: str = "auto", *, threads: int = 1) -> Engine:
    """Load one ONNX network.

    Args:
        path: The ONNX file; TensorRT engines are built from it once and cached.
        backend: ``auto`` (TensorRT where it can run, else ONNX Runtime), ``tensorrt`` or ``onnxruntime``.
        threads: Threads of the CPU backend.

    Returns:
        The engine; write ``engine.inputs``, call ``engine.run()``, read ``engine.outputs`` (views, valid
        until the next run), or call it with a dict. The caller closes it.

    Raises:
        ConfigError: If the file or the backend does not exist.
        DeviceError: If ``tensorrt`` was asked for and cannot run here.
        EngineError: If the network cannot be loaded.

    Example:
        >>> with mmedge.load_engine("model.onnx") as engine:  # doctest: +SKIP
        ...     engine.inputs["x"][...] = 0
        ...     engine.run()
    """
    path = Path(path)
    if backend not in ("auto", "onnxruntime", "tensorrt"):
        raise ConfigError(f"unknown backend '{backend}'", where="backend", fix="use auto, onnxruntime or tensorrt")
    try:
        model = path.read_bytes()
    except OSError as error:
        message = f"cannot read the network: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="check the path") from error
    problem = "TensorRT is not installed" if tensorrt_choice() is None else gpu_problem()
    if backend == "tensorrt" and problem is not None:
        raise DeviceError(f"TensorRT cannot run here: {problem}", where=str(path), fix="use backend 'onnxruntime'")
    if backend != "onnxruntime" and problem is None:
        from mmedge.engine.tensorrt import TensorRTEngine

        try:
            compiled = compile_variant(model, hashlib.sha256(model).hexdigest(), path.stem, "fp32")
            return TensorRTEngine(compiled.plan_path.read_bytes(), name=path.name)
        except EngineError as error:
            if backend == "tensorrt":
                raise
            log.warning("TensorRT is not used for %s: %s", path, error.message)
    return OnnxRuntimeEngine(path, name=str(path), threads=threads)
