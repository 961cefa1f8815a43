"""How the toolchain runs a network to judge it: as written, in float, with the same answer on every CPU.

ONNX Runtime would fuse Q/DQ pairs into 8-bit kernels, which round inside and, on x86 without VNNI, saturate: ranges,
accuracy, gates and golden vectors would then depend on the machine that exported. TensorRT computes what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from onnx import ModelProto

from mmedge.bundle import Bundle
from mmedge.bundle.archive import write_archive
from mmedge.bundle.onnx_file import weights_member
from mmedge.engine.onnxruntime import OnnxRuntimeEngine, give_weights, session_options
from mmedge.extras import require
from mmedge.types import AnyArray

from .onnx.outside import handed


def judge(
    model: ModelProto | bytes, name: str = "model", weights: Mapping[str, AnyArray] | None = None
) -> OnnxRuntimeEngine:
    """Return an engine that runs a network as it is written.

    Args:
        model: The network, quantised or not.
        name: For messages.
        weights: Of bytes that leave weights in files: initializer -> its values, [its shape] in its dtype.

    Raises:
        EngineError: If it cannot be loaded.

    Example:
        >>> judge(int8.models["image_encoder"])({"x": tensor})["embedding"]  # doctest: +SKIP
    """
    content, values = (model, weights) if isinstance(model, bytes) else handed(model)
    return OnnxRuntimeEngine(content, name=name, as_written=True, weights=values)


def judge_session(model: ModelProto | bytes, *, optimised: bool = True) -> Any:
    """Return an ONNX Runtime session that runs a network as it is written, with whatever shapes it is fed.

    Args:
        model: The network.
        optimised: Let ONNX Runtime fuse and fold; without, it starts sooner.

    Raises:
        Exception: One of ONNX Runtime's own classes if it cannot be loaded.
    """
    ort = require("onnxruntime", "running networks on this machine")
    options = session_options(as_written=True)
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content, values = (model, {}) if isinstance(model, bytes) else handed(model)
    kept = give_weights(options, values or {}, packed=False)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    session.kept = kept  # what it reads lives as long as it does
    return session


def tensorrt_alone(bundle: Bundle, path: Path) -> Path:
    """Write a bundle with the TensorRT variants alone, which the runtime runs as written where there is no TensorRT.

    Args:
        bundle: An open bundle.
        path: Where to.

    Returns:
        The path.
    """
    manifest = bundle.manifest
    variants = tuple(v for v in manifest.variants if v.target == "tensorrt")
    gone = {v.file for v in manifest.variants} - {v.file for v in variants}
    gone |= {weights_member(name) for name in gone}
    files = {name: file for name, file in manifest.files.items() if name not in gone}
    manifest = msgspec.structs.replace(manifest, variants=variants, files=files)
    return write_archive(path, manifest, {name: bundle.read(name) for name in files})
