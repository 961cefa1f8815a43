"""Networks for TensorRT's builder, and the processes that build."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx

RTX = {"module": "tensorrt_rtx", "compute_capability": "SM86"}


class Net:
    """Puts an ONNX network together, node by node."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.constants: list = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(onnx.helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes))
        return output

    def quantize(self, tensor: str, scale) -> str:
        scale = np.asarray(scale, np.float32)
        pair = [self.constant(f"{tensor}_s", scale), self.constant(f"{tensor}_z", np.zeros(scale.shape, np.int8))]
        axis = {"axis": 0} if scale.ndim else {}
        self.node("QuantizeLinear", [tensor, *pair], f"{tensor}_q", **axis)
        return self.node("DequantizeLinear", [f"{tensor}_q", *pair], f"{tensor}_dq", **axis)

    def conv(self, data: str, shape: tuple[int, ...], output: str, *, int8: bool) -> str:
        weights = (self.random.standard_normal(shape) * 0.1).astype(np.float32)
        name = self.constant(f"{output}_w", weights)
        bias = self.constant(f"{output}_b", np.zeros(shape[0], np.float32))
        if int8:
            data = self.quantize(data, 0.02)
            name = self.quantize(name, np.abs(weights).reshape(shape[0], -1).max(axis=1) / 127)
        pads = [1] * (2 * (len(shape) - 2))
        return self.node("Conv", [data, name, bias], output, pads=pads)

    def model(self, inputs: dict, outputs: dict, opset: int = 20) -> bytes:
        def values(items):
            return [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in items.items()]

        graph = onnx.helper.make_graph(self.nodes, "net", values(inputs), values(outputs), self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
        return model.SerializeToString()


def image_net(*, int8: tuple[bool, bool, bool] = (True, True, True)) -> bytes:
    """Raw uint8 frame -> two convolutions -> fully connected, each in INT8 or not."""
    net = Net()
    net.node("Cast", ["x"], "float", to=1)
    net.node("Transpose", ["float"], "planar", perm=[0, 3, 1, 2])
    net.node("Mul", ["planar", net.constant("k", np.float32(1 / 255))], "scaled")
    net.node("Relu", [net.conv("scaled", (16, 3, 3, 3), "conv0", int8=int8[0])], "relu0")
    net.node("Relu", [net.conv("relu0", (16, 16, 3, 3), "conv1", int8=int8[1])], "relu1")
    net.node("Flatten", [net.node("GlobalAveragePool", ["relu1"], "mean")], "flat")
    weights = net.constant("fc_w", net.random.standard_normal((16, 10)).astype(np.float32))
    data = "flat"
    if int8[2]:
        data, weights = net.quantize("flat", 0.02), net.quantize("fc_w", 0.02)
    net.node("MatMul", [data, weights], "y")
    return net.model({"x": (onnx.TensorProto.UINT8, [1, 32, 32, 3])}, {"y": (onnx.TensorProto.FLOAT, [1, 10])})


def builders() -> list[int]:
    """Processes of this test that build."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"build_child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found
