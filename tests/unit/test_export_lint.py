"""Each lint rule finds its fault, all at once, and says nothing about sound graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from mmedge.errors import ConfigError
from mmedge.export.onnx.lint import inspect_onnx, lint, source_lines


def make(nodes, inputs=None, outputs=None, constants=(), opset=20) -> onnx.ModelProto:
    inputs = inputs or {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}
    outputs = outputs or {"y": (TensorProto.FLOAT, [1, 3, 8, 8])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *spec) for n, spec in inputs.items()],
        [helper.make_tensor_value_info(n, *spec) for n, spec in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op: str, inputs: list[str], outputs: list[str], **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"net/{op}", **attributes)


def rules(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(f.rule, f.node) for f in lint(model)]


RELU = node("Relu", ["x"], ["y"])
SIZES = ("sizes", np.array([1, 3, 8, 8], np.int64))
U8 = {"x": (TensorProto.UINT8, [1, 3, 8, 8])}
CASES = {
    "opset": (make([RELU], opset=23), [("opset", "graph")]),
    "int16 input": (make([node("Cast", ["x"], ["y"], to=1)], {"x": (TensorProto.INT16, [1, 8])}), [("io-type", "x")]),
    "float64 output": (
        make([node("Cast", ["x"], ["y"], to=11)], outputs={"y": (TensorProto.DOUBLE, [1, 3, 8, 8])}),
        [("io-type", "y")],
    ),
    "uint8 into Transpose": (
        make([node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Cast", ["t"], ["y"], to=1)], U8),
        [("uint8-cast", "net/Transpose")],
    ),
    "antialias": (
        make([node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", antialias=1)], constants=[SIZES]),
        [("resize-antialias", "net/Resize")],
    ),
    "dft": (make([node("DFT", ["x"], ["y"])]), [("operator", "net/DFT")]),
    "mel matrix": (make([node("MelWeightMatrix", ["x"] * 5, ["y"])]), [("operator", "net/MelWeightMatrix")]),
    "sequence": (make([node("SequenceConstruct", ["x"], ["y"])]), [("operator", "net/SequenceConstruct")]),
    "qlinear": (make([node("QLinearConv", ["x"] * 8, ["y"])]), [("operator", "net/QLinearConv")]),
    "other domain": (
        make([node("FusedConv", ["x"], ["y"], domain="com.microsoft")]),
        [("operator", "net/FusedConv")],
    ),
    "zero point": (
        make([node("QuantizeLinear", ["x", "s", "z"], ["y"])], constants=[("s", np.float32(1)), ("z", np.int8(3))]),
        [("qdq", "net/QuantizeLinear")],
    ),
    "uint8 quantisation": (
        make([node("QuantizeLinear", ["x", "s", "z"], ["y"])], constants=[("s", np.float32(1)), ("z", np.uint8(0))]),
        [("qdq", "net/QuantizeLinear")],
    ),
    "no zero point": (
        make([node("QuantizeLinear", ["x", "s"], ["y"])], constants=[("s", np.float32(1))]),
        [("qdq", "net/QuantizeLinear")],
    ),
    "int32 bias": (
        make(
            [node("DequantizeLinear", ["b", "s"], ["y"])],
            constants=[("b", np.ones(3, np.int32)), ("s", np.float32(1))],
        ),
        [("qdq", "net/DequantizeLinear")],
    ),
    "unsorted": (
        make([node("Relu", ["t"], ["y"]), node("Abs", ["x"], ["t"])]),
        [("unsorted", "net/Relu")],
    ),
    "dynamic": (make([RELU], {"x": (TensorProto.FLOAT, ["batch", 3, 8, 8])}), [("dynamic", "x")]),
    "clean": (make([RELU]), []),
    "clean uint8": (make([node("Cast", ["x"], ["y"], to=1)], U8), []),
}


@pytest.mark.parametrize("name", CASES)
def test_each_rule_names_its_node(name):
    model, want = CASES[name]
    assert rules(model) == want


def test_everything_is_listed_at_once_errors_first_with_source_lines():
    model = make(
        [
            node("If", ["c"], ["i"]),
            node("DFT", ["x"], ["d"]),
            node("Resize", ["d", "", "", "sizes"], ["y"], mode="linear", antialias=1),
        ],
        constants=[SIZES, ("c", np.bool_(True))],
    )
    findings = lint(model, {"net/Resize": "my/model.py:41 (encoder.pre)"})
    assert [f.rule for f in findings] == ["operator", "resize-antialias", "control-flow"]
    assert [f.level for f in findings] == ["error", "error", "warning"]
    assert "my/model.py:41 (encoder.pre)" in str(findings[1])


def test_what_onnx_runtime_quantises_by_default_is_refused(tmp_path):
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    conv = node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    model = make(
        [conv],
        outputs={"y": (TensorProto.FLOAT, [1, 4, 8, 8])},
        constants=[("w", weight), ("b", np.ones(4, np.float32))],
    )
    onnx.save(model, tmp_path / "a.onnx")

    class Reader:
        def __init__(self):
            self.left = [{"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}]

        def get_next(self):
            return self.left.pop() if self.left else None

    quantize_static(
        str(tmp_path / "a.onnx"),
        str(tmp_path / "q.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
    )
    messages = {f.message for f in lint(onnx.load(tmp_path / "q.onnx")) if f.level == "error"}
    assert "an int32 bias is dequantised" in messages
    assert "the zero point is not zero" in messages


def test_inspect_gives_signature_and_findings(tmp_path):
    onnx.save(CASES["antialias"][0], tmp_path / "a.onnx")
    document = inspect_onnx(tmp_path / "a.onnx")
    assert document["opset"] == 20
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 8, 8]}]
    assert [f["rule"] for f in document["findings"]] == ["resize-antialias"]
    assert source_lines(tmp_path / "a.onnx") == {}


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x00\x01\x02"])
def test_a_file_that_is_not_onnx_is_a_configuration_error(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match="not an ONNX file"):
        inspect_onnx(tmp_path / "bad.onnx")
    with pytest.raises(ConfigError, match="cannot read"):
        inspect_onnx(tmp_path / "missing.onnx")
