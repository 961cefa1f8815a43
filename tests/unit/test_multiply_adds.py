"""Multiply-adds of networks whose number is known by calculation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.onnx.multiply_adds import multiply_adds


def network(op: str, shape: tuple[object, ...], weights: tuple[int, ...], **attributes: object) -> onnx.ModelProto:
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    w = numpy_helper.from_array(np.zeros(weights, np.float32), "w")
    graph = helper.make_graph([node], "g", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (network("Conv", (1, 3, 8, 8), (4, 3, 3, 3), pads=[1] * 4), 4 * 8 * 8 * 3 * 9),
        (network("Conv", ("batch", 8, 6, 6), (8, 1, 3, 3), group=8), 8 * 4 * 4 * 9),
        (network("ConvTranspose", (1, 4, 5, 5), (4, 2, 2, 2), strides=[2, 2]), 4 * 5 * 5 * 2 * 4),
        (network("MatMul", (1, 7, 5), (5, 3)), 7 * 3 * 5),
        (network("Gemm", (5, 2), (5, 3), transA=1), 2 * 3 * 5),
        (network("Add", (1, 4), (1, 4)), 0),
    ],
)
def test_by_calculation(model: onnx.ModelProto, wanted: int) -> None:
    before = model.SerializeToString()
    assert multiply_adds(model) == wanted
    assert model.SerializeToString() == before


def test_what_cannot_be_counted_is_not_known() -> None:
    model = network("MatMul", (1, 7, 5), (5, 3))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert multiply_adds(model) is None
    model = network("Custom", (1, 4), (1, 4))
    model.graph.node[0].domain = "of.somebody"
    assert multiply_adds(model) is None
    assert multiply_adds(network("Einsum", (1, 6), (6, 4), equation="ab,bc->ac")) is None
