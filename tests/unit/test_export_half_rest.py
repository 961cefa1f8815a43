"""On TensorRT the rest of a quantised network computes in float16, where ranges, answers and the parser allow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mmedge.export import half_rest, quantize
from mmedge.export.int8.compare import compare_all
from mmedge.export.judge import judge
from mmedge.export.onnx.onnx_models import OnnxModels
from tests.unit.test_export_fp8_int4 import small_net
from tests.unit.test_export_fp16 import large
from tests.unit.test_export_kinds import NODE, feeds, models_of, net, w
from tests.unit.test_export_pack import recipe_in

PAIRS = ("QuantizeLinear", "DequantizeLinear")


def halved(tmp_path: Path, network: onnx.ModelProto, samples=None) -> tuple[OnnxModels, OnnxModels]:
    fp32 = models_of(tmp_path, network)
    samples = samples or feeds(network, 60)
    return fp32, half_rest(quantize(fp32, None, samples), fp32, samples)


def casts_at_pairs(model: onnx.ModelProto) -> list[str]:
    """Casts between a DequantizeLinear and what reads it, or a QuantizeLinear and what feeds it."""
    made = {name: node for node in model.graph.node for name in node.output}
    behind = [node.name for node in model.graph.node if node.op_type == "Cast" and _op(made, node) in PAIRS]
    before = [node.name for node in model.graph.node if node.op_type == "QuantizeLinear" and _op(made, node) == "Cast"]
    return behind + before


def _op(made: dict[str, onnx.NodeProto], node: onnx.NodeProto) -> str:
    source = made.get(node.input[0])
    return "" if source is None else source.op_type


def test_the_rest_is_half_and_no_cast_stands_at_a_pair(tmp_path: Path) -> None:
    fp32, int8 = halved(tmp_path, small_net())
    model = int8.half["s"]
    kinds = {t.data_type for t in model.graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.INT8 in kinds
    wide = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert [value.size for value in wide] == [1], "the scale of the float32 input alone"
    assert casts_at_pairs(model) == []
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [TensorProto.FLOAT] * 2
    assert int8.quantization["s"].rest == "fp16"
    plain, half = (row.rows[0].sqnr_db for row in compare_all(fp32, [int8], samples=feeds(fp32.models["s"], 60)))
    assert half > min(plain - 1, 40)


def test_what_comes_near_the_largest_float16_stays_in_float32_with_its_pairs(tmp_path: Path) -> None:
    fp32, int8 = halved(tmp_path, large(1e4))
    model = int8.half["s"]
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    made = {node.name: node for node in model.graph.node}
    assert types[made["louder"].output[0]] == TensorProto.FLOAT
    assert types[made["first"].output[0]] == TensorProto.FLOAT16
    assert casts_at_pairs(model) == []
    with judge(fp32.models["s"]) as exact, judge(model) as coarse:
        for feed in feeds(fp32.models["s"], 4):
            np.testing.assert_allclose(coarse(feed)["y"], exact(feed)["y"], atol=0.08)


def test_a_scale_that_float16_cannot_hold_keeps_its_layer_in_float32(tmp_path: Path) -> None:
    network = net(
        [NODE("MatMul", ["x", "w"], ["a"], name="tiny"), NODE("MatMul", ["a", "v"], ["y"], name="back")],
        [4, 6],
        {"w": w(6, 6) * np.float32(1e-6), "v": w(6, 5) * np.float32(1e6)},
    )
    _, int8 = halved(tmp_path, network)
    assert not int8.half
    assert int8.quantization["s"].rest == "fp32"


def cancelling(much: float) -> onnx.ModelProto:
    """Large numbers whose difference is the answer: they fit into float16, which rounds them."""
    return net(
        [
            NODE("MatMul", ["x", "w"], ["a"], name="layer"),
            NODE("Add", ["a", "much"], ["b"], name="up"),
            NODE("Sub", ["b", "much"], ["y"], name="down"),
        ],
        [4, 6],
        {"w": w(6, 5), "much": np.float32(much)},
    )


@pytest.mark.parametrize(("much", "why"), [(100, "'s.y' would be noisier"), (4000, "float16 is ")])
def test_answers_that_become_noisier_keep_float32(tmp_path: Path, caplog, much: float, why: str) -> None:
    """ONNX Runtime's own float16 on CPUs shows none of it."""
    _, int8 = halved(tmp_path, cancelling(much))
    assert not int8.half
    assert f"TensorRT computes the rest in float32: {why}" in caplog.text


@pytest.mark.parametrize("line", ['rest = "fp32"', 'targets = ["cpu"]'])
def test_a_recipe_may_keep_float32(tmp_path: Path, line: str) -> None:
    fp32 = models_of(tmp_path, small_net())
    text = (tmp_path / "r.toml").read_text()
    fp32 = OnnxModels(recipe=recipe_in(tmp_path, f"{text}[export]\n{line}\n"), precision="fp32", models=fp32.models)
    samples = feeds(fp32.models["s"], 60)
    int8 = half_rest(quantize(fp32, None, samples), fp32, samples)
    assert not int8.half
    assert len(compare_all(fp32, [int8], samples=samples)) == 1


def test_what_the_parser_refuses_has_no_form_that_nothing_else_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    network = net(
        [NODE("MatMul", ["x", "w"], ["a"], name="layer"), NODE("Det", ["a"], ["y"], name="volume")],
        [4, 4],
        {"w": w(4, 4)},
    )
    fp32 = models_of(tmp_path, network)
    samples = feeds(network, 40)
    int8, fp8 = (
        half_rest(quantize(fp32, None, samples, precision=k), fp32, samples)  # type: ignore[arg-type]
        for k in ("int8", "fp8")
    )
    assert "s" in int8.models, "CPUs run it"
    assert not fp8.models
    assert "TensorRT refuses it: Det 'volume'" in fp8.skipped["s"]


def test_a_saved_form_is_the_same_again(tmp_path: Path) -> None:
    _, int8 = halved(tmp_path, small_net())
    int8.save(tmp_path / "kept")
    again = OnnxModels.load(tmp_path / "kept", int8.recipe, "int8")
    assert (again.models, again.half, again.quantization) == (int8.models, int8.half, int8.quantization)
