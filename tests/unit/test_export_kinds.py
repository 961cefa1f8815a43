"""Whatever its weights look like, a layer becomes int8, or the export says which does not and why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export import quantize
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.int8.equalize import equalize
from mmedge.export.int8.prepare import prepare
from mmedge.export.judge import judge
from mmedge.export.onnx.lint import lint
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.onnx.state import already_quantised
from mmedge.export.report import int8_nodes, quantization_report, sqnr_db
from tests.networks import NODE, network
from tests.unit.test_export_pack import recipe_in

RECIPE = """
name = "t"
licence = "Apache-2.0"
[inputs.x]
modality = "tensor"
shape = {shape}
dtype = "{dtype}"
[model]
factory = "unused:make"
[stages.s]
inputs = {{ x = "x" }}
outputs = {{ y = {out} }}
[tasks]
[sync]
trigger = "x"
"""

F = np.float32


def w(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(F)


def net(nodes, shape, constants, *, dtype=TensorProto.FLOAT, half: bool = False) -> onnx.ModelProto:
    kind, out = (TensorProto.FLOAT16, TensorProto.FLOAT16) if half else (dtype, TensorProto.FLOAT)
    held = {n: v.astype(np.float16) if half and v.dtype == F else v for n, v in constants.items()}
    return onnx.shape_inference.infer_shapes(network(nodes, {"x": (kind, shape)}, {"y": (out, None)}, **held))


def conv(shape, weight, **attributes) -> onnx.ModelProto:
    return net(
        [NODE("Conv", ["x", "w", "b"], ["y"], name="layer", **attributes)],
        shape,
        {"w": weight, "b": w(weight.shape[0])},
    )


def constant_weight() -> onnx.ModelProto:
    value = numpy_helper.from_array(w(8, 3, 3, 3), "v")
    return net([NODE("Constant", [], ["w"], value=value), NODE("Conv", ["x", "w"], ["y"])], [1, 3, 8, 8], {})


def half_weight() -> onnx.ModelProto:
    return net(
        [NODE("Cast", ["h"], ["w"], to=TensorProto.FLOAT, name="c"), NODE("Conv", ["x", "w"], ["y"], name="layer")],
        [1, 3, 8, 8],
        {"h": w(8, 3, 3, 3).astype(np.float16)},
    )


def shared(axis_differs: bool) -> onnx.ModelProto:
    second = (
        NODE("Gemm", ["a", "w"], ["y"], transB=1, name="two")
        if axis_differs
        else NODE("MatMul", ["a", "w"], ["y"], name="two")
    )
    return net(
        [NODE("MatMul", ["x", "w"], ["m"], name="one"), NODE("Relu", ["m"], ["a"], name="r"), second],
        [4, 6],
        {"w": w(6, 6)},
    )


def tied() -> onnx.ModelProto:
    """An embedding whose table is also the last layer's weight, as language models have it."""
    return net(
        [
            NODE("Gather", ["t", "x"], ["e"], name="embed"),
            NODE("MatMul", ["e", "m"], ["h"], name="layer"),
            NODE("Relu", ["h"], ["r"], name="relu"),
            NODE("Transpose", ["t"], ["tt"], perm=[1, 0], name="turn"),
            NODE("MatMul", ["r", "tt"], ["y"], name="head"),
        ],
        [1, 5],
        {"t": w(30, 8) * 3, "m": w(8, 8)},
        dtype=TensorProto.INT64,
    )


def shapes_inside() -> onnx.ModelProto:
    """A view with a size that is computed: integers are added, gathered and joined beside the data."""
    return net(
        [
            NODE("Conv", ["x", "w"], ["c"], name="layer"),
            NODE("Shape", ["c"], ["s"], name="shape"),
            NODE("Gather", ["s", "zero"], ["n"], name="batch"),
            NODE("Add", ["n", "nought"], ["n2"], name="sum"),
            NODE("Concat", ["n2", "rest"], ["to"], axis=0, name="join"),
            NODE("Reshape", ["c", "to"], ["f"], name="view"),
            NODE("Gemm", ["f", "v"], ["y"], name="head", transB=1),
        ],
        [1, 3, 8, 8],
        {
            "w": w(4, 3, 3, 3),
            "v": w(5, 144),
            "zero": np.array([0], np.int64),
            "nought": np.array([0], np.int64),
            "rest": np.array([-1], np.int64),
        },
    )


