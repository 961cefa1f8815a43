"""Load one ONNX network as an engine, without a pipeline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

from mmedge.engine.base import Engine
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_network
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.network import Network, read_network
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.shapes import Given, Range, check_ranges
from mmedge.engine.tensorrt_loader import PlanError, tensorrt_choice
from mmedge.errors import ConfigError, DeviceError, EngineError
from mmedge.types import Backend

log = logging.getLogger("mmedge.engine")
_LARGE = 1 << 27  # bytes of a file


def load_engine(
    path: str | Path | bytes, backend: str = "auto", *, threads: int = 1, shapes: Given | None = None
) -> Engine:
    """Load one ONNX network.

    Args:
        path: The ONNX file, or its bytes; weights in files beside it (``model.onnx.data``) belong to it. TensorRT
            engines are built from it once and cached by all of its bytes.
        backend: ``auto`` (TensorRT where it can run, else ONNX Runtime), ``tensorrt``, ``onnxruntime``, ``openvino``,
            ``onnxruntime-cuda`` or ``onnxruntime-rtx``.
        threads: Threads of the CPU backend.
        shapes: Input name -> shape, for inputs with open dimensions, or three shapes: the least, the usual and the most
            that a TensorRT engine is built for; the arrays have the usual one. A batch that is not given is 1; any
            other open dimension must be given.

    Returns:
        The engine; write ``engine.inputs``, call ``engine.run()``, read ``engine.outputs`` (views, valid
        until the next run), or call it with a dict. The caller closes it.

    Raises:
        ConfigError: If the file or the backend does not exist, weights are missing or lie outside the folder, or an
            open dimension was not given.
        DeviceError: If ``tensorrt`` was asked for and cannot run here.
        EngineError: If the network cannot be loaded.

    Example:
        >>> with mmedge.load_engine("model.onnx", shapes={"x": (1, 3, 320, 320)}) as engine:  # doctest: +SKIP
        ...     engine.inputs["x"][...] = 0
        ...     engine.run()
    """
    if backend not in get_args(Backend):
        fix = f"use one of {', '.join(get_args(Backend))}"
        raise ConfigError(f"unknown backend '{backend}'", where="backend", fix=fix)
    ranges = check_ranges(shapes)
    network = read_network(path)
    problem = "TensorRT is not installed" if tensorrt_choice() is None else gpu_problem()
    if backend == "tensorrt" and problem is not None:
        raise DeviceError(f"TensorRT cannot run here: {problem}", where=network.name, fix="use backend 'onnxruntime'")
    if backend in ("auto", "tensorrt") and problem is None:
        try:
            return _on_gpu(network, shapes)
        except EngineError as error:
            if backend == "tensorrt":
                raise
            log.warning("TensorRT is not used for %s: %s", network.name, error.message)
    return _on_cpu(network, ranges, threads, backend)


def _on_gpu(network: Network, shapes: Given | None) -> Engine:
    compiled = compile_network(network, shapes=shapes)
    try:
        return compiled.open(network.name)
    except PlanError as error:
        if not compiled.cached:
            raise
        log.warning("the engine of %s in the cache is wrong, building it again: %s", network.name, error.message)
        EngineCache().discard(compiled.key)
    return compile_network(network, shapes=shapes).open(network.name)


def _on_cpu(network: Network, ranges: dict[str, Range], threads: int, backend: str) -> Engine:
    wanted = {name: usual for name, (_, usual, _) in ranges.items()}
    if backend == "openvino":
        from mmedge.engine.openvino import OpenVINOEngine

        source = network.path if network.path is not None and network.weights else network.model
        return OpenVINOEngine(source, name=network.name, threads=threads, shapes=wanted, exact=True)
    # Weights in files are found by the path, and a large file is not held twice; otherwise what was read is what runs.
    large = network.weights or len(network.model) > _LARGE
    source = network.path if network.path is not None and large else network.model
    own = "onnxruntime" if backend in ("auto", "tensorrt") else backend
    return OnnxRuntimeEngine(source, name=network.name, threads=threads, shapes=wanted, exact=True, backend=own)
