"""Where a TensorRT parser is installed it decides what TensorRT takes; a list of operators where there is none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from mmedge.cli import run
from mmedge.engine import parse_check
from mmedge.engine.parse_check import ask_parser
from mmedge.engine.tensorrt_loader import tensorrt_choice
from mmedge.export import bounded
from mmedge.export.bounded import inspect_network
from mmedge.export.brought.brought import listed_problem, tensorrt_problem
from tests.networks import FLOAT, network

NODE = helper.make_node
parser = pytest.mark.skipif(tensorrt_choice() is None, reason="no TensorRT module is installed")


def newer(opset: int) -> onnx.ModelProto:
    nodes = [NODE("MatMul", ["x", "w"], ["m"], name="mm"), NODE("Relu", ["m"], ["y"], name="r")]
    return network(nodes, {"x": [2, 4]}, {"y": (FLOAT, [2, 3])}, opset=opset, w=np.ones((4, 3), np.float32))


def with_function() -> onnx.ModelProto:
    body = [NODE("Relu", ["p"], ["t"]), NODE("Neg", ["t"], ["q"])]
    function = helper.make_function("own", "f", ["p"], ["q"], body, [helper.make_opsetid("", 18)])
    nodes = [NODE("f", ["x"], ["y"], domain="own", name="call")]
    return network(nodes, {"x": [2, 4]}, {"y": (FLOAT, [2, 4])}, functions=[function])


def refused() -> onnx.ModelProto:
    return network([NODE("Det", ["x"], ["y"], name="det")], {"x": [2, 3, 3]}, {"y": (FLOAT, [2])})


@parser
@pytest.mark.parametrize("model", [newer(20), newer(23), with_function()], ids=["20", "23", "function"])
def test_what_the_parser_takes_is_taken(model):
    answer = ask_parser(model.SerializeToString())
    assert answer is not None
    assert answer.refused == ()
    assert tensorrt_problem(model) is None


@parser
def test_what_the_parser_refuses_is_named_with_its_version():
    problem = tensorrt_problem(refused())
    assert problem is not None
    assert "Det 'det'" in problem
    assert "tensorrt" in problem


@parser
def test_inspect_asks_the_parser(tmp_path):
    def inspected(model: onnx.ModelProto) -> tuple[list[str], str]:
        onnx.save(model, tmp_path / "net.onnx")
        found = inspect_network(tmp_path / "net.onnx")
        return [f"{f['node']}: {f['message']}" for f in found["findings"]], found["parser"]["module"]

    for taken in (newer(20), newer(24), newer(25), with_function()):
        assert inspected(taken) == ([], tensorrt_choice())
    (said,), _ = inspected(refused())
    assert "det: TensorRT has no Det" in said
    nodes = [NODE("Det", ["x"], ["a"]), NODE("Det", ["x"], ["b"]), NODE("Add", ["a", "b"], ["y"])]
    said, _ = inspected(network(nodes, {"x": [2, 3, 3]}, {"y": (FLOAT, [2])}))
    assert said == ["Det -> a: TensorRT has no Det", "Det -> b: TensorRT has no Det"]
    short = network([NODE("Cast", ["x"], ["y"], to=FLOAT)], {"x": (onnx.TensorProto.INT16, [4])}, {"y": (FLOAT, [4])})
    assert inspected(short)[0] == ["x: TensorRT takes no int16 input"]  # what the parser says of it names nothing


def test_inspect_says_that_no_parser_was_asked(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(bounded, "tensorrt_choice", lambda: None)
    onnx.save(newer(23), tmp_path / "net.onnx")
    found = inspect_network(tmp_path / "net.onnx")
    assert found["parser"] is None
    assert [finding["rule"] for finding in found["findings"]] == ["opset"]
    assert run(["inspect", str(tmp_path / "net.onnx")]) == 0
    assert "no TensorRT parser is installed here, so none was asked" in " ".join(capfd.readouterr().out.split())


@parser
def test_a_parser_that_crashes_refuses(monkeypatch):
    """The child is killed as a segmentation fault would: it says which signal."""
    monkeypatch.setattr(parse_check.sys, "executable", "/bin/false")
    answer = ask_parser(newer(20).SerializeToString())
    assert answer is not None
    assert "crashed (code 1)" in answer.refused[0].reason


def test_without_a_parser_a_list_decides_and_says_so(monkeypatch):
    monkeypatch.setattr(parse_check, "tensorrt_choice", lambda: None)
    assert tensorrt_problem(newer(20)) is None
    problem = tensorrt_problem(newer(23))
    assert problem is not None
    assert "by a list of operators: no TensorRT parser is installed here" in problem
    # Local functions are what they are made of.
    assert listed_problem(with_function()) is None
    other = network([NODE("Det", ["p"], ["q"])], {"p": [2, 2]}, {"q": (FLOAT, [])})
    function = helper.make_function("own", "f", ["p"], ["q"], list(other.graph.node), [helper.make_opsetid("", 18)])
    inside = network([NODE("f", ["x"], ["y"], domain="own")], {"x": [2, 2]}, {"y": (FLOAT, [])}, functions=[function])
    assert "TensorRT has no Det" in (listed_problem(inside) or "")
