"""A network may call its tensors and nodes what the toolchain calls its own: it comes out the same all the way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.export import quantize, to_fp16
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.int8.emulated import emulated
from mmedge.export.int8.fp16 import converted
from mmedge.export.int8.prepare import plain_gemms, prepare
from mmedge.export.judge import judge
from mmedge.export.onnx.normal_form import normal_form
from mmedge.export.onnx.parity import check_rewrite
from mmedge.export.preprocess.onnx_prefix import merge_prefix
from tests.networks import NODE, network
from tests.unit.test_export_kinds import feeds, models_of, net, w


def chain(*names: str, half: bool = False) -> onnx.ModelProto:
    """A product, and a Relu for each name that makes a tensor, by a node, called so; then another product."""
    steps = ["x", "x/m", *names]
    nodes = [NODE("MatMul", ["x", "a"], ["x/m"], name="first")]
    nodes += [NODE("Relu", [one], [two], name=two) for one, two in pairwise(steps[1:])]
    nodes.append(NODE("Gemm", [steps[-1], "b", "c"], ["y"], name="last", alpha=2.0))
    return net(nodes, [1, 64], {"a": w(64, 64), "b": w(64, 3, seed=1), "c": w(3, seed=2)}, half=half)


RESERVED = (
    *("mmedge/ranges", "mmedge/range0", "mmedge/one", "mmedge/flat", "mmedge/sample0", "mmedge/infinite0"),
    *("x/cpu_scale", "x/cpu_zero", "x/m/cpu_scale", "last/cpu_bias", "last/cpu_bias_scale", "last/cpu_bias_float"),
    *("x/fp16", "x/fp32", "x/m/fp16", "y/fp16", "y/made", "x/m/made", "y/rounded", "y/Cast", "x/float32/Cast"),
    *("fp8/zero", "fp8/x/scale", "last/fp8/data", "last/fp8/weight", "int4/b/0/codes", "last/int4/weight"),
    *("x/float32", "y/float32", "b/last/alpha", "x_scale", "x/tensor", "x/cast", "x/scale"),
)


@pytest.mark.parametrize("half", [False, True])
def test_names_of_ours_are_free_ones(tmp_path, half):
    network_ = chain(*RESERVED, half=half)
    fp32 = models_of(tmp_path, network_)
    given = feeds(network_)
    for precision in ("fp8", "int4"):
        found = quantize(fp32, None, given, precision=precision)
        assert not found.skipped, precision
    form = to_cpu_form(int8 := quantize(fp32, None, given).models["s"])
    with judge(int8) as written, judge(form) as ours:
        for feed in given[:3]:
            want = written(feed)["y"].astype(np.float32)
            assert np.abs(ours(feed)["y"] - want).max() < 0.05 * np.abs(want).max()
    wide = plain_gemms(prepare(network_))
    floats = {out for node in wide.graph.node for out in node.output} | {"x"}
    if not half:
        assert not to_fp16(fp32, given).skipped
        check_rewrite(wide, emulated(converted(wide, floats, ())), "float16", limit=0.02)


@pytest.mark.parametrize("sound", [False, True])
def test_preprocessing_has_names_of_its_own(sound):
    seat = (
        AudioInput(sample_rate_hz=8000, window_ms=8, gain=2.0)
        if sound
        else ImageInput(size=(4, 4), frame=(8, 8), mean=(0.5,), std=(0.5,), color="gray")
    )
    steps = ["x", "x/gain", "x/amplify", "x/cast", "x/transpose", "x/scale", "x/shift", "x/mul", "x/preprocess/Mul"]
    nodes = [NODE("Relu", [one], [two], name=two) for one, two in pairwise(steps)]
    nodes += [NODE("ReduceSum", [steps[-1]], ["y"], name="x/preprocess/amplify")]
    shape = list(seat.tensor_shape)
    merged = merge_prefix(network(nodes, {"x": shape}, {"y": [1] * len(shape)}), {"x": seat})
    onnx.checker.check_model(merged, full_check=True)


def clipped(*nodes: onnx.NodeProto, **more: np.ndarray) -> list[tuple[str, list[float]]]:
    """The operators of a normal form, with their bounds."""
    bounds = {"zero": np.float32(0), "six": np.full((1, 1, 1), 6, np.float32), "two": np.float32([2]), **more}
    model = network(list(nodes), {"x": [1, 3, 4, 4]}, {"y": [1, 3, 4, 4]}, **bounds)
    normal = normal_form(model)
    check_rewrite(model, normal, "normal form")
    assert normal_form(normal) == normal
    held = {t.name: float(onnx.numpy_helper.to_array(t).item()) for t in normal.graph.initializer if not t.dims}
    return [(n.op_type, [held.get(name, name or None) for name in n.input[1:]]) for n in normal.graph.node]


def test_a_bound_is_a_clip_however_it_is_written():
    assert clipped(NODE("Max", ["zero", "x"], ["m"]), NODE("Min", ["m", "six"], ["y"])) == [("Clip", [0.0, 6.0])]
    assert clipped(NODE("Min", ["x", "six"], ["m"]), NODE("Max", ["m", "two"], ["y"])) == [("Clip", [2.0, 6.0])]
    assert clipped(NODE("Max", ["x", "zero"], ["y"])) == [("Relu", [])]
    assert clipped(NODE("Min", ["six", "x"], ["y"])) == [("Clip", [None, 6.0])]
    # Bounds that cross, what is read between, one for each channel, more than the data has axes.
    crossed = clipped(NODE("Min", ["x", "two"], ["m"]), NODE("Max", ["m", "six"], ["y"]))
    assert [op for op, _ in crossed] == ["Clip", "Clip"]
    both = [NODE("Max", ["x", "two"], ["m"]), NODE("Min", ["m", "six"], ["n"]), NODE("Add", ["m", "n"], ["y"])]
    assert [op for op, _ in clipped(*both)] == ["Clip", "Clip", "Add"]
    channels = clipped(NODE("Max", ["x", "each"], ["y"]), each=np.arange(3, dtype=np.float32)[:, None, None])
    assert channels[0][0] == "Max"


def test_a_relu6_of_max_and_min_is_in_int8_what_a_clip_is(tmp_path):
    def relu6(name: str, *, clip: bool) -> list[onnx.NodeProto]:
        if clip:
            return [NODE("Clip", [name, "zero", "six"], [f"{name}6"], name=f"{name}clip")]
        return [
            NODE("Max", [name, "zero"], [f"{name}0"], name=f"{name}max"),
            NODE("Min", [f"{name}0", "six"], [f"{name}6"], name=f"{name}min"),
        ]

    found = []
    for clip in (True, False):
        nodes = [NODE("Conv", ["x", "a"], ["h"], name="a1"), *relu6("h", clip=clip)]
        nodes += [NODE("Conv", ["h6", "b"], ["i"], name="b1"), *relu6("i", clip=clip)]
        nodes += [NODE("Conv", ["i6", "c"], ["y"], name="c1")]
        constants = {"a": 20 * w(8, 3, 3, 3), "b": 9 * w(8, 8, 3, 3), "c": w(4, 8, 1, 1)}
        model = net(nodes, [1, 3, 12, 12], constants | {"zero": np.float32(0), "six": np.float32(6)})
        int8 = quantize(models_of(tmp_path, model), None, feeds(model)).models["s"]
        held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in to_cpu_form(int8).graph.initializer}
        found.append({name: int(value) for name, value in held.items() if name.endswith("/cpu_zero")})
    assert found[1] == found[0] == {"x/cpu_zero": 128, "h6/cpu_zero": 0, "i6/cpu_zero": 0}
