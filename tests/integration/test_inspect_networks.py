"""What `mmedge inspect` says of ONNX files: quantisation, domains, functions, weights outside, findings in groups."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.cli import run
from mmedge.cli.inspect_network import grouped
from tests.networks import FLOAT, NODE, network

pytestmark = pytest.mark.parallel


@pytest.fixture
def inspect(tmp_path, capfd):
    def call(model: onnx.ModelProto, **options) -> tuple[str, dict]:
        onnx.save(model, tmp_path / "net.onnx", **options)
        assert run(["inspect", str(tmp_path / "net.onnx")]) == 0
        text = capfd.readouterr().out
        assert run(["inspect", str(tmp_path / "net.onnx"), "--json"]) == 0
        return text, json.loads(capfd.readouterr().out)

    return call


def quantised(pairs: int, zero: int) -> onnx.ModelProto:
    """A chain of Q/DQ pairs, and a weight that is stored as int8."""
    constants = {"s": np.float32(0.1), "z": np.int8(zero), "w": np.ones((4, 4), np.int8)}
    nodes, last = [], "x"
    for k in range(pairs):
        nodes.append(NODE("QuantizeLinear", [last, "s", "z"], [f"q{k}"], name=f"quantise{k}"))
        nodes.append(NODE("DequantizeLinear", [f"q{k}", "s", "z"], [f"d{k}"], name=f"dequantise{k}"))
        nodes.append(NODE("Relu", [f"d{k}"], [f"r{k}"]))
        last = f"r{k}"
    nodes += [NODE("DequantizeLinear", ["w", "s"], ["dw"]), NODE("MatMul", [last, "dw"], ["y"])]
    return network(nodes, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}, **constants)


def test_findings_that_say_the_same_are_one_line(inspect):
    text, document = inspect(quantised(39, 3))
    assert len(document["findings"]) == 78, "JSON keeps all of them"
    lines = [line for line in text.splitlines() if "zero point" in line]
    assert len(lines) == 1
    assert "78 nodes: the zero point is not zero (quantise0, " in " ".join(text.split())
    assert "and 75 more)" in " ".join(text.split())


def test_what_is_quantised_already_says_so(inspect):
    text, document = inspect(quantised(39, 0))
    assert "already INT8: 39 Q/DQ pairs, 1 tensors stored so" in text
    assert document["quantization"]["pairs"] == 39
    assert document["quantization"]["types"] == {"int8": 40}
    text, document = inspect(network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}))
    assert document["quantization"] is None
    assert "already INT8" not in text


def dynamic() -> onnx.ModelProto:
    nodes = [
        NODE("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        NODE("MatMulInteger", ["q", "w", "z"], ["i"]),
        NODE("Cast", ["i"], ["f"], to=FLOAT),
        NODE("Mul", ["f", "s"], ["y"]),
    ]
    return network(nodes, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}, w=np.ones((4, 4), np.int8))


def test_other_forms_of_quantisation_are_named(inspect):
    text, document = inspect(dynamic())
    assert document["quantization"]["format"] == "dynamic"
    assert "already INT8 in the dynamic format" in text


def test_domains_functions_and_weights_beside_the_file(inspect):
    twice = helper.make_function(
        "my.own", "Twice", ["a"], ["b"], [NODE("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    model = network(
        [NODE("Twice", ["x"], ["t"], domain="my.own"), NODE("MatMul", ["t", "w"], ["y"])],
        {"x": (FLOAT, [1, 512])},
        {"y": (FLOAT, [1, 512])},
        w=np.ones((512, 512), np.float32),
    )
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    text, document = inspect(model, save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert document["domains"]["my.own"] == {"version": 1, "nodes": 1}
    assert document["functions"] == ["my.own.Twice"]
    assert document["external_data"] == {"weights.bin": 512 * 512 * 4}
    assert "domain 'my.own' 1: 1 nodes" in text
    assert "weights in 'weights.bin': 1.0 MB" in text


def test_branches_are_looked_into(inspect):
    inner = helper.make_graph(
        [NODE("Relu", ["x"], ["b"])], "branch", [], [helper.make_tensor_value_info("b", FLOAT, [1, 4])]
    )
    node = NODE("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    _, document = inspect(network([node], {"x": (FLOAT, [1, 4]), "c": (TensorProto.BOOL, [])}, {"y": (FLOAT, [1, 4])}))
    assert document["operators"] == {"Relu": 2, "If": 1}


def forked(layers: int) -> onnx.ModelProto:
    nodes, last = [], "x"
    for k in range(layers):
        nodes += [
            NODE("Relu", [last], [f"a{k}"]),
            NODE("Neg", [last], [f"b{k}"]),
            NODE("Add", [f"a{k}", f"b{k}"], [f"s{k}"]),
        ]
        last = f"s{k}"
    nodes += [NODE("Sigmoid", [last], ["t"]), NODE("Neg", ["t"], ["y"])]
    return network(nodes, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])})


def test_a_small_network_is_drawn_in_parts(inspect):
    text, document = inspect(forked(1))
    assert document["parts"] == [
        {"operators": ["Relu"], "from": [], "inputs": ["x"], "outputs": []},
        {"operators": ["Neg"], "from": [], "inputs": ["x"], "outputs": []},
        {"operators": ["Add", "Sigmoid", "Neg"], "from": [0, 1], "inputs": [], "outputs": ["y"]},
    ]
    assert "│ Sigmoid" in text
    _, document = inspect(forked(30))
    assert document["parts"] is None, "too many to follow"


def test_groups_keep_the_order_and_lose_nothing():
    findings = [{"level": "error", "rule": "r", "message": f"m{k % 3}", "node": str(k)} for k in range(10)]
    groups = grouped(findings)
    assert [group[0]["message"] for group in groups] == ["m0", "m1", "m2"]
    assert sorted(f["node"] for group in groups for f in group) == sorted(f["node"] for f in findings)


@pytest.mark.parametrize("arguments", [["-v", "inspect"], ["inspect", "-v"], ["inspect", "--verbose"]])
def test_v_may_stand_anywhere(inspect, tmp_path, capfd, arguments):
    inspect(forked(1))
    assert run([*arguments, str(tmp_path / "net.onnx"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["nodes"] == 5


def test_v_behind_two_dashes_is_a_name(tmp_path, capfd):
    assert run(["inspect", "--", "-v"]) == 4
    assert "-v" in capfd.readouterr().err


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_weights_alone_may_be_quantised(inspect, kind):
    model = network(
        [NODE("DequantizeLinear", ["w", "s"], ["f"]), NODE("MatMul", ["x", "f"], ["y"])],
        {"x": (FLOAT, [1, 4])},
        {"y": (FLOAT, [1, 4])},
        s=np.float32(0.1),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4), kind), "w"))
    text, document = inspect(model)
    assert document["quantization"] == {
        "format": "weights", "pairs": 0, "weights": 1, "types": {np.dtype(kind).name: 1}, "operators": {}
    }  # fmt: skip
    assert f"already {np.dtype(kind).name.upper()} in its weights alone: 1 tensors" in text
