"""NVIDIA's Model Optimizer (modelopt) on ONNX, as well as it runs on a machine without a GPU.

It is no dependency: its ``[onnx]`` extra wants cupy and onnxruntime-gpu, and pins older versions of onnx and ONNX
Runtime. It quantises here without them, installed beside ours by

    pip install --no-deps nvidia-modelopt onnx-graphsurgeon onnxconverter-common onnxslim polygraphy lief cppimport \
        mako pybind11 omegaconf antlr4-python3-runtime==4.9.3 pyyaml pulp pydantic pydantic-core annotated-types \
        typing-inspection regex requests urllib3 idna certifi charset-normalizer nvidia-ml-py huggingface_hub scipy tqdm

It replaces parts of ONNX Runtime's quantiser, so it runs in a process of its own:
``python -m benchmarks.partners.modelopt FOLDER MODE METHOD``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from mmedge.types import FloatArray

_MISSING = 3


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
    if find_spec("modelopt") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "a.onnx")
        np.savez(Path(folder) / "frames.npz", allow_pickle=False, **frames)
        command = [sys.executable, "-m", "benchmarks.partners.modelopt", folder, mode, method]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == _MISSING:
            return None
        if done.returncode:
            raise RuntimeError(f"modelopt failed:\n{done.stderr[-2000:]}")
        return onnx.load(Path(folder) / "b.onnx")


def _child(folder: Path, mode: str, method: str) -> int:
    try:
        tool = import_module("modelopt.onnx.quantization")
    except ImportError:  # of a package that it needs
        return _MISSING
    with np.load(folder / "frames.npz", allow_pickle=False) as frames:
        tool.quantize(
            str(folder / "a.onnx"),
            quantize_mode=mode,
            calibration_data=dict(frames),
            calibration_method=method,
            calibration_eps=["cpu"],
            output_path=str(folder / "b.onnx"),
            high_precision_dtype="fp32",
            log_level="ERROR",
            **({"block_size": 64} if mode == "int4" else {}),
        )
    return 0


if __name__ == "__main__":
    sys.exit(_child(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
