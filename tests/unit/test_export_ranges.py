"""Ranges are found in one pass, in constant memory, and glitches neither set them nor hide."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import CheckError
from mmedge.export.int8.glitches import isolated
from mmedge.export.int8.ranges import RangeCollector, _with_ranges


def model():
    """y = relu(3x); z = log(y + 1)."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "three"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
            helper.make_node("Add", ["y", "one"], ["s"]),
            helper.make_node("Log", ["s"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1000])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1000])],
        [numpy_helper.from_array(np.float32(3), "three"), numpy_helper.from_array(np.float32(1), "one")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 1000)).astype(np.float32) for _ in range(count)]


def collect(arrays, group=None) -> RangeCollector:
    collector = RangeCollector(model(), ["x", "m", "y"])
    for x in arrays:
        collector({"x": x}, group)
    return collector


def test_max_rule_is_the_largest_magnitude_of_each_tensor():
    arrays = frames(7)
    got = collect(arrays).thresholds("max", 0.5)
    largest = max(np.abs(x).max() for x in arrays)
    assert got["x"] == pytest.approx(largest)
    assert got["m"] == pytest.approx(3 * largest)
    assert got["y"] == pytest.approx(3 * max(x.max() for x in arrays))


def test_frame_quantile_ignores_one_glitch_that_the_max_rule_takes():
    arrays = frames(200)
    clean = collect(arrays).thresholds("frame-quantile", 0.99)["x"]
    arrays[50] = arrays[50] * 20
    assert collect(arrays).thresholds("frame-quantile", 0.99)["x"] == pytest.approx(clean, rel=0.1)
    assert collect(arrays).thresholds("max", 0.99)["x"] > 10 * clean


def test_a_rare_mask_is_not_drowned_by_a_common_one():
    collector = collect([x * 0.01 for x in frames(300)], "common")
    loud = frames(3)
    for x in loud:
        collector({"x": x}, "rare")
    assert collector.thresholds("frame-quantile", 0.5)["x"] == pytest.approx(np.median([np.abs(x).max() for x in loud]))


def test_outputs_are_those_of_the_network_itself():
    x = frames(1)[0]
    outputs = RangeCollector(model(), ["m"])({"x": x})
    assert list(outputs) == ["z"]
    np.testing.assert_allclose(outputs["z"], np.log(np.maximum(3 * x, 0) + 1), rtol=1e-5, atol=1e-6)


def test_memory_is_one_number_per_tensor_and_frame():
    watched = _with_ranges(model(), ["x", "m", "y", "s"])
    extra = watched.graph.output[-1].type.tensor_type.shape.dim
    assert len(watched.graph.output) == 2
    assert [d.dim_value for d in extra] == [4]


def test_a_tensor_that_is_not_finite_is_named():
    with pytest.raises(CheckError, match="'m' is not finite"):
        collect([np.full((1, 1000), 3e38, np.float32)])


def test_a_dead_tensor_still_gets_a_scale():
    got = collect([np.full((1, 1000), -1.0, np.float32)]).thresholds("max", 1.0)
    assert got["y"] > 0


def test_exactly_the_glitches_are_isolated():
    usual = np.random.default_rng(3).normal(3.0, 0.3, 500)
    usual[[11, 96, 400]] *= 20
    assert np.flatnonzero(isolated(usual)).tolist() == [11, 96, 400]


@pytest.mark.parametrize("maxima", [np.full(50, 1.8), np.r_[np.full(40, 1.8), np.linspace(1.0, 3.0, 10)], np.zeros(5)])
def test_constant_and_mildly_varying_inputs_have_no_isolated(maxima):
    assert not isolated(maxima).any()


def test_what_fails_while_it_is_watched_is_said_in_the_users_words():
    """Division of integers by zero is an error of the network, whoever looks on."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "i"], ["picked"], name="pick", axis=1),
            helper.make_node("Relu", ["picked"], ["y"], name="relu"),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("i", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    collector = RangeCollector(network, ["picked"], "stage 's'")
    with pytest.raises(CheckError, match=r"fails on a calibration sample.*pick") as caught:
        collector({"x": np.zeros((1, 4), np.float32), "i": np.array([0, 9], np.int64)})
    assert "mmedge/" not in caught.value.message


def test_a_tensor_that_cannot_be_watched_is_an_error_of_ours():
    with pytest.raises(CheckError, match="cannot be watched"):
        RangeCollector(model(), ["no such tensor"])
