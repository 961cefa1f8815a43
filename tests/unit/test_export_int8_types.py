"""A layer that is said to be int8 takes int8, also behind operators that shape inference does not know."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.export import quantize
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.int8.prepare import note_types
from mmedge.export.int8.qdq import insert_checked
from mmedge.export.judge import judge
from mmedge.export.report import int8_nodes
from tests.unit.test_export_kinds import NODE, feeds, models_of, w


def behind_another_domain() -> onnx.ModelProto:
    """Two layers with an operator of ONNX Runtime's own domain between them."""
    nodes = [
        NODE("MatMul", ["x", "w"], ["a"], name="first"),
        NODE("FastGelu", ["a"], ["b"], name="gelu", domain="com.microsoft"),
        NODE("Neg", ["b"], ["c"], name="neg"),
        NODE("MatMul", ["c", "v"], ["y"], name="second"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 5])
    weights = [numpy_helper.from_array(w(6, 6), "w"), numpy_helper.from_array(w(6, 5, seed=1), "v")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=opsets, ir_version=9)


def test_layers_behind_another_domain_become_int8(tmp_path):
    model = behind_another_domain()
    int8 = quantize(models_of(tmp_path, model), None, feeds(model))
    assert int8_nodes(int8.models["s"]) == (2, 2)
    assert int8.quantization["s"].reasons == {}


def test_a_layer_that_the_quantizer_leaves_out_is_named():
    model, ranges = behind_another_domain(), {"x": 3.0, "c": 3.0}
    int8, refused = insert_checked(model, ["first", "second"], ranges, "net")
    assert refused == {"second": "ONNX Runtime's quantiser leaves it out"}
    assert int8_nodes(int8) == (1, 2)
    note_types(model, ranges)
    int8, refused = insert_checked(model, ["first", "second"], ranges, "net")
    assert refused == {}
    assert np.isin(["x", "c"], [n.input[0] for n in int8.graph.node if n.op_type == "QuantizeLinear"]).all()


def test_what_fails_and_what_is_left_out_are_both_named():
    model = behind_another_domain()
    model.graph.node[0].CopyFrom(NODE("Gemm", ["x", "w", "rows"], ["a"], name="first"))
    model.graph.initializer.append(numpy_helper.from_array(w(4, 6), "rows"))
    int8, refused = insert_checked(model, ["first", "second"], {"x": 3.0, "c": 3.0}, "net")
    assert refused == {
        "first": "ONNX Runtime's quantiser fails on it",
        "second": "ONNX Runtime's quantiser leaves it out",
    }
    assert int8_nodes(int8) == (0, 2)


def test_weights_that_a_branch_reads_stay_in_the_form_of_cpus():
    def branch(name: str, weight: str) -> onnx.GraphProto:
        y = helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, [4, 6])
        return helper.make_graph([NODE("Add", ["x", weight], [f"{name}/y"], name=f"{name}/add")], name, [], [y])

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 6])
    nodes = [
        NODE("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
        NODE("Greater", ["total", "zero"], ["more"], name="more"),
        NODE("If", ["more"], ["z"], name="if", then_branch=branch("a", "one"), else_branch=branch("b", "two")),
        NODE("MatMul", ["z", "w"], ["y"], name="layer"),
    ]
    values = {"zero": np.float32(0), "one": np.float32(1), "two": np.float32(2), "w": w(6, 6)}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    int8, refused = insert_checked(model, ["layer"], {"z": 4.0}, "net")
    assert refused == {}
    with judge(int8) as before, judge(to_cpu_form(int8)) as after:
        for sign in (1, -1):
            feed = {"x": np.full((4, 6), sign, np.float32)}
            np.testing.assert_allclose(after(feed)["y"], before(feed)["y"], atol=0.1)