KINDS: dict[str, tuple[Callable[[], onnx.ModelProto], int]] = {
    "conv": (lambda: conv([1, 3, 8, 8], w(8, 3, 3, 3)), 1),
    "conv1d": (lambda: conv([1, 3, 16], w(8, 3, 3)), 1),
    "conv3d": (lambda: conv([1, 2, 6, 6, 6], w(4, 2, 3, 3, 3)), 1),
    "grouped": (lambda: conv([1, 8, 6, 6], w(8, 4, 3, 3), group=2), 1),
    "depthwise": (lambda: conv([1, 8, 6, 6], w(8, 1, 3, 3), group=8), 1),
    "transposed convolution": (
        lambda: net([NODE("ConvTranspose", ["x", "w"], ["y"], name="layer")], [1, 4, 5, 5], {"w": w(4, 6, 3, 3)}),
        1,
    ),
    "transposed convolution in groups": (
        lambda: net(
            [NODE("ConvTranspose", ["x", "w"], ["y"], group=2, name="layer")], [1, 4, 5, 5], {"w": w(4, 3, 3, 3)}
        ),
        1,
    ),
    "Gemm": (lambda: net([NODE("Gemm", ["x", "w"], ["y"], name="layer")], [4, 6], {"w": w(6, 5)}), 1),
    "Gemm transB": (lambda: net([NODE("Gemm", ["x", "w"], ["y"], transB=1, name="layer")], [4, 6], {"w": w(5, 6)}), 1),
    "MatMul of a sequence": (
        lambda: net([NODE("MatMul", ["x", "w"], ["y"], name="layer")], [1, 7, 6], {"w": w(6, 5)}),
        1,
    ),
    "MatMul in batches": (
        lambda: net([NODE("MatMul", ["x", "w"], ["y"], name="layer")], [3, 7, 6], {"w": w(3, 6, 5)}),
        1,
    ),
    "weights of a Constant node": (constant_weight, 1),
    "half weights behind a Cast": (half_weight, 1),
    "turned weights": (
        lambda: net(
            [
                NODE("Transpose", ["w"], ["t"], perm=[1, 0], name="turn"),
                NODE("MatMul", ["x", "t"], ["y"], name="layer"),
            ],
            [4, 6],
            {"w": w(5, 6)},
        ),
        1,
    ),
    "shared weights": (lambda: shared(False), 2),
    "shared weights, turned": (lambda: shared(True), 2),
    "tied embedding": (tied, 2),
    "shapes beside the data": (shapes_inside, 2),
    "nodes without names": (
        lambda: net(
            [NODE("Conv", ["x", "w"], ["a"]), NODE("Relu", ["a"], ["r"]), NODE("Conv", ["r", "v"], ["y"])],
            [1, 3, 8, 8],
            {"w": w(4, 3, 3, 3), "v": w(4, 4, 1, 1)},
        ),
        2,
    ),
    "half precision throughout": (
        lambda: net(
            [NODE("Conv", ["x", "w"], ["a"], name="one"), NODE("Relu", ["a"], ["y"], name="r")],
            [1, 3, 8, 8],
            {"w": w(8, 3, 3, 3)},
            half=True,
        ),
        1,
    ),
}


def feeds(model: onnx.ModelProto, count: int = 60) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    value = model.graph.input[0].type.tensor_type
    shape = [d.dim_value for d in value.shape.dim]
    if value.elem_type == TensorProto.INT64:
        return [{"x": rng.integers(0, 30, shape)} for _ in range(count)]
    kind = helper.tensor_dtype_to_np_dtype(value.elem_type)
    return [{"x": rng.normal(size=shape).astype(kind)} for _ in range(count)]


