"""NVIDIA's Model Optimizer (modelopt) on ONNX, as well as it runs on a machine without a GPU.

It is no dependency: its ``[onnx]`` extra wants cupy and onnxruntime-gpu, and pins older versions of onnx and ONNX
Runtime. It quantises here without them, installed beside ours by

    pip install --no-deps nvidia-modelopt onnx-graphsurgeon onnxconverter-common onnxslim polygraphy lief cppimport \
        omegaconf antlr4-python3-runtime==4.9.3 pulp pydantic pydantic-core annotated-types typing-inspection regex \
        nvidia-ml-py huggingface_hub
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import onnx

from mmedge.types import FloatArray


def modelopt(
    model: onnx.ModelProto, frames: Mapping[str, FloatArray], *, method: str, mode: str = "int8"
) -> onnx.ModelProto | None:
    """Return the network as modelopt quantises it, with the rest in float32; None where it is not installed.

    Args:
        model: The fp32 network.
        frames: Input -> what calibrates it, along axis 0; cut there into batches of the network's size.
        method: ``max`` or ``entropy``; of INT4, ``rtn_dq``.
        mode: ``int8``, ``fp8`` or ``int4`` (blocks of 64).
    """
    try:
        tool = import_module("modelopt.onnx.quantization")
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, source)
        tool.quantize(
            str(source),
            quantize_mode=mode,
            calibration_data=dict(frames),
            calibration_method=method,
            calibration_eps=["cpu"],
            output_path=str(target),
            high_precision_dtype="fp32",
            log_level="ERROR",
            **({"block_size": 64} if mode == "int4" else {}),
        )
        return onnx.load(target)
