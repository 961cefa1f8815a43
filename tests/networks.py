"""Small networks as people bring them along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import MmedgeError

FLOAT, FLOAT16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
UINT8, INT64, BOOL = TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL
NODE = helper.make_node


def info(name: str, shape: Any, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """Return a tensor of a signature."""
    return helper.make_tensor_value_info(name, kind, shape)


def network(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    metadata: dict[str, str] | None = None,
    *,
    opset: int = 18,
    functions: list[Any] | None = None,
    **constants: Any,
) -> onnx.ModelProto:
    """Return a network; a signature is ``{name: shape}`` for floats or ``{name: (kind, shape)}``."""

    def values(specs: Mapping[str, Any]) -> list[onnx.ValueInfoProto]:
        return [
            info(name, spec[1], spec[0]) if isinstance(spec, tuple) else info(name, spec)
            for name, spec in specs.items()
        ]

    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("own", 1)] if functions else [])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=8)
    helper.set_model_props(model, metadata or {})
    return model


def new_project(folder: Path, models: Mapping[str, onnx.ModelProto], *options: str) -> dict[str, Any]:
    """Return what `mmedge new` says of networks, or its error; in this process, so that a busy machine is no matter."""
    from mmedge.export.brought.new import from_networks

    files = [folder / f"{name}.onnx" for name in models]
    for file, model in zip(files, models.values(), strict=True):
        onnx.save(model, file)
    said: dict[str, list[str]] = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        said.setdefault(option.removeprefix("--"), []).append(value)
    try:
        return from_networks(folder / "p", files, None, said).to_dict()
    except MmedgeError as error:
        return error.to_dict()


def head(layout: str, shape: list[int], picture: tuple[int, int]) -> np.ndarray:
    """Return what a detector of a layout gives: decoded boxes all over the picture (height, width), none sure."""
    rng = np.random.default_rng(0)
    values, count = (shape[1], shape[2]) if layout == "yolo" else (shape[2], shape[1])
    scale = np.array(picture[::-1])
    centres, sizes = rng.uniform(0, 1, (count, 2)) * scale, rng.uniform(0.05, 0.4, (count, 2)) * scale
    if layout == "boxes":
        scores = np.stack([rng.uniform(0, 0.2, count), rng.integers(0, 80, count)], axis=1)
        rows = np.concatenate([centres - sizes / 2, centres + sizes / 2, scores], axis=1)
    else:
        rows = np.concatenate([centres, sizes, rng.uniform(0, 0.2, (count, values - 4))], axis=1)
    return (rows.T if layout == "yolo" else rows)[None].astype(np.float32)


def telling(given: Mapping[str, Any], metadata: dict[str, str] | None = None, **outputs: np.ndarray) -> onnx.ModelProto:
    """Return a network that answers the same to every picture ``x``."""
    nodes = [NODE("ReduceMean", ["x"], ["mean"], keepdims=0), NODE("Mul", ["mean", "none"], ["nothing"])]
    nodes += [NODE("Add", ["nothing", f"{name}/is"], [name]) for name in outputs]
    told = {name: (FLOAT, list(array.shape)) for name, array in outputs.items()}
    constants = {f"{name}/is": array for name, array in outputs.items()}
    return network(nodes, given, told, metadata, none=np.float32(0), **constants)


def seeing(size: int, classes: int, *ends: str, weight: float = 1e-4, bias: float = 0.5) -> onnx.ModelProto:
    """Return a network: pictures -> a matrix -> the operators ``ends``."""
    steps = [("Flatten", []), ("MatMul", ["w"]), ("Add", ["b"]), *((op, []) for op in ends)]
    names = ["x", *(f"t{k}" for k in range(1, len(steps))), "y"]
    nodes = [NODE(op, [names[k], *more], [names[k + 1]]) for k, (op, more) in enumerate(steps)]
    w = np.full((3 * size * size, classes), weight, np.float32)
    shapes = {"x": (FLOAT, [1, 3, size, size])}, {"y": (FLOAT, [1, classes])}
    return network(nodes, *shapes, w=w, b=np.full(classes, bias, np.float32))
