"""FP8, and weights of four bits: what is stored, what it computes, what stays float and why, what TensorRT builds."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper

from mmedge.bundle import load
from mmedge.engine.build_parent import target_capability
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_variant
from mmedge.engine.tensorrt_loader import load_tensorrt
from mmedge.errors import ConfigError, EngineError
from mmedge.export import half_rest, pack, quantize
from mmedge.export.int8.compare import compare_all
from mmedge.export.int8.forms import FORMS, INT4_BLOCK, int4_blocks
from mmedge.export.judge import judge
from mmedge.export.onnx.state import quantization_of
from mmedge.export.report import int8_nodes, quantization_report, sqnr_db
from mmedge.fusion import load_graph
from mmedge.fusion.choice import candidates
from mmedge.fusion.doors import DOORS
from mmedge.types import TENSORRT_ORDER, Precision
from tests.doors import OrtDoor
from tests.unit.test_export_kinds import NODE, RECIPE, F, feeds, models_of, net, w
from tests.unit.test_export_pack import recipe_in

E4M3 = ml_dtypes.float8_e4m3fn


def product(op: str, rows: int = 128) -> onnx.ModelProto:
    """A product with a bias: MatMul and Add, or Gemm with its weights as they are or transposed."""
    shape = (10, rows) if op == "Gemm transposed" else (rows, 10)
    nodes = (
        [NODE("MatMul", ["x", "w"], ["m"], name="layer"), NODE("Add", ["m", "b"], ["y"], name="bias")]
        if op == "MatMul"
        else [NODE("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=int(op == "Gemm transposed"))]
    )
    return net(nodes, [4, rows], {"w": w(*shape), "b": w(10)})


def small_net() -> onnx.ModelProto:
    """Convolutions with an addition, and a head."""
    nodes = [
        NODE("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1"], name="relu1"),
        NODE("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4),
        NODE("Add", ["c2", "r1"], ["s"], name="add"),
        NODE("Relu", ["s"], ["r2"], name="relu2"),
        NODE("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        NODE("Flatten", ["g"], ["f"], name="flat"),
        NODE("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {"w1": w(64, 3, 3, 3), "w2": w(64, 64, 3, 3, seed=1), "w3": w(10, 64, seed=3)}
    return net(nodes, [1, 3, 12, 12], {**weights, "b1": w(64), "b2": w(64, seed=2), "b3": w(10, seed=4)})


@pytest.mark.arithmetic
def test_fp8_computes_what_e4m3_says() -> None:
    model, given_ = product("MatMul"), feeds(product("MatMul"), 3)
    quantised, _ = FORMS["fp8"].insert(_raised(model, 19), ["layer"], {"x": 3.0}, "t")
    weight, bias = w(128, 10), w(10)
    scale = F(np.abs(weight).max() / 448)
    stored = (weight / scale).astype(E4M3).astype(F) * scale
    own = F(3.0 / 448)
    with judge(quantised) as engine:
        for feed in given_:
            data = np.clip(feed["x"] / own, -448, 448).astype(E4M3).astype(F) * own
            np.testing.assert_allclose(engine(feed)["y"], data @ stored + bias, atol=2e-5)
    assert quantization_of(quantised)["types"] == {"fp8": 2}


@pytest.mark.arithmetic
@pytest.mark.parametrize("kind", ["Relu", "Clip"])
def test_what_cuts_off_in_front_of_a_pair_is_computed(kind: str) -> None:
    """ONNX Runtime's optimiser took it for part of the rounding, as it is with unsigned integers: 16 % off."""
    limits = ["low", "high"] if kind == "Clip" else []
    nodes = [
        NODE("Conv", ["x", "v"], ["c"], name="first"),
        NODE(kind, ["c", *limits], ["r"], name="cut"),
        NODE("Conv", ["r", "u"], ["y"], name="second"),
    ]
    weights = {"v": w(8, 3, 1, 1), "u": w(4, 8, 1, 1), "low": F(0), "high": F(6)}
    model = _raised(net(nodes, [1, 3, 8, 8], weights), 19)
    quantised, _ = FORMS["fp8"].insert(model, ["second"], {"r": 4.0}, "t")
    (feed,) = feeds(model, 1)
    made = np.einsum("oi,nihw->nohw", weights["v"][:, :, 0, 0], feed["x"]).clip(0, 6 if limits else None)
    scale, own = F(np.abs(weights["u"]).max() / 448), F(4 / 448)
    stored = (weights["u"][:, :, 0, 0] / scale).astype(E4M3).astype(F) * scale
    data = np.clip(made / own, -448, 448).astype(E4M3).astype(F) * own
    with judge(quantised) as engine:
        want = np.einsum("oi,nihw->nohw", stored, data)
        assert sqnr_db(want, engine(feed)["y"]) > 45  # but for numbers between two steps


