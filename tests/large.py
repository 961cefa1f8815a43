"""Networks whose weights lie in a file beside them, as large ones do; the file may be one large hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from mmedge.export import Recipe
from tests.networks import FLOAT, INT64, NODE, network

RECIPE = """
name = "large"
licence = "MIT"
outputs = ["net.y"]
[inputs.x]
modality = "tensor"
shape = [1, 6]
{dtype}
[stages.net]
onnx = "net.onnx"
inputs = {{ x = "x" }}
[calibration]
{calibration}
[export]
precisions = {precisions}
targets = {targets}
[sync]
trigger = "x"
"""


def place(model: onnx.ModelProto, folder: Path, *, gap: int = 0) -> Path:
    """Write a network and its weights, all in one file, after so many bytes that belong to nobody."""
    at = gap
    with (folder / "net.bin").open("wb") as file:
        for tensor in model.graph.initializer:
            file.seek(at)
            file.write(tensor.raw_data)
            point(tensor, at, len(tensor.raw_data))
            at = file.tell()
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def point(tensor: TensorProto, at: int, size: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "net.bin"), ("offset", str(at)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)


def layers(width: int = 256, seed: int = 0) -> onnx.ModelProto:
    """[1, 6] -> [1, 3] by two layers and a transposed one; all is float32, but a table of whole numbers."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(0, 1, shape) / np.sqrt(shape[0])).astype(np.float32)

    return network(
        [
            NODE("MatMul", ["x", "w1"], ["a"], name="first"),
            NODE("Relu", ["a"], ["b"]),
            NODE("Gemm", ["b", "w2"], ["c"], name="second", transB=1),
            NODE("Relu", ["c"], ["d"]),
            NODE("Transpose", ["w3"], ["t"], perm=[1, 0]),
            NODE("MatMul", ["d", "t"], ["y"], name="third"),
        ],
        {"x": [1, 6]},
        {"y": [1, 3]},
        w1=weight(6, width),
        w2=weight(width, width),
        w3=weight(3, width),
    )


def table(folder: Path, rows: int) -> Path:
    """Write a network that looks numbers up: [1, 6] -> [1, 6, 256]; the first and the last row alone are not zero."""
    model = network(
        [NODE("Gather", ["table", "x"], ["g"]), NODE("Mul", ["g", "two"], ["y"])],
        {"x": (INT64, [1, 6])},
        {"y": [1, 6, 256]},
        two=np.float32([2]),
    )
    size = 1024 * rows
    model.graph.initializer.append(TensorProto(name="table", data_type=FLOAT, dims=[rows, 256]))
    point(model.graph.initializer[-1], 0, size)
    with (folder / "net.bin").open("wb") as file:
        for at in (0, size - 1024):
            file.seek(at)
            file.write(np.arange(256, dtype=np.float32).tobytes())
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def recipe(
    folder: Path,
    *,
    precisions: str = '["fp32"]',
    targets: str = '["cpu"]',
    calibration: str = "",
    dtype: str = "",
) -> Recipe:
    text = RECIPE.format(precisions=precisions, targets=targets, calibration=calibration, dtype=dtype)
    (folder / "recipe.toml").write_text(text)
    return Recipe.load(folder / "recipe.toml")
