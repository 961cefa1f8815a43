"""A Gemm may multiply what it sums by factors of its own: INT8 keeps them, or leaves it float and says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mmedge.export import quantize
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.int8.prepare import plain_gemms, prepare
from mmedge.export.judge import judge
from mmedge.export.report import int8_nodes
from tests.unit.test_export_kinds import NODE, feeds, models_of, net, w


def gemm(*, shared: bool = False, **factors: float) -> onnx.ModelProto:
    """One Gemm; ``shared`` weights and bias are also read by a second one, that has no factors."""
    nodes = [NODE("Gemm", ["x", "w", "b"], ["a" if shared else "y"], name="layer", **factors)]
    if shared:
        nodes.append(NODE("Gemm", ["a", "w", "b"], ["y"], name="second"))
    return net(nodes, [4, 6], {"w": w(6, 6), "b": np.linspace(-3, 4, 6, dtype=np.float32)})


def loss(tmp_path, network: onnx.ModelProto, *, cpu: bool) -> float:
    """Return how far INT8 is off, as a share of the largest value."""
    fp32 = models_of(tmp_path, network)
    model = quantize(fp32, None, feeds(network)).models["s"]
    worst = 0.0
    with judge(network) as exact, judge(to_cpu_form(model) if cpu else model) as coarse:
        for feed in feeds(network, 8):
            want = exact(feed)["y"]
            worst = max(worst, float(np.abs(coarse(feed)["y"] - want).max() / np.abs(want).max()))
    return worst


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("factors", [{"beta": 3.0}, {"beta": 0.0}, {"alpha": 0.5, "beta": 2.0}, {"alpha": -2.0}])
def test_factors_of_a_gemm_cost_nothing_more_in_int8(tmp_path, factors, shared, cpu):
    assert loss(tmp_path, gemm(shared=shared, **factors), cpu=cpu) < 0.03 + loss(tmp_path, gemm(shared=shared), cpu=cpu)


def test_factors_are_in_constants_and_what_has_none_is_left(tmp_path):
    model = plain_gemms(prepare(gemm(alpha=0.5, beta=3.0)))
    assert list(model.graph.node[0].attribute) == []
    plain = prepare(gemm())
    assert plain_gemms(plain) is plain


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("shape", [(1, 5), (1,), (), (1, 1)])
def test_a_bias_of_one_row_is_quantised_whatever_its_shape(tmp_path, shape, turned):
    bias = np.linspace(-3, 4, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    nodes = [NODE("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=turned)]
    network = net(nodes, [4, 6], {"w": w(5, 6) if turned else w(6, 5), "b": bias})
    int8 = quantize(models_of(tmp_path, network), None, feeds(network))
    assert int8_nodes(int8.models["s"]) == (1, 1)
    assert loss(tmp_path, network, cpu=True) < 0.05


@pytest.mark.parametrize("shape", [(4, 5), (4, 1)])
def test_a_bias_of_several_rows_keeps_its_layer_float(tmp_path, shape):
    nodes = [NODE("Gemm", ["x", "w", "b"], ["y"], name="layer")]
    network = net(nodes, [4, 6], {"w": w(6, 5), "b": w(*shape)})
    int8 = quantize(models_of(tmp_path, network), None, feeds(network))
    assert int8.skipped == {"s": "layer: its bias differs from row to row"}


def test_a_computed_bias_that_is_multiplied_keeps_its_layer_float(tmp_path):
    network = net(
        [
            NODE("MatMul", ["x", "v"], ["m"], name="first"),
            NODE("Relu", ["m"], ["bias"], name="relu"),
            NODE("Gemm", ["x", "w", "bias"], ["y"], name="layer", beta=3.0),
        ],
        [4, 6],
        {"w": w(6, 5), "v": w(6, 5, seed=1)},
    )
    int8 = quantize(models_of(tmp_path, network), None, feeds(network))
    assert int8.quantization["s"].reasons == {"layer": "its bias is computed and counts 3 times"}
    assert int8_nodes(int8.models["s"])[0] == 1
    assert loss(tmp_path, network, cpu=False) < 0.05