@pytest.mark.arithmetic
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm transposed"])
def test_int4_stores_blocks_along_what_is_summed(op: str) -> None:
    model = product(op)
    quantised, _ = FORMS["int4"].insert(_raised(model, 21), ["layer"], {}, "t")
    (node,) = (node for node in quantised.graph.node if node.op_type == "DequantizeLinear")
    tensors = {tensor.name: tensor for tensor in quantised.graph.initializer}
    assert tensors[node.input[0]].data_type == TensorProto.INT4
    axis = int(op == "Gemm transposed")
    scale = numpy_helper.to_array(tensors[node.input[1]])
    assert scale.shape[axis] == 128 // INT4_BLOCK
    stored = numpy_helper.to_array(tensors[node.input[0]]).astype(F) * scale.repeat(INT4_BLOCK, axis)
    feed = feeds(model, 1)[0]
    want = feed["x"] @ (stored.T if axis else stored) + w(10)
    with judge(quantised) as engine:
        np.testing.assert_allclose(engine(feed)["y"], want, atol=2e-5)
    assert quantised.ByteSize() < 0.35 * model.ByteSize()


@given(
    arrays.arrays(F, st.tuples(st.sampled_from([64, 128]), st.integers(1, 3)), elements=st.floats(-4, 4, width=32)),
    st.booleans(),
)
def test_a_block_is_never_worse_than_by_its_largest_weight(weight: np.ndarray, turned: bool) -> None:
    axis = int(turned)
    given_ = np.ascontiguousarray(weight.T) if turned else weight
    codes, scale = int4_blocks(given_, axis, np.linspace(0.7, 1, 13, dtype=F))
    assert codes.shape == given_.shape
    assert scale.shape[axis] == given_.shape[axis] // INT4_BLOCK
    assert (scale > 0).all()
    error = np.square(codes.astype(F) * scale.repeat(INT4_BLOCK, axis) - given_).sum()
    blocks = np.moveaxis(given_, axis, -1).reshape(-1, INT4_BLOCK)
    step = np.maximum(np.abs(blocks).max(-1, keepdims=True) / F(7), F(1e-30))
    assert error <= np.square(np.rint(blocks / step) * step - blocks).sum() * 1.001 + 1e-6


@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_what_stays_float_is_named_with_its_reason(tmp_path: Path, precision: str, caplog) -> None:
    fp32 = models_of(tmp_path, small_net())
    found = quantize(fp32, None, feeds(fp32.models["s"], 40), precision=precision)
    assert found.precision == precision
    assert int8_nodes(found.models["s"]) == ((3, 3) if precision == "fp8" else (1, 3))
    assert found.sqnr_db["s.y"] > 20
    notes = found.quantization["s"]
    assert notes.float_nodes == (() if precision == "fp8" else ("first", "second"))
    if precision == "int4":
        assert notes.rule in ("blocks of 64, max", "blocks of 64, mse")
        assert "first and 1 more stay float in int4: Conv does not sum along its last two axes" in caplog.text
    report = quantization_report(fp32, found)
    assert (report.precision, report.table().title) == (precision, precision.upper())


@pytest.mark.parametrize(
    ("rows", "reason"), [(96, "it sums 96 products, not a multiple of 64"), (48, "it sums 48 products")]
)
def test_a_network_without_blocks_has_no_int4_form(tmp_path: Path, rows: int, reason: str) -> None:
    fp32 = models_of(tmp_path, product("MatMul", rows))
    found = quantize(fp32, None, feeds(fp32.models["s"]), precision="int4")
    assert not found.models
    assert reason in found.skipped["s"]


def test_an_older_opset_is_raised_as_far_as_the_form_needs(tmp_path: Path) -> None:
    fp32 = models_of(tmp_path, product("MatMul"))
    assert fp32.models["s"].opset_import[0].version == 18
    for precision, opset in (("int8", 18), ("fp8", 19), ("int4", 21)):
        found = quantize(fp32, None, feeds(fp32.models["s"]), precision=precision)  # type: ignore[arg-type]
        assert found.models["s"].opset_import[0].version == opset


TASK = '[tasks.t]\nkind = "classification"\noutput = "s.y"\nlabels = {labels}\n[sync]'


def all_forms(tmp_path: Path, text: str = ""):
    out = RECIPE.format(shape=[1, 3, 12, 12], dtype="float32", out=[1, 10]).replace("[tasks]\n", "")
    out = out.replace("[sync]", TASK.format(labels=[str(k) for k in range(10)]))
    recipe = recipe_in(tmp_path, out + f'[export]\nprecisions = ["fp32", "int8", "fp8", "int4"]\n{text}')
    fp32 = models_of(tmp_path, small_net())
    fp32 = type(fp32)(recipe=recipe, precision="fp32", models=fp32.models)
    samples = feeds(fp32.models["s"], 120)
    kinds = ("int8", "fp8", "int4")
    forms = [half_rest(quantize(fp32, None, samples, precision=k), fp32, samples) for k in kinds]  # type: ignore[arg-type]
    return recipe, fp32, forms, samples