def models_of(tmp_path, model: onnx.ModelProto) -> OnnxModels:
    with judge(model) as engine:
        out = list(engine.outputs["y"].shape)
        kind = engine.inputs["x"]
    text = RECIPE.format(shape=list(kind.shape), dtype=kind.dtype.name, out=out)
    return OnnxModels(recipe=recipe_in(tmp_path, text), precision="fp32", models={"s": model})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_weight_becomes_int8(tmp_path, kind):
    make, layers = KINDS[kind]
    fp32 = models_of(tmp_path, make())
    int8 = quantize(fp32, None, feeds(fp32.models["s"]))
    assert int8.skipped == {}
    assert int8_nodes(int8.models["s"]) == (layers, layers)
    assert int8.quantization["s"].reasons == {}
    assert int8.quantization["s"].sqnr_db > 25
    assert [f for f in lint(int8.models["s"]) if f.level == "error"] == []
    given = feeds(fp32.models["s"], 20)
    with (
        judge(int8.models["s"]) as written,
        OnnxRuntimeEngine(to_cpu_form(int8.models["s"]).SerializeToString()) as own,
    ):
        want, got = (np.stack([run(feed)["y"] for feed in given]) for run in (written, own))
    assert sqnr_db(want, got) > 25, "the form of CPUs differs"


def lstm_net() -> onnx.ModelProto:
    return net(
        [
            NODE("MatMul", ["x", "w"], ["m"], name="layer"),
            NODE("LSTM", ["m", "k", "r"], ["o", "", ""], hidden_size=4, name="memory"),
            NODE("Reshape", ["o", "flat"], ["y"], name="flat"),
        ],
        [3, 1, 6],
        {"w": w(6, 5), "k": w(1, 16, 5), "r": w(1, 16, 4), "flat": np.array([1, -1], np.int64)},
    )


def test_a_layer_that_stays_float_is_named_with_its_reason(tmp_path, caplog):
    fp32 = models_of(tmp_path, lstm_net())
    int8 = quantize(fp32, None, feeds(fp32.models["s"]))
    assert int8.quantization["s"].float_nodes == ("memory",)
    assert "LSTM has no explicit INT8 form" in int8.quantization["s"].reasons["memory"]
    assert "memory stays float" in caplog.text
    assert int8_nodes(int8.models["s"]) == (1, 2)
    assert "memory stays float: LSTM" in str(quantization_report(fp32, int8).table().caption)


@pytest.mark.parametrize(
    ("nodes", "constants", "why"),
    [
        ([NODE("Softmax", ["x"], ["y"], name="only")], {}, "it has no layer with weights"),
        (
            [NODE("Mul", ["v", "v"], ["q"], name="dyn"), NODE("MatMul", ["x", "x2"], ["y"], name="scores")],
            {"v": w(6, 6), "x2": w(6, 6)},
            None,
        ),
        (
            [NODE("Reshape", ["x", "s"], ["k"]), NODE("Conv", ["p", "k"], ["y"], name="made")],
            {"p": w(1, 1, 9, 9), "s": np.array([1, 1, 4, 6], np.int64)},
            "its weights are computed",
        ),
    ],
)
def test_a_stage_of_which_nothing_is_quantised_has_no_int8_variant(tmp_path, nodes, constants, why):
    fp32 = models_of(tmp_path, net(nodes, [4, 6], constants))
    int8 = quantize(fp32, None, feeds(fp32.models["s"]))
    if why is None:
        assert int8_nodes(int8.models["s"]) == (1, 1)
        return
    assert int8.models == {}
    assert why in int8.skipped["s"]
    report = quantization_report(fp32, int8)
    assert report.stages[0].skipped == int8.skipped["s"]
    assert "is left as it is" in str(report.table().caption)


