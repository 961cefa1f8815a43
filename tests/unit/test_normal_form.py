"""The normal form computes what the network did, is its own normal form, and has everything where INT8 looks for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.judge import judge
from mmedge.export.onnx.graphs import all_nodes, defined, subgraphs
from mmedge.export.onnx.normal_form import normal_form
from mmedge.export.onnx.parity import check_rewrite
from tests.networks import BOOL, FLOAT, INT64, info, network
from tests.onnx_graphs import networks

NODE = helper.make_node


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def is_normal(model: onnx.ModelProto) -> None:
    names = [node.name for node in all_nodes(model.graph)]
    assert all(names)
    assert len(names) == len(set(names)), "two nodes have one name"
    tensors = defined(model.graph)
    for node in all_nodes(model.graph):
        for inner in subgraphs(node):
            tensors += defined(inner)
    assert len(tensors) == len(set(tensors)), "two tensors have one name"
    assert not model.functions
    assert not {"Constant", "Dropout"} & set(operators(model))
    weights = {tensor.name for tensor in model.graph.initializer}
    assert not weights & {value.name for value in model.graph.input}
    for node in model.graph.node:
        if not next(subgraphs(node), None) and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            outputs = {value.name for value in model.graph.output}
            assert not {name for name in node.input if name} <= weights or outputs & set(node.output), node


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks())
def test_a_normal_form_computes_the_same_and_is_its_own(model):
    once = normal_form(model)
    check_rewrite(model, once, "normal form")
    is_normal(once)
    assert normal_form(once) == once
    assert [v.name for v in once.graph.output] == [v.name for v in model.graph.output]


def test_a_view_with_a_batch_of_one_is_a_reshape_by_constants():
    nodes = [
        NODE("Shape", ["x"], ["s"]),
        NODE("Gather", ["s", "zero"], ["batch"]),
        NODE("Unsqueeze", ["batch", "axis"], ["first"]),
        NODE("Concat", ["first", "rest"], ["shape"], axis=0),
        NODE("Reshape", ["x", "shape"], ["flat"]),
        NODE("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((3, 8), np.float32))),
        NODE("Transpose", ["w"], ["turned"]),
        NODE("MatMul", ["flat", "turned"], ["y"]),
    ]
    sizes = {"zero": np.int64(0), "axis": np.int64([0]), "rest": np.int64([-1])}
    made = normal_form(network(nodes, {"x": [1, 2, 4]}, {"y": None}, **sizes))
    assert operators(made) == ["Reshape", "MatMul"]
    assert [node.name for node in made.graph.node] == ["Reshape/flat", "MatMul/y"]
    assert {tensor.name: list(tensor.dims) for tensor in made.graph.initializer} == {"shape": [2], "turned": [8, 3]}
    # An open batch stays open.
    opened = normal_form(network(nodes, {"x": ["n", 2, 4]}, {"y": None}, **sizes))
    assert {"Shape", "Reshape"} <= set(operators(opened))


def test_types_are_known_of_half_precision_too():
    nodes = [
        NODE("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        NODE("MatMul", ["h", "w"], ["m"]),
        NODE("Cast", ["m"], ["y"], to=FLOAT),
    ]
    made = normal_form(network(nodes, {"x": [2, 4]}, {"y": None}, w=np.ones((4, 3), np.float16)))
    types = {v.name: v.type.tensor_type for v in made.graph.value_info}
    assert {name: kind.elem_type for name, kind in types.items()} == {"h": 10, "m": 10}
    assert [d.dim_value for d in types["m"].shape.dim] == [2, 3]


def test_quantised_weights_stay_as_they_are_stored():
    nodes = [
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["w"]),
        NODE("Transpose", ["w"], ["turned"]),
        NODE("MatMul", ["x", "turned"], ["y"]),
    ]
    weights = {"q": np.ones((3, 4), np.int8), "scale": np.float32(0.1), "zero": np.int8(0)}
    made = normal_form(network(nodes, {"x": [2, 4]}, {"y": None}, **weights))
    assert operators(made) == ["DequantizeLinear", "Transpose", "MatMul"]
    assert made.graph.initializer[0].data_type == TensorProto.INT8


def test_a_scalar_that_is_expanded_over_a_picture_stays_small():
    nodes = [NODE("Expand", ["one", "shape"], ["big"]), NODE("Add", ["x", "big"], ["y"])]
    model = network(nodes, {"x": [1, 64, 64, 64]}, {"y": None}, one=np.float32(1), shape=np.int64([1, 64, 64, 64]))
    assert operators(normal_form(model)) == ["Expand", "Add"]


def test_random_numbers_are_drawn_at_each_run():
    nodes = [NODE("RandomNormalLike", ["c"], ["r"]), NODE("Add", ["x", "r"], ["y"])]
    made = normal_form(network(nodes, {"x": [3]}, {"y": None}, c=np.zeros(3, np.float32)))
    assert operators(made) == ["RandomNormalLike", "Add"]


def test_weights_that_old_files_list_as_inputs_are_weights():
    model = network(
        [NODE("MatMul", ["x", "w"], ["y"])], {"x": [2, 4], "w": [4, 3]}, {"y": None}, w=np.ones((4, 3), "f")
    )
    assert [value.name for value in normal_form(model).graph.input] == ["x"]


def test_sizes_of_what_depends_on_data_decide_nothing():
    """Size(NonZero(x)) is no size of a static shape, though Size is what asks."""
    branches = [helper.make_graph([NODE(op, ["x"], ["b"])], op, [], [info("b", None)]) for op in ("Relu", "Neg")]
    nodes = [
        NODE("NonZero", ["x"], ["where"]),
        NODE("Size", ["where"], ["count"]),
        NODE("Greater", ["count", "zero"], ["yes"]),
        NODE("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    made = normal_form(network(nodes, {"x": [3]}, {"y": None}, zero=np.int64(0)))
    assert "If" in operators(made)


def test_a_wrong_word_about_a_tensor_inside_is_not_believed():
    nodes = [NODE("Relu", ["x"], ["r"]), NODE("Shape", ["r"], ["s"]), NODE("Reshape", ["w", "s"], ["y"])]
    model = network(nodes, {"x": [2, 3]}, {"y": (FLOAT, None)}, w=np.arange(6, dtype=np.float32))
    model.graph.value_info.append(info("r", [6, 1]))
    x = np.zeros((2, 3), np.float32)
    assert judge(normal_form(model))({"x": x})["y"].shape == (2, 3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["cond", "scan"])
def test_what_torch_writes_with_subgraphs_is_kept(kind):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            if kind == "cond":
                return torch.cond(x.sum() > 0, lambda x: self.one(x).relu(), lambda x: self.other(x) - 1, (x,))
            from torch._higher_order_ops.scan import scan

            return scan(lambda carry, row: (carry + row, carry * 1.0), x[0], x)[1]

    model = torch.onnx.export(Net().eval(), (torch.ones(2, 4),), dynamo=True, verbose=False, opset_version=20)
    made = normal_form(model.model_proto)
    is_normal(made)


def test_loops_keep_what_they_take_from_around():
    body = helper.make_graph(
        [NODE("Identity", ["c"], ["d"]), NODE("MatMul", ["v", "w"], ["t"]), NODE("Add", ["t", "x"], ["u"])],
        "body",
        [info("i", [], INT64), info("c", [], BOOL), info("v", None)],
        [info("d", [], BOOL), info("u", None)],
    )
    nodes = [
        NODE("Transpose", ["k"], ["w"]),
        NODE("Identity", ["x"], ["v0"]),
        NODE("Loop", ["n", "", "v0"], ["y"], body=body),
        NODE("Relu", ["y"], ["t"]),
    ]
    rng = np.random.default_rng(0)
    model = network(nodes, {"x": [4, 4]}, {"t": None}, k=rng.normal(size=(4, 4)).astype("f"), n=np.int64(3))
    made = normal_form(model)
    is_normal(made)
    assert operators(made) == ["Loop", "Relu"]


def called(*functions: onnx.FunctionProto, **attributes: float) -> onnx.ModelProto:
    return network(
        [NODE("f", ["x"], ["y"], domain="own", **attributes)], {"x": [2, 4]}, {"y": None}, functions=list(functions)
    )


def leaky(default: float | None) -> onnx.FunctionProto:
    node = NODE("LeakyRelu", ["p"], ["q"])
    alpha = node.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    assert alpha.ref_attr_name
    defaults = [] if default is None else [helper.make_attribute("slope", default)]
    names = ["slope"] if default is None else []
    return helper.make_function("own", "f", ["p"], ["q"], [node], [helper.make_opsetid("", 18)], names, defaults)


@pytest.mark.parametrize(("default", "given"), [(None, 0.3), (0.2, None), (0.2, 0.3)])
def test_functions_take_attributes_as_given_or_by_default(default, given):
    made = normal_form(called(leaky(default), **({} if given is None else {"slope": given})))
    assert operators(made) == ["LeakyRelu"]
    assert made.graph.node[0].attribute[0].f == pytest.approx(given or default)


def test_what_is_drawn_in_training_stays():
    nodes = [NODE("Dropout", ["x", "ratio", "yes"], ["y"], seed=1)]
    made = normal_form(network(nodes, {"x": [64]}, {"y": None}, ratio=np.float32(0.5), yes=np.bool_(True)))
    assert operators(made) == ["Dropout"]


def odd_networks() -> dict[str, tuple[onnx.ModelProto, list[str]]]:
    """Return networks as exporters may write them, and the operators of their normal forms."""
    values, places = numpy_helper.from_array(np.float32([1, 2])), numpy_helper.from_array(np.int64([0, 3]))
    sparse = helper.make_sparse_tensor(values, places, [2, 2])
    taken = helper.make_graph([NODE("Identity", ["x"], ["o"])], "t", [], [info("o", None)])
    other = helper.make_graph([NODE("Reshape", ["x", "bad"], ["o"])], "e", [], [info("o", None)])
    body = helper.make_graph(
        [NODE("Add", ["s", "e"], ["s2"]), NODE("Mul", ["s2", "k"], ["o"])],
        "b",
        [info("s", [2]), info("e", [2])],
        [info("s2", [2]), info("o", [2])],
    )
    relu = NODE("Relu", ["x"], ["y"])
    bfloat = network([NODE("Cast", ["w"], ["f"], to=FLOAT), NODE("Mul", ["x", "f"], ["y"])], {"x": [2]}, {"y": None})
    bfloat.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.0, 2.0]))
    one = {"w": np.ones((1, 1, 1, 1), np.float32)}
    return {
        "a constant is an output": (
            network([NODE("Constant", [], ["c"], value_float=1.0), relu], {"x": [2]}, {"y": None, "c": (FLOAT, [])}),
            ["Constant", "Relu"],
        ),
        "an input is an output": (network([relu], {"x": [2]}, {"y": None, "x": [2]}), ["Relu"]),
        "a weight is an output": (
            network([relu], {"x": [2]}, {"y": None, "w": [2]}, w=np.ones(2, np.float32)),
            ["Relu"],
        ),
        "one input is copied twice": (
            network([NODE("Identity", ["x"], [y]) for y in "yz"], {"x": [2]}, {"y": None, "z": None}),
            ["Identity", "Identity"],
        ),
        "a scan reads a copied constant": (
            network(
                [
                    NODE("Constant", [], ["k0"], value_float=2.0),
                    NODE("Identity", ["k0"], ["k"]),
                    NODE("Scan", ["i", "x"], ["f", "y"], num_scan_inputs=1, body=body),
                ],
                {"i": [2], "x": [3, 2]},
                {"f": None, "y": None},
            ),
            ["Scan"],
        ),
        "a sparse weight": (
            network(
                [NODE("Constant", [], ["c"], sparse_value=sparse), NODE("MatMul", ["x", "c"], ["y"])],
                {"x": [2, 2]},
                {"y": None},
            ),
            ["MatMul"],
        ),
        "weights of bfloat16": (bfloat, ["Mul"]),
        "nodes without names": (
            network(
                [NODE("Conv", ["x", "w"], ["a"]), NODE("Conv", ["a", "w"], ["y"])],
                {"x": [1, 1, 5, 5]},
                {"y": None},
                **one,
            ),
            ["Conv", "Conv"],
        ),
        "an output that is not wanted": (
            network(
                [NODE("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=2)],
                {"x": [3, 1, 2]},
                {"y": None},
                w=np.ones((1, 8, 2), np.float32),
                r=np.ones((1, 8, 2), np.float32),
            ),
            ["LSTM"],
        ),
        "backwards": (
            network([NODE("Relu", ["t"], ["y"]), NODE("Neg", ["x"], ["t"])], {"x": [2]}, {"y": None}),
            ["Neg", "Relu"],
        ),
        "a branch that would not run": (
            network(
                [NODE("If", ["c"], ["y"], then_branch=taken, else_branch=other)],
                {"x": [2]},
                {"y": None},
                c=np.bool_(True),
                bad=np.int64([7, 9]),
            ),
            ["Identity"],
        ),
        "double": (
            network(
                [NODE("MatMul", ["x", "w"], ["y"])],
                {"x": (TensorProto.DOUBLE, [2, 2])},
                {"y": (TensorProto.DOUBLE, None)},
                w=np.ones((2, 2)),
            ),
            ["MatMul"],
        ),
    }


@pytest.mark.parametrize("name", odd_networks())
def test_what_exporters_write_has_a_normal_form(name):
    model, want = odd_networks()[name]
    made = normal_form(model)
    assert operators(made) == want
    assert normal_form(made) == made
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)