def test_every_form_is_packed_built_and_simulated(tmp_path: Path, caplog) -> None:
    recipe, fp32, forms, samples = all_forms(tmp_path)
    rows = compare_all(fp32, forms, samples=samples)
    assert [row.b for row in rows] == ["int8", "int8 with fp16", "fp8 with fp16", "int4 with fp16"]
    for row in rows:
        row.raise_for_status(5.0)
    path = pack(tmp_path / "t.mmedge", recipe, [fp32, *forms], samples=samples)
    assert "there is no fp8 form for target 'cpu'" in caplog.text
    with load(path) as bundle:
        found = {(v.target, v.precision): v for v in bundle.manifest.variants}
        assert {target for target, precision in found if precision in ("fp8", "int4")} == {"tensorrt"}
        assert found["tensorrt", "int8"].quantization.rest == "fp16"
        assert found["cpu", "int8"].quantization.rest == "fp32"
        for precision in ("fp8", "int4"):
            graph = load_graph(bundle, backend="onnxruntime", precision=precision)  # as written, with its self-test
            graph.close()
            assert [v.precision for _, v in candidates(bundle, "s", "onnxruntime", precision)] == [precision]
        pytest.importorskip("tensorrt_rtx")
        for (target, precision), variant in found.items():
            if target == "tensorrt" and precision != "fp32":
                raw, sha = bundle.read(variant.file), bundle.manifest.files[variant.file].sha256
                built = compile_variant(
                    raw, sha, "s", precision, cache=EngineCache(tmp_path), module="tensorrt_rtx"
                ).build
                assert built.compute_capability == ("SM89" if precision == "fp8" else "SM86")
                assert (built.int8_coverage, built.quantized_layers) == (1.0, 1 if precision == "int4" else 3)


class OlderDoor(OrtDoor):
    """A device whose GPU has neither 8-bit kernels nor FP8."""

    def build(self, bundle, variant, progress=None, limits=None, options=None):
        if variant.precision in ("int8", "fp8"):
            raise EngineError(f"SM70 has no {variant.precision.upper()}", where=variant.file, fix="none")
        return super().build(bundle, variant, progress, limits, options)


def test_a_device_takes_the_next_precision_that_it_has(tmp_path: Path, monkeypatch, caplog) -> None:
    assert set(TENSORRT_ORDER) == set(get_args(Precision))
    recipe, fp32, forms, samples = all_forms(tmp_path)
    path = pack(tmp_path / "t.mmedge", recipe, [fp32, *forms], samples=samples)
    with load(path) as bundle:
        for door, serves in ((OrtDoor(tmp_path / "new"), "int8"), (OlderDoor(tmp_path / "old"), "int4")):
            monkeypatch.setitem(DOORS, "tensorrt", door)
            found = [v.precision for backend, v in candidates(bundle, "s", "auto", None) if backend == "tensorrt"]
            assert found == ["int8", "fp8", "int4", "fp32"]
            graph = load_graph(bundle)
            assert graph.stages[0].file == f"s.trt.{serves}.onnx"
            graph.close()
    assert "tensorrt fp8 is not used: SM70 has no FP8" in caplog.text


def test_a_precision_that_no_target_takes_is_an_error(tmp_path: Path) -> None:
    recipe, fp32, forms, samples = all_forms(tmp_path, 'targets = ["cpu"]\n')
    assert not forms[0].half, "CPUs keep their rest in float32"
    with pytest.raises(ConfigError, match="fp8 is not packed for cpu") as error:
        pack(tmp_path / "t.mmedge", recipe, [fp32, *forms], samples=samples)
    assert "add tensorrt to export.targets" in str(error.value.fix)


def test_fp8_is_built_for_what_has_it_and_refused_by_name_elsewhere() -> None:
    pytest.importorskip("tensorrt_rtx")
    trt = load_tensorrt("tensorrt_rtx")
    assert target_capability(trt, "SM120", "fp8") == "SM120"
    with pytest.raises(EngineError, match="SM86 has no FP8, which GPUs have from SM89 on"):
        target_capability(trt, "SM86", "fp8")


def test_e4m3_of_the_form_is_less_exact_than_int8_and_more_than_nothing() -> None:
    """Three bits of mantissa: the same ranges give some 30 dB."""
    model = _raised(product("MatMul"), 19)
    given_ = feeds(model, 20)
    with judge(model) as exact, judge(FORMS["fp8"].insert(model, ["layer"], {"x": 5.0}, "t")[0]) as coarse:
        noise = sqnr_db(np.stack([exact(f)["y"] for f in given_]), np.stack([coarse(f)["y"] for f in given_]))
    assert 25 < noise < 40


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    raised: onnx.ModelProto = onnx.version_converter.convert_version(model, opset)
    return raised
