"""Old opsets compute in opset 13 what they did, operator by operator, also in branches; the rest is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import ConfigError
from mmedge.export.onnx.opset import opset_of, raise_opset
from tests.networks import FLOAT, INT64, info, network

NODE = helper.make_node
PICTURE = [1, 2, 4, 6]


def scales(*values: float) -> dict[str, np.ndarray]:
    return {"s": np.array(values, np.float32)}


# Opset, shape of x, nodes that make y of x, constants.
CASES = {
    **{
        f"Resize 10 {mode} {size}": (10, PICTURE, [NODE("Resize", ["x", "s"], ["y"], mode=mode)], scales(1, 1, *size))
        for mode in ("nearest", "linear")
        for size in ((2, 2), (2.5, 1.5), (3, 1), (0.5, 0.5), (0.6, 0.7))
    },
    **{
        f"Upsample 9 {mode}": (9, PICTURE, [NODE("Upsample", ["x", "s"], ["y"], mode=mode)], scales(1, 1, 2, 3))
        for mode in ("nearest", "linear")
    },
    **{
        f"Upsample {opset} {mode}": (
            opset,
            PICTURE,
            [NODE("Upsample", ["x"], ["y"], mode=mode, scales=[1.0, 1.0, 2.0, 1.7])],
            {},
        )
        for mode in ("nearest", "linear")
        for opset in (7, 8)
    },
    "Upsample 7 without a mode": (7, PICTURE, [NODE("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0])], {}),
    "Slice 9": (9, PICTURE, [NODE("Slice", ["x"], ["y"], starts=[1, -3], ends=[3, 1000], axes=[2, 3])], {}),
    "Slice 9 without axes": (9, [3, 4], [NODE("Slice", ["x"], ["y"], starts=[1, 0], ends=[3, 2])], {}),
    "Pad 10": (10, [2, 3], [NODE("Pad", ["x"], ["y"], pads=[1, 0, 0, 2], value=1.5)], {}),
    "Pad 10 reflect": (10, [2, 3], [NODE("Pad", ["x"], ["y"], pads=[1, 0, 0, 2], mode="reflect")], {}),
    "Clip 10": (10, [2, 3], [NODE("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {}),
    "Clip 7 above": (7, [2, 3], [NODE("Clip", ["x"], ["y"], max=0.5)], {}),
    "Clip 6 open": (8, [2, 3], [NODE("Clip", ["x"], ["y"])], {}),
    "TopK 9": (9, [3, 5], [NODE("TopK", ["x"], ["y", "i"], k=2, axis=1)], {}),
    "TopK 10": (10, [3, 5], [NODE("TopK", ["x", "k"], ["y", "i"], axis=-1)], {"k": np.int64([2])}),
    "Dropout 10": (10, [3, 5], [NODE("Dropout", ["x"], ["y"], ratio=0.5)], {}),
    "Squeeze 12": (12, [1, 3, 1], [NODE("Squeeze", ["x"], ["y"], axes=[0])], {}),
    "Squeeze 12 all": (12, [1, 3, 1], [NODE("Squeeze", ["x"], ["y"])], {}),
    "Unsqueeze 9": (9, [3, 4], [NODE("Unsqueeze", ["x"], ["y"], axes=[0, 3])], {}),
    "Split 12": (12, [5, 4], [NODE("Split", ["x"], ["y", "z"], axis=0, split=[2, 3])], {}),
    "Split 11 in halves": (11, [6, 4], [NODE("Split", ["x"], ["y", "z"])], {}),
    "ReduceSum 12": (12, [2, 3, 4], [NODE("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)], {}),
    "ReduceSum 12 all": (12, [2, 3, 4], [NODE("ReduceSum", ["x"], ["y"])], {}),
    "BatchNormalization 7": (
        7,
        PICTURE,
        [NODE("BatchNormalization", ["x", "a", "b", "c", "d"], ["y"])],
        {name: np.array([0.5, 2], np.float32) for name in "abcd"},
    ),
    "Scatter 10": (
        10,
        [3, 3],
        [NODE("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        {"i": np.int64([[2], [0]]), "u": np.float32([[7], [8]])},
    ),
    **{
        f"{op} {opset} axis {axis} of {len(shape)}": (opset, shape, [NODE(op, ["x"], ["y"], **axes)], {})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (8, 12)
        for shape in ([2, 3], [2, 3, 4], ["n", 3, 2, 2])
        for axis, axes in (("", {}), (0, {"axis": 0}), (1, {"axis": 1}), (len(shape) - 1, {"axis": len(shape) - 1}))
    },
    "Softmax 12 from the end": (12, [2, 3, 4], [NODE("Softmax", ["x"], ["y"], axis=-2)], {}),
    "LSTM 9 with states": (
        9,
        [3, 1, 2],
        [NODE("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "hn", "cn"], hidden_size=2, direction="forward")],
        {
            "w": np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 8, 2),
            "r": np.linspace(1, -1, 16, dtype=np.float32).reshape(1, 8, 2),
            "b": np.ones((1, 16), np.float32),
            "h": np.ones((1, 1, 2), np.float32),
            "c": np.ones((1, 1, 2), np.float32),
        },
    ),
    "MaxPool 8": (8, PICTURE, [NODE("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER")], {}),
    "AveragePool 7": (7, PICTURE, [NODE("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "half precision Clip 10": (
        10,
        [2, 3],
        [
            NODE("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            NODE("Clip", ["h"], ["c"], min=-0.5, max=0.5),
            NODE("Cast", ["c"], ["y"], to=FLOAT),
        ],
        {},
    ),
}


def old(name: str) -> onnx.ModelProto:
    opset, shape, nodes, constants = CASES[name]
    outputs = {out: None for node in nodes[-1:] for out in node.output}
    if nodes[-1].op_type == "TopK":
        outputs["i"] = (INT64, None)
    return network(nodes, {"x": shape}, outputs, opset=opset, **constants)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("name", CASES)
def test_an_old_operator_computes_the_same(name):
    model = old(name)
    made = raise_opset(model)
    assert opset_of(made) == 13
    shape = [3 if dim == "n" else dim for dim in CASES[name][1]]
    x = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    for want, got in zip(run(model, x=x), run(made, x=x), strict=True):
        # ONNX Runtime leaves out pairs of casts, so that half precision is not always half.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3 if "half" in name else 1e-6)


def test_branches_and_bodies_are_rewritten_too():
    def branch(mode: str) -> onnx.GraphProto:
        nodes = [
            NODE("Constant", [], ["s"], value=numpy_helper.from_array(np.float32([1, 1, 1.5, 2]))),
            NODE("Upsample", ["around", "s"], ["up"], mode=mode),
        ]
        return helper.make_graph(nodes, "b", [], [info("up", None)])

    nodes = [
        NODE("Neg", ["x"], ["around"]),
        NODE("ReduceSum", ["x"], ["total"], keepdims=0),
        NODE("Greater", ["total", "zero"], ["yes"]),
        NODE("If", ["yes"], ["y"], then_branch=branch("nearest"), else_branch=branch("linear")),
    ]
    model = network(nodes, {"x": PICTURE}, {"y": None}, opset=9, zero=np.float32(0))
    made = raise_opset(model)
    for x in (np.ones(PICTURE, np.float32), -np.ones(PICTURE, np.float32)):
        np.testing.assert_array_equal(run(made, x=x)[0], run(model, x=x)[0])


@pytest.mark.parametrize(
    ("opset", "node", "constants", "said"),
    [
        (10, NODE("Resize", ["x", "s"], ["y"], name="up"), scales(1, 1, 2, 0.5), "Resize 'up' makes one side larger"),
        (8, NODE("BatchNormalization", ["x", *"abcd"], ["y"], name="bn", spatial=0), {}, "'bn' normalises each place"),
    ],
)
def test_what_has_no_form_is_refused_by_name(opset, node, constants, said):
    if node.op_type == "BatchNormalization":
        constants = {name: np.ones(PICTURE[1:], np.float32) for name in "abcd"}
    with pytest.raises(ConfigError, match=rf"opset {opset} cannot be converted: .*{said}"):
        raise_opset(network([node], {"x": PICTURE}, {"y": None}, opset=opset, **constants))


@pytest.mark.parametrize("opset", [13, 17, 23])
def test_what_is_new_enough_stays_as_it_is(opset):
    model = network([NODE("Relu", ["x"], ["y"])], {"x": [2]}, {"y": (FLOAT, [2])}, opset=opset)
    assert raise_opset(model) is model


def test_an_opset_that_onnx_runtime_does_not_take_is_said():
    model = network([NODE("Add", ["x", "x"], ["y"])], {"x": [2]}, {"y": (FLOAT, [2])}, opset=6)
    with pytest.raises(ConfigError, match="ONNX Runtime cannot run the network"):
        raise_opset(model)
