"""FP16 keeps in float32 what float16 cannot hold, found on recordings and by emulation, and says which and why."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.export import pack, quantize
from mmedge.export.int8.fp16 import to_fp16
from mmedge.export.judge import judge
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.recordings import RawSample, RawSamples
from tests.unit.test_export_kinds import NODE, feeds, models_of, net, w
from tests.unit.test_export_pack import RECIPE, encoder, fusion, recipe_in, samples


def test_weights_are_half_and_the_signature_stays(tmp_path):
    fp32 = models_of(tmp_path, net([NODE("Conv", ["x", "w"], ["y"], name="layer")], [1, 3, 8, 8], {"w": w(8, 3, 3, 3)}))
    half = to_fp16(fp32, feeds(fp32.models["s"]))
    model = half.models["s"]
    assert half.precision == "fp16"
    assert [t.data_type for t in model.graph.initializer if t.dims] == [TensorProto.FLOAT16]
    kinds = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)]
    assert kinds == [TensorProto.FLOAT] * 2
    assert half.quantization["s"].reasons == {}
    assert half.quantization["s"].sqnr_db > 55


def large(gain: float) -> OnnxModels:
    return net(
        [
            NODE("MatMul", ["x", "w"], ["a"], name="first"),
            NODE("Mul", ["a", "gain"], ["b"], name="louder"),
            NODE("Mul", ["b", "less"], ["c"], name="softer"),
            NODE("MatMul", ["c", "v"], ["y"], name="last"),
        ],
        [4, 6],
        {"w": w(6, 6), "v": w(6, 5), "gain": np.float32(gain), "less": np.float32(1 / gain)},
    )


@pytest.mark.parametrize(("gain", "wide"), [(100.0, ()), (1e4, ("louder", "softer")), (2e6, ("louder", "softer"))])
def test_what_comes_near_the_largest_float16_stays_in_float32(tmp_path, gain, wide):
    fp32 = models_of(tmp_path, large(gain))
    half = to_fp16(fp32, feeds(fp32.models["s"]))
    assert half.quantization["s"].float_nodes == wide
    given = feeds(fp32.models["s"], 4)
    with judge(fp32.models["s"]) as exact, judge(half.models["s"]) as coarse:
        for feed in given:
            np.testing.assert_allclose(coarse(feed)["y"], exact(feed)["y"], atol=0.02)


def test_an_overflow_inside_an_operator_is_found_by_emulation(tmp_path):
    """Each frame is within range, but what a rare one makes is not: only running it in float16 shows."""
    network = net(
        [
            NODE("Mul", ["x", "x"], ["a"], name="square"),
            NODE("Mul", ["a", "a"], ["b"], name="fourth"),
            NODE("Clip", ["b", "", "top"], ["c"], name="clip"),
            NODE("MatMul", ["c", "w"], ["y"], name="layer"),
        ],
        [4, 6],
        {"w": w(6, 5), "top": np.float32(3)},
    )
    fp32 = models_of(tmp_path, network)
    arrays = [{"x": f["x"] * 30} for f in feeds(network)]
    half = to_fp16(fp32, arrays)
    assert {"fourth", "clip"} <= set(half.quantization["s"].float_nodes)
    assert half.quantization["s"].sqnr_db > 40


@pytest.mark.parametrize("count", [40, 128, 700])
def test_samples_that_come_late_count_like_the_first(tmp_path, count):
    """Only the last tenth of what calibrates is loud."""
    network = net(
        [
            NODE("MatMul", ["x", "w"], ["a"], name="first"),
            NODE("Mul", ["a", "gain"], ["b"], name="louder"),
            NODE("Mul", ["b", "less"], ["y"], name="softer"),
        ],
        [4, 6],
        {"w": w(6, 6), "gain": np.float32(1000), "less": np.float32(1e-3)},
    )
    arrays = [{"x": f["x"] * (30 if k >= count * 9 // 10 else 1)} for k, f in enumerate(feeds(network, count))]
    given = [RawSample(name=f"{k}", arrays=array) for k, array in enumerate(arrays)]
    half = to_fp16(models_of(tmp_path, network), RawSamples(calibration=given, held_out=given[:8]))
    assert half.quantization["s"].float_nodes == ("louder", "softer")
    assert half.quantization["s"].frames == min(count, 64)
    assert half.quantization["s"].sqnr_db > 40


def test_powers_sums_and_softmax_stay_in_float32(tmp_path):
    network = net(
        [
            NODE("MatMul", ["x", "w"], ["a"], name="layer"),
            NODE("Exp", ["a"], ["e"], name="exp"),
            NODE("ReduceSum", ["e", "axis"], ["s"], name="sum"),
            NODE("Log", ["s"], ["l"], name="log"),
            NODE("Sub", ["a", "l"], ["y"], name="shift"),
        ],
        [4, 6],
        {"w": w(6, 5), "axis": np.array([1], np.int64)},
    )
    half = to_fp16(models_of(tmp_path, network), feeds(network))
    assert set(half.quantization["s"].float_nodes) == {"exp", "sum", "log"}
    assert "needs the range of float32" in half.quantization["s"].reasons["exp"]


def test_constants_that_float16_cannot_hold_are_named(tmp_path):
    network = net(
        [NODE("MatMul", ["x", "w"], ["a"], name="layer"), NODE("Add", ["a", "tiny"], ["y"], name="epsilon")],
        [4, 6],
        {"w": w(6, 5), "tiny": np.float32(1e-12)},
    )
    half = to_fp16(models_of(tmp_path, network), feeds(network))
    assert half.quantization["s"].reasons == {"epsilon": "a constant is smaller than float16 holds"}


def test_what_is_quantised_has_no_fp16_form(tmp_path):
    network = net([NODE("MatMul", ["x", "w"], ["y"], name="layer")], [4, 6], {"w": w(6, 5)})
    fp32 = models_of(tmp_path, network)
    int8 = quantize(fp32, None, feeds(network))
    with pytest.raises(ConfigError, match="the networks are int8"):
        to_fp16(int8, feeds(network))
    brought = OnnxModels(recipe=fp32.recipe, precision="fp32", models=int8.models)
    assert "quantised already" in to_fp16(brought, feeds(network)).skipped["s"]


def test_fp16_is_packed_for_tensorrt_and_passes_its_golden_test(tmp_path):
    recipe = recipe_in(tmp_path, RECIPE + '[export]\nprecisions = ["fp32", "fp16", "int8"]\n')
    networks = {"image_encoder": encoder([1, 1, 12, 14]), "audio_encoder": encoder([1, 15, 10]), "fusion": fusion()}
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models=networks)
    forms = [fp32, to_fp16(fp32, samples()), quantize(fp32, None, samples())]
    path = pack(tmp_path / "t.mmedge", recipe, forms, samples=samples())
    with load(path) as bundle:
        found = {(v.stage, v.target, v.precision) for v in bundle.manifest.variants}
        assert {t for _, t, p in found if p == "fp16"} == {"tensorrt"}
        assert {s for s, _, p in found if p == "fp16"} == set(networks)
        half = next(v for v in bundle.manifest.variants if v.precision == "fp16" and v.stage == "image_encoder")
        assert half.quantization.sqnr_db > 40
        assert max(half.tolerance.values()) < 0.05
