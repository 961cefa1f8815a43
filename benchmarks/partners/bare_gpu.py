"""The bare loop of a GPU beside it: our kernels in one CUDA graph by hand, compiled by one call of nvcc, then run."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmedge.types import ByteArray, FloatArray

SOURCE = Path(__file__).with_suffix(".cu")
NATIVE = Path(__file__).parents[2] / "native"


def nvcc() -> str | None:
    """Return CUDA's compiler, if it is there."""
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def build(folder: Path, architecture: str) -> Path | None:
    """Build the program for a GPU (``"sm_87"``) into a folder; None where there is no nvcc."""
    compiler = nvcc()
    if compiler is None:
        return None
    program = folder / "bare_gpu"
    command = [compiler, "-O3", "-std=c++17", f"-arch={architecture}", f"-I{NATIVE}", "-o", program, SOURCE]
    subprocess.run(command, check=True)
    return program


def write(
    path: Path,
    table: tuple[bytes, bytes, bytes],
    frames: Sequence[ByteArray],
    layers: Sequence[tuple[FloatArray, FloatArray]],
) -> None:
    """Write what it computes: a table of ``gpu_table``, 16 pictures uint8 [...], and layers as ``CudaNet`` takes them.

    Weights are float32 [outputs, inputs], biases float32 [outputs].
    """
    assert len(frames) == 16
    with path.open("wb") as file:
        for part in (*table, *(frame.tobytes() for frame in frames)):
            file.write(struct.pack("q", len(part)) + part)
        file.write(struct.pack("q", len(layers)))
        for weights, bias in layers:
            for array in (weights, bias):
                file.write(struct.pack("q", array.nbytes) + array.tobytes())


def run(program: Path, path: Path, runs: int) -> tuple[list[float], FloatArray]:
    """Return the times of the runs in us, after a tenth of them as warm-up, and the last answer, float32 [outputs]."""
    done = subprocess.run([program, path, str(runs)], capture_output=True, check=True)
    return [float(line) for line in done.stdout.split()], np.frombuffer(done.stderr, np.float32)
