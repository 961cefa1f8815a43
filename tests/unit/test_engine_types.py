"""ONNX Runtime's engine takes every type that ONNX Runtime and numpy share, texts among them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import mmedge
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import EngineError
from tests.networks import FLOAT, NODE, network

NUMBERS = [
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bool",
]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_go_in_and_come_out(name: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    model = network([NODE("Identity", ["x"], ["y"])], {"x": (kind, [2, 3])}, {"y": (kind, [2, 3])})
    top = True if name == "bool" else np.iinfo(name).max if name[0] in "iu" else np.finfo(name).max
    given = np.array([[0, 1, 2], [3, 4, 5]]).astype(name)
    given[1, 2] = top
    with mmedge.load_engine(model.SerializeToString()) as engine:
        assert engine.inputs["x"].dtype == name
        np.testing.assert_array_equal(engine({"x": given})["y"], given)
        with pytest.raises(EngineError, match="engines do not cast"):
            engine({"x": np.zeros((2, 3), np.complex64)})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [[], [0], [1, 0, 2]])
def test_scalars_and_empty_arrays_of_every_type(name: str, shape: list[int]) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    model = network([NODE("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})
    with OnnxRuntimeEngine(model.SerializeToString()) as engine:
        given = np.ones(shape, name)
        np.testing.assert_array_equal(engine({"x": given})["y"], given)


def test_texts() -> None:
    """As classifiers and tokenizers of other tools have them: texts in, numbers beside them, texts out."""
    nodes = [NODE("StringConcat", ["a", "b"], ["y"]), NODE("Relu", ["n"], ["m"])]
    text = (TensorProto.STRING, ["batch", 2])
    model = network(nodes, {"a": text, "b": text, "n": (FLOAT, [1])}, {"y": text, "m": (FLOAT, [1])})
    model.opset_import[0].version = 20
    with OnnxRuntimeEngine(model.SerializeToString()) as engine:
        assert engine.inputs["a"].tolist() == [["", ""]]
        got = engine({"a": np.array([["u", "wö"]]), "b": np.array([["v", "x"]], object), "n": np.float32([-1])})
        assert got["y"].tolist() == [["uv", "wöx"]]
        assert got["m"] == 0
        engine.inputs["a"][0, 1] = "z"
        engine.run()
        assert engine.outputs["y"].tolist() == [["uv", "zx"]]
        with pytest.raises(EngineError):
            engine({"a": np.zeros((1, 2)), "b": np.zeros((1, 2)), "n": np.float32([1])})


@pytest.mark.parametrize("name", ["BFLOAT16", "FLOAT8E4M3FN"])
def test_a_type_that_numpy_does_not_have_is_refused_by_name(name: str) -> None:
    kind = getattr(TensorProto, name)
    model = network([NODE("Cast", ["x"], ["y"], to=kind)], {"x": (FLOAT, [1])}, {"y": (kind, [1])})
    model.opset_import[0].version = 19
    model.ir_version = 9
    with pytest.raises(EngineError, match="'y' is a tensor") as caught:
        OnnxRuntimeEngine(model.SerializeToString())
    assert "cast it inside" in str(caught.value.fix)