def test_what_is_quantised_already_is_said_and_left_alone(tmp_path, caplog):
    fp32 = models_of(tmp_path, conv([1, 3, 8, 8], w(8, 3, 3, 3)))
    once = quantize(fp32, None, feeds(fp32.models["s"]))
    assert already_quantised(fp32.models["s"]) is None
    brought = OnnxModels(recipe=fp32.recipe, precision="fp32", models=once.models)
    again = quantize(brought, None, feeds(fp32.models["s"]))
    assert again.models == {}
    assert "quantised already" in again.skipped["s"]
    assert "Q/DQ pairs" in again.skipped["s"]
    assert "is left as it is: it is quantised already" in caplog.text


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_integer_weights_behind_a_cast_are_quantised_already(tmp_path, kind):
    """As packages store them without Q/DQ: cast to float and multiplied by a scale, which folding would undo."""
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["real"]),
        helper.make_node("MatMul", ["x", "real"], ["y"]),
    ]
    stored = np.random.default_rng(0).integers(0, 100, (8, 8)).astype(kind)
    model = network(nodes, {"x": [1, 8]}, {"y": [1, 8]}, w=stored, scale=np.float32(0.01))
    fp32 = models_of(tmp_path, model)
    assert quantize(fp32, None, feeds(model)).skipped["s"].startswith("it is quantised already (1 weights stored so)")
    mask = network([NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], {"x": [1, 8]}, {"y": [1, 8]})
    assert already_quantised(mask) is None  # what is cast is no weight


def test_half_precision_is_computed_wider_and_keeps_its_signature():
    model = KINDS["half precision throughout"][0]()
    wide = prepare(model)
    assert [v.type.tensor_type.elem_type for v in (*wide.graph.input, *wide.graph.output)] == [TensorProto.FLOAT16] * 2
    feed = feeds(model, 1)[0]
    with judge(model) as old, judge(wide) as new:
        assert sqnr_db(old(feed)["y"], new(feed)["y"]) > 50


def badly_scaled(spread: float, seed: int) -> onnx.ModelProto:
    """Expand, depthwise, project, pool, dense: channels as large as a logarithmic normal says; the function stays."""
    rng = np.random.default_rng(seed)
    s, t = (np.exp(spread * rng.normal(size=16)).astype(F) for _ in range(2))
    return net(
        [
            NODE("Conv", ["x", "w1", "b1"], ["a"], name="expand"),
            NODE("Relu", ["a"], ["r"], name="r1"),
            NODE("Conv", ["r", "w2"], ["c"], name="depthwise", group=16, pads=[1, 1, 1, 1]),
            NODE("PRelu", ["c", "slope"], ["d"], name="r2"),
            NODE("Conv", ["d", "w3"], ["e"], name="project"),
            NODE("LeakyRelu", ["e"], ["f"], name="r3"),
            NODE("GlobalAveragePool", ["f"], ["g"], name="pool"),
            NODE("Flatten", ["g"], ["h"], name="flat"),
            NODE("Gemm", ["h", "w4"], ["y"], name="dense", transB=1),
        ],
        [1, 3, 10, 10],
        {
            "w1": w(16, 3, 1, 1) * s[:, None, None, None],
            "b1": w(16, seed=1) * s,
            "w2": w(16, 1, 3, 3, seed=2) * (t / s)[:, None, None, None],
            "slope": np.full((16, 1, 1), 0.1, F),
            "w3": w(8, 16, 1, 1, seed=3) / t[None, :, None, None],
            "w4": w(5, 8, seed=4),
        },
    )


@pytest.mark.parametrize("seed", range(3))
def test_equalisation_keeps_the_function_and_saves_int8(tmp_path, seed):
    model = badly_scaled(2.0, seed)
    equal, pairs = equalize(model)
    assert pairs >= 2
    given = feeds(model, 40)
    with judge(model) as old, judge(equal) as new:
        want, got = (np.stack([run(f)["y"] for f in given]) for run in (old, new))
    assert np.abs(want - got).max() / np.abs(want).max() < 1e-5
    int8 = quantize(models_of(tmp_path, model), None, feeds(model, 120))
    notes = int8.quantization["s"]
    assert notes.equalized == pairs
    assert notes.sqnr_db > 23
