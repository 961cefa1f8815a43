"""Open dimensions are those of what is fed or declared; a guess is refused. Branches inside are fitted as well."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import ConfigError
from mmedge.export.brought.brought import bring
from tests.bringing import STREAM, brought, counter, recipe
from tests.networks import FLOAT, FLOAT16, NODE, network


def test_an_open_dimension_that_nothing_gives_is_named_with_the_line_to_write(tmp_path):
    made = recipe(tmp_path, STREAM.replace("outputs = { y = [1, 1], stateN = [1, 1] }\n", ""), net=counter())
    with pytest.raises(ConfigError, match=r"input 'state' is \[1, \?\], and nothing gives") as caught:
        bring(made)
    assert caught.value.where == "stages.net.inputs.state"
    assert caught.value.fix == "declare what is fed back: outputs = { stateN = [1, <size>] }"


@pytest.mark.parametrize(("name", "size"), [("time", 3), ("batch", 1), ("other", None)])
def test_a_constant_has_the_size_of_what_has_its_name(tmp_path, name, size):
    nodes = [NODE("Shape", ["k"], ["s"]), NODE("Cast", ["s"], ["f"], to=FLOAT), NODE("Add", ["x", "f"], ["y"])]
    model = network(nodes, {"x": (FLOAT, ["batch", "time"]), "k": (FLOAT, [name])}, {"y": (FLOAT, None)})
    made = recipe(tmp_path, '[stages.net]\nonnx = "net.onnx"\ninputs = { x = "imu", k = "@const:7" }', net=model)
    if size is None:
        with pytest.raises(ConfigError, match=r"input 'k' is \[other\]") as caught:
            bring(made)
        assert "shape = [<other>]" in caught.value.fix
        return
    engine = OnnxRuntimeEngine(bring(made)[1]["net"].SerializeToString())
    feeds = {"x": np.zeros((1, 3), np.float32), "k": np.zeros(size, np.float32)}
    assert engine(feeds)["y"].tolist() == [[size] * 3]


def test_a_nested_branch_that_reads_what_is_around_it_is_fitted_too(tmp_path):
    """Both branches, and the one inside, read the input that gets nodes in front of it."""

    def branch(*nodes):
        ends = [helper.make_tensor_value_info("b", FLOAT16, None)]
        return helper.make_graph(list(nodes), "b", [], ends)

    inner = NODE(
        "If",
        ["yes"],
        ["b"],
        then_branch=branch(NODE("Relu", ["x"], ["b"])),
        else_branch=branch(NODE("Neg", ["x"], ["b"])),
    )
    nodes = [
        NODE("ReduceMax", ["x"], ["most"], keepdims=0),
        NODE("Greater", ["most", "zero"], ["yes"]),
        NODE("If", ["yes"], ["y"], then_branch=branch(inner), else_branch=branch(NODE("Abs", ["x"], ["b"]))),
    ]
    model = network(nodes, {"x": (FLOAT16, [1, 8, 6, 3])}, {"y": (FLOAT16, None)}, zero=np.float16(0))
    _, engine = brought(tmp_path, model, '{ x = "image" }')
    picture = np.linspace(-1, 1, 144, dtype=np.float32).reshape(1, 3, 8, 6)
    want = np.maximum(picture, 0).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(engine({"x": picture})["y"], want, atol=1e-3)
    np.testing.assert_allclose(engine({"x": -np.abs(picture)})["y"], np.abs(picture).transpose(0, 2, 3, 1), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [
        *((shape, True) for shape in ([3], ["n", "k"], ["n", 1, "k"], ["n", "k", 1, 1])),
        *((shape, False) for shape in (["n", "h", "w"], [1, "h", "w"], ["n", "c", "h", "w"])),
    ],
)
def test_two_open_dimensions_are_no_guess(tmp_path, shape, fitted):
    model = network([NODE("Neg", ["x"], ["y"])], {"x": (FLOAT, shape)}, {"y": (FLOAT, None)})
    if fitted:
        assert int(np.prod(brought(tmp_path, model, '{ x = "imu" }')[0]["y"])) == 3
        return
    with pytest.raises(ConfigError, match=r"the network takes .*'imu' gives \[1, 3\]"):
        brought(tmp_path, model, '{ x = "imu" }')


def test_texts_are_refused_by_name(tmp_path):
    model = network([NODE("StringConcat", ["x", "x"], ["y"])], {"x": (8, [1, 3])}, {"y": (8, [1, 3])}, opset=20)
    with pytest.raises(ConfigError, match="takes texts") as caught:
        brought(tmp_path, model, '{ x = "imu" }')
    assert caught.value.where == "stages.net.inputs.x"
