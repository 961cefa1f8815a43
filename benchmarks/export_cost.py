"""What a calibration costs: memory and CPU time as JSON.

``python -m benchmarks.export_cost NETWORK.onnx SIZE COUNT``, in a process of its own that has loaded nothing else.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import onnx

from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export import Recipe, quantize
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.preprocess.onnx_prefix import Preprocessor
from mmedge.types import AnyArray

_RECIPE = """
name = "cost"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [{size}, {size}]
frame = [{size}, {size}]
color = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[model]
factory = "unused:make"
[stages.net]
inputs = {{ x = "image" }}
outputs = {{ y = [1, {classes}] }}
[tasks.digit]
kind = "classification"
output = "net.y"
labels = {labels}
[calibration]
frames = {frames}
[sync]
trigger = "image"
"""


class Pictures(Sequence[dict[str, AnyArray]]):
    """Pictures made when they are asked for, as a reader of files makes them."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, AnyArray]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, AnyArray]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, AnyArray] | list[dict[str, AnyArray]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        coarse = np.random.default_rng(index).integers(0, 256, (self._size // 32, self._size // 32, 3), dtype=np.uint8)
        return {"image": coarse.repeat(32, 0).repeat(32, 1)[None]}


def memory_mb(what: str) -> float:
    """Return ``VmRSS``, the memory of this process now, or ``VmHWM``, its most since ``forget``, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main(network: Path, size: int, count: int) -> dict[str, float]:
    """Calibrate on ``count`` pictures, half as many more judge, and run the network plainly on as many."""
    model = onnx.load(network)
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.toml"
        labels = [str(k) for k in range(classes)]
        file.write_text(_RECIPE.format(size=size, classes=classes, labels=labels, frames=count))
        recipe = Recipe.load(file)
    pictures = Pictures(count * 3 // 2, size)
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models={"net": model})
    preprocess = Preprocessor(recipe.inputs)
    with OnnxRuntimeEngine(model.SerializeToString()) as engine:
        engine({"x": preprocess(pictures[0])["image"]})
        before_s = time.process_time()
        for index in range(count):
            engine({"x": preprocess(pictures[index])["image"]})
        plain_s = time.process_time() - before_s
        base = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before_s = time.process_time()
    quantize(fp32, None, pictures)
    ratio = (time.process_time() - before_s) / plain_s
    return {"peak_mb": memory_mb("VmHWM") - base, "cpu_ratio": ratio, "plain_s": plain_s}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
