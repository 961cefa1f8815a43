"""The INT8 form of CPUs runs on 8-bit kernels from the first convolution to the last, and they are exact on any CPU."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.onnx_file import pairs_fit
from mmedge.engine.onnxruntime import OnnxRuntimeEngine, session_options
from mmedge.export import quantize
from mmedge.export.int8.bounds import bounds
from mmedge.export.int8.cpu_form import steps, to_cpu_form
from mmedge.export.int8.pairs import fit_pairs
from mmedge.export.judge import judge
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.report import sqnr_db
from tests.networks import NODE, network
from tests.unit.test_export_kinds import feeds, models_of, net, w


def kernels(model: onnx.ModelProto, tmp_path) -> Counter[str]:
    """Return the operators that ONNX Runtime makes of a network."""
    options = session_options(pairs_fit=pairs_fit(model.SerializeToString()))
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "convs", "sums", "products", "pools"), [("resnet18", 20, 8, 0, 1), ("mobilenet_v3", 62, 38, 28, 9)]
)
def test_all_of_a_network_runs_on_8_bit_kernels(tmp_path, name, convs, sums, products, pools):
    from benchmarks import nets
    from benchmarks.export_nets import fp32_of, tensor_recipe

    recipe = tensor_recipe(tmp_path, [1, 3, 64, 64], [1, nets.CLASSES], '[calibration]\nrule = "max"\n')
    fp32 = fp32_of(getattr(nets, name)(), recipe)
    rng = np.random.default_rng(0)
    int8 = quantize(fp32, None, [{"x": rng.normal(size=(1, 3, 64, 64)).astype(np.float32)} for _ in range(6)])
    found = kernels(to_cpu_form(int8.models["net"], int8.ranges["net"]), tmp_path)
    wanted = {"QLinearConv": convs, "QLinearAdd": sums, "QLinearMul": products, "QLinearGlobalAveragePool": pools}
    assert {kind: found[kind] for kind in wanted} == wanted
    assert not {"Conv", "FusedConv", "ReduceMean", "HardSwish", "Relu", "Gemm", "MatMul"} & set(found)


def squeezed(activation: str, channels: int = 16) -> onnx.ModelProto:
    """Return a block of MobileNetV3: depthwise, activation, squeeze, project, sum, with a head."""
    c = channels
    nodes = [
        NODE("Conv", ["x", "w0", "b0"], ["c0"], name="c0", pads=[1, 1, 1, 1]),
        NODE(activation, ["c0"], ["h0"], name="h0"),
        NODE("Conv", ["h0", "w1", "b1"], ["c1"], name="c1", pads=[1, 1, 1, 1], group=c),
        NODE(activation, ["c1"], ["h1"], name="h1"),
        NODE("ReduceMean", ["h1", "axes"], ["m"], name="m", keepdims=1),
        NODE("Conv", ["m", "w2", "b2"], ["c2"], name="c2"),
        NODE("Relu", ["c2"], ["r2"], name="r2"),
        NODE("Conv", ["r2", "w3", "b3"], ["c3"], name="c3"),
        NODE("HardSigmoid", ["c3"], ["g"], name="g", alpha=1 / 6),
        NODE("Mul", ["h1", "g"], ["s"], name="s"),
        NODE("Conv", ["s", "w4", "b4"], ["c4"], name="c4"),
        NODE("Add", ["c4", "h0"], ["a"], name="a"),
        NODE("ReduceMean", ["a", "axes"], ["n"], name="n", keepdims=0),
        NODE("Gemm", ["n", "w5", "b5"], ["y"], name="y", transB=1),
    ]
    shapes = [(c, 3, 3, 3), (c, 1, 3, 3), (4, c, 1, 1), (c, 4, 1, 1), (c, c, 1, 1), (6, c)]
    constants = {f"w{i}": 2 * w(*shape, seed=i) for i, shape in enumerate(shapes)}
    constants |= {f"b{i}": w(shape[0], 1, seed=9 + i).ravel() for i, shape in enumerate(shapes)}
    model = net(nodes, [1, 3, 10, 10], {**constants, "axes": np.array([2, 3], np.int64)})
    model.opset_import[0].version = 20
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.arithmetic
@pytest.mark.parametrize("activation", ["HardSwish", "Sigmoid", "LeakyRelu", "Relu"])
def test_activations_between_convolutions_are_rounded_once(tmp_path, activation):
    model = squeezed(activation)
    fp32 = models_of(tmp_path, model)
    int8 = quantize(fp32, None, feeds(model))
    form = to_cpu_form(int8.models["s"], int8.ranges["s"])
    found = kernels(form, tmp_path)
    assert found["QLinearConv"] == 5
    assert found["QuantizeLinear"] == 1
    assert not {"Conv", "FusedConv", "ReduceMean", "HardSigmoid", "Mul", "Add"} & set(found), found
    given = feeds(model, 20)

    def answers(engine: OnnxRuntimeEngine) -> np.ndarray:
        return np.stack([engine(feed)["y"] for feed in given])

    want, tensorrt, judged, served = (
        answers(engine)
        for engine in (judge(model), judge(int8.models["s"]), judge(form), OnnxRuntimeEngine(form.SerializeToString()))
    )
    assert sqnr_db(want, judged) > min(sqnr_db(want, tensorrt) - 3, 30)
    assert sqnr_db(judged, served) > 35


def test_without_ranges_activations_stay_float_and_a_resumed_export_has_them(tmp_path):
    model = squeezed("HardSwish")
    int8 = quantize(models_of(tmp_path, model), None, feeds(model))
    int8.save(tmp_path / "step")
    assert OnnxModels.load(tmp_path / "step", int8.recipe, "int8").ranges == int8.ranges
    with judge(int8.models["s"]) as tensorrt, judge(to_cpu_form(int8.models["s"])) as plain:
        for feed in feeds(model, 4):
            want = tensorrt(feed)["y"]
            assert np.abs(plain(feed)["y"] - want).max() < 0.05 * np.abs(want).max()


def test_what_a_graph_gives_is_not_rounded(tmp_path):
    """A feature map is an output and goes on through an activation: the output keeps all of its bits."""
    nodes = [
        NODE("Conv", ["x", "w0", "b0"], ["y"], name="c0"),
        NODE("HardSwish", ["y"], ["h"], name="h"),
        NODE("Conv", ["h", "w1", "b1"], ["z"], name="c1"),
    ]
    constants = {"w0": w(8, 3, 3, 3), "b0": w(8), "w1": w(4, 8, 1, 1), "b1": w(4)}
    model = network(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 6, 6], "z": [1, 4, 6, 6]}, opset=20, **constants)
    fp32 = models_of(tmp_path, onnx.shape_inference.infer_shapes(model))
    int8 = quantize(fp32, None, feeds(model))
    form = to_cpu_form(int8.models["s"], int8.ranges["s"])
    made = {name: node.op_type for node in form.graph.node for name in node.output}
    assert made["y"] == "Conv"
    assert made["z"] == "Conv"


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1), st.booleans())
def test_pairs_of_products_fit_in_every_order_and_cost_no_more_than_seven_bits(seed, channels, taps, loud, shared):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (4, channels * taps))
    codes = np.where(rng.random(codes.shape) < loud, rng.choice([-127, 127], codes.shape), codes).astype(np.int8)
    place = np.arange(channels * taps)
    orders = [place, place.reshape(channels, taps).T.ravel()]
    fitted, wider = fit_pairs(codes, orders, shared=shared)
    for order in orders:
        ordered = np.pad(fitted[:, order].astype(int), ((0, 0), (0, len(order) % 2)))
        for data in (np.array([255, 255]), np.array([255, 0]), np.array([0, 255])):
            sums = (ordered.reshape(4, -1, 2) * data).sum(axis=2)
            assert sums.min(initial=0) >= -(2**15)
            assert sums.max(initial=0) < 2**15
    assert not shared or len(set(wider)) == 1
    error = np.square(fitted * wider[:, None] - codes.astype(np.float64)).sum(axis=1)
    seven = np.square(2 * np.clip(np.rint(codes / 2), -64, 64) - codes).sum(axis=1)
    assert error.sum() <= seven.sum() * (1 + 1e-5)
    assert shared or (error <= seven * (1 + 1e-5)).all()


def test_weights_whose_pairs_fit_stay_as_they_are():
    codes = np.array([[127, 1, -127, 100, 60, 68, -64, -64]], np.int8)
    fitted, wider = fit_pairs(codes, [np.arange(8)])
    assert wider == [1.0]
    assert (fitted == codes).all()


@given(st.floats(1e-6, 1e6), st.floats(-10, 10), st.floats(-10, 10))
def test_steps_reach_from_bound_to_bound_and_have_a_zero(limit, low, high):
    low, high = sorted((low, high))
    scale, zero = steps(limit, low, high)
    reach = (0.0 - float(zero)) * float(scale), (255.0 - float(zero)) * float(scale)
    assert scale > 0
    assert reach[0] <= max(min(low, 0.0), -limit) + 0.51 * scale
    assert reach[1] >= min(max(high, 0.0), limit) - 0.51 * scale
    assert scale <= np.float32(limit / 127) * 1.000001


def test_a_window_far_narrower_than_the_limit_keeps_its_steps():
    """What HardSigmoid takes may be huge: it is cut off at -3 and 3, not at its own extremes."""
    scale, zero = steps(1e12, -3.0, 3.0)
    assert (scale, zero) == (np.float32(6 / 255), 128)


OPERATORS = {
    "Relu": {},
    "HardSwish": {},
    "HardSigmoid": {"alpha": 0.3},
    "Sigmoid": {},
    "Tanh": {},
    "Softmax": {"axis": 1},
    "AveragePool": {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    "MaxPool": {"kernel_shape": [2, 2]},
    "LeakyRelu": {},
    "Exp": {},
    "Abs": {},
    "Softplus": {},
    "Add": {},
    "Mul": {},
    "Concat": {"axis": 1},
    "Clip": {},
}


@given(st.lists(st.sampled_from(sorted(OPERATORS)), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_no_value_is_beyond_the_bounds_of_its_tensor(kinds, seed):
    rng = np.random.default_rng(seed)
    nodes, names = [], ["x"]
    for index, kind in enumerate(kinds):
        taken = [names[int(rng.integers(len(names)))]]
        if kind in ("Add", "Mul", "Concat"):
            taken = [taken[0], taken[0]] if kind == "Concat" else [taken[0], "x" if taken[0] != "x" else "k"]
        if kind == "Clip":
            taken += ["low", "high"]
        if kind in ("AveragePool", "MaxPool", "Concat") and index < len(kinds) - 1:
            continue  # they change the shape
        nodes.append(NODE(kind, taken, [f"t{index}"], name=f"n{index}", **OPERATORS[kind]))
        names.append(f"t{index}")
    constants = {"k": np.float32(rng.normal()), "low": np.float32(-0.5), "high": np.float32(2)}
    outputs = dict.fromkeys(names[1:])
    model = network(nodes, {"x": [1, 3, 4, 4]}, outputs, opset=20, **constants)
    found = bounds(model.graph)
    with judge(model) as engine:
        got = engine({"x": (4 * rng.normal(size=(1, 3, 4, 4))).astype(np.float32)})
    for name, value in got.items():
        low, high = found.get(name, (-np.inf, np.inf))
        assert np.nanmin(value) >= low - 1e-4 * max(1, abs(low)), (name, low)
        assert np.nanmax(value) <= high + 1e-4 * max(1, abs(high)), (name, high)
