"""The same numbers on every CPU: what judges INT8 computes what is written; 8-bit kernels that serve never saturate.

Run natively and emulated with fewer instruction sets: ``make check`` does both.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import mmedge
from mmedge.bundle.archive import write_archive
from mmedge.bundle.manifest import File
from mmedge.engine.cpu import instruction_sets, saturates_pairs
from mmedge.engine.onnxruntime import OnnxRuntimeEngine, session_options
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.int8.qdq import choose, insert_qdq
from mmedge.export.int8.ranges import RangeCollector
from mmedge.export.judge import judge
from mmedge.export.report import sqnr_db
from mmedge.fusion import check_variants, load_graph
from mmedge.fusion.choice import candidates

pytestmark = pytest.mark.arithmetic
ROOT = Path(__file__).parents[2]
ASSETS = Path(mmedge.__file__).parent / "assets"


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, bool, np.ndarray, np.ndarray]:
    """Operator, whether its bias is there, int8 weights and data at full range: pairs of products pass 16 bits."""
    operator = draw(st.sampled_from(["Conv", "MatMul", "Gemm"]))
    channels, outputs = 4 * draw(st.integers(1, 16)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extreme = draw(st.floats(0, 1))

    def values(*shape: int) -> np.ndarray:
        loud = rng.choice([-127, 127], shape)
        return np.where(rng.random(shape) < extreme, loud, rng.integers(-127, 128, shape)).astype(np.int8)

    if operator == "Conv":
        return operator, draw(st.booleans()), values(outputs, channels, 3, 3), values(1, channels, 5, 5)
    return operator, draw(st.booleans()) and operator == "Gemm", values(channels, outputs), values(1, channels)


def written(operator: str, bias: np.ndarray | None, weight: np.ndarray, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One layer as ``insert_qdq`` writes it: x in units of 1/127, weights of 1/100 per channel."""
    axis = 0 if operator == "Conv" else 1
    scales = np.full(weight.shape[axis], 0.01, np.float32)
    constants = {
        "s": np.float32(1 / 127),
        "z": np.int8(0),
        "w": weight,
        "ws": scales,
        "wz": np.zeros(scales.shape, np.int8),
    }
    inputs = ["d", "wd"]
    if bias is not None:
        constants["b"] = bias
        inputs.append("b")
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wd", axis=axis),
        node(operator, inputs, ["y"], name="layer"),
    ]
    float_ = TensorProto.FLOAT
    out = [1, weight.shape[axis], *([3, 3] if operator == "Conv" else [])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", float_, shape)],
        [helper.make_tensor_value_info("y", float_, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def exact(operator: str, bias: np.ndarray | None, weight: np.ndarray, data: np.ndarray) -> np.ndarray:
    """What is written, in float64."""
    x = data.astype(np.float64) * np.float64(np.float32(1 / 127))
    w = weight.astype(np.float64) * np.float64(np.float32(0.01))
    if operator == "Conv":
        windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
        y = np.einsum("chwij,ocij->ohw", windows, w)[None]
        return y if bias is None else y + bias[:, None, None]
    return x @ w if bias is None else x @ w + bias


def off(want: np.ndarray, got: np.ndarray) -> float:
    return float(np.abs(want - got).max() / max(np.abs(want).max(), 1e-6))


@settings(max_examples=40, deadline=None)
@given(layers())
def test_the_judge_computes_what_is_written_and_kernels_that_serve_do_not_saturate(layer):
    operator, biased, weight, data = layer
    x = data.astype(np.float32) / np.float32(127)
    bias = None
    if biased:
        bias = np.linspace(-1, 1, weight.shape[0 if operator == "Conv" else 1]).astype(np.float32)
    model = written(operator, bias, weight, data.shape)
    want = exact(operator, bias, weight, data)
    # Where sums cancel, what is left is judged against what was summed.
    scale = max(float(np.abs(want).max()), 0.01 * weight.size / want.shape[1])

    def distance(engine: OnnxRuntimeEngine) -> float:
        return float(np.abs(engine({"x": x})["y"] - want).max()) / scale

    assert distance(judge(model)) < 1e-4
    own = to_cpu_form(model)
    # Its weights are rounded once more where pairs of products would not fit: kernels compute what is written there.
    served, read = OnnxRuntimeEngine(own.SerializeToString())({"x": x})["y"], judge(own)({"x": x})["y"]
    assert float(np.abs(served - read).max()) / scale < 1e-4
    whole = to_cpu_form(model, pairs=False)
    assert distance(judge(whole)) < 1e-4
    assert distance(OnnxRuntimeEngine(whole.SerializeToString())) < 1e-4


def test_ready_made_8_bit_operators_do_not_saturate_either():
    weight, data = np.full((64, 8), 127, np.int8), np.full((1, 64), 255, np.uint8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="m")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    want = data.astype(np.int64) @ weight
    for engine in (judge(model), OnnxRuntimeEngine(model.SerializeToString())):
        assert np.array_equal(engine({"x": data})["y"], want)


def chain(seed: int, channels: int = 32) -> onnx.ModelProto:
    """Convolutions with Relu, a residual sum, a pool and a Gemm, of random weights."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="r1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="c2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["a"], name="a"),
        node("Relu", ["a"], ["r2"], name="r2"),
        node("GlobalAveragePool", ["r2"], ["g"], name="g"),
        node("Flatten", ["g"], ["f"], name="f"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="y", transB=1),
    ]
    constants = {
        "w1": weights(channels, 3, 3, 3),
        "b1": weights(channels, 1).ravel(),
        "w2": weights(channels, channels, 3, 3),
        "b2": weights(channels, 1).ravel(),
        "w3": weights(6, channels),
        "b3": weights(6, 1).ravel(),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_cpu_form_is_fused_no_coarser_than_tensorrts_and_served_as_it_is_judged(seed, tmp_path):
    fp32 = chain(seed)
    rng = np.random.default_rng(seed)
    feeds = [{"x": rng.uniform(-1, 1, (1, 3, 12, 12)).astype(np.float32)} for _ in range(24)]
    choice = choose(fp32, set())
    collector = RangeCollector(fp32, choice.tensors)
    for feed in feeds[:12]:
        collector(feed)
    int8 = insert_qdq(fp32, choice.nodes, collector.thresholds("max", 1.0))
    own, whole = to_cpu_form(int8), to_cpu_form(int8, pairs=False)

    def answers(engine: OnnxRuntimeEngine) -> np.ndarray:
        return np.stack([engine(feed)["y"] for feed in feeds[12:]])

    want, tensorrt, judged, kept = (answers(judge(model)) for model in (fp32, int8, own, whole))
    assert sqnr_db(want, kept) > sqnr_db(want, tensorrt) - 1
    assert sqnr_db(want, judged) > min(sqnr_db(want, tensorrt) - 1, 35)  # weights rounded for pairs of products
    assert off(kept, answers(OnnxRuntimeEngine(whole.SerializeToString()))) < 0.05
    assert off(judged, answers(OnnxRuntimeEngine(own.SerializeToString()))) < 0.05

    def kinds(as_written: bool) -> list[str]:
        """The operators that ONNX Runtime makes of it."""
        options = session_options(as_written=as_written)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(own.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    served = kinds(as_written=False)
    assert served.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv", "Gemm", "Relu"} & set(served)
    assert not [kind for kind in kinds(as_written=True) if kind.startswith(("QLinear", "QGemm"))]


def test_a_network_without_pairs_stays_as_it_is():
    assert judge(to_cpu_form(chain(0)))({"x": np.ones((1, 3, 12, 12), np.float32)})["y"] == pytest.approx(
        judge(chain(0))({"x": np.ones((1, 3, 12, 12), np.float32)})["y"], abs=1e-6
    )


@pytest.mark.parametrize("name", ["digits/digits.mmedge", "impacts/impacts.mmedge"])
def test_shipped_bundles_pass_their_self_test_here(name):
    with mmedge.load(ASSETS / name) as bundle:
        rows = check_variants(bundle)
    assert rows
    assert [row for row in rows if row["error"]] == []


def test_on_a_cpu_fp32_comes_first_and_int8_that_is_asked_for_is_weighed_beside_it(caplog):
    with mmedge.load(ASSETS / "digits/digits.mmedge") as bundle:
        order = [(backend, v.target, v.precision) for backend, v in candidates(bundle, "fusion", "onnxruntime", None)]
        assert order == [("onnxruntime", "cpu", "fp32"), ("onnxruntime", "cpu", "int8")]
        with caplog.at_level(logging.WARNING):
            graph = load_graph(bundle, backend="onnxruntime", precision="int8")
        served = graph.served
        graph.close()
    assert all(file.startswith("onnxruntime ") and file.endswith(".cpu.int8.onnx") for file in served.values()), served
    said = re.search(r"int8 on this CPU \(.*\): ([\d.]+) ms a pass, fp32 ([\d.]+) ms; .* up to ([\d.]+) %", caplog.text)
    assert said is not None, caplog.text
    int8_ms, fp32_ms, percent = map(float, said.groups())
    assert 0 < percent < 20
    if abs(int8_ms / fp32_ms - 1) > 0.02:  # what is printed is rounded
        assert ("leave --precision out" in caplog.text) == (int8_ms > fp32_ms)


def test_a_cpu_file_that_is_wrong_on_this_cpu_does_not_serve(tmp_path, caplog):
    """Its weights are changed as a saturating kernel would change its answers."""
    with mmedge.load(ASSETS / "digits/digits.mmedge") as bundle:
        manifest, members = bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files}
    name = "image_encoder.cpu.fp32.onnx"
    model = onnx.load_from_string(members[name])
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
    members[name] = model.SerializeToString()
    file = File(sha256=hashlib.sha256(members[name]).hexdigest(), bytes=len(members[name]))
    changed = msgspec.structs.replace(manifest, files={**manifest.files, name: file})
    with (
        mmedge.load(write_archive(tmp_path / "wrong.mmedge", changed, members)) as bundle,
        caplog.at_level(logging.WARNING),
    ):
        graph = load_graph(bundle, backend="onnxruntime")
        assert graph.served["image_encoder"] == "onnxruntime image_encoder.cpu.int8.onnx"
        graph.close()
    assert "onnxruntime fp32 is not used: self-test failed" in caplog.text


def test_instruction_sets_are_those_of_this_process():
    from numpy._core._multiarray_umath import __cpu_features__ as known  # asks the processor, too

    if platform.machine() != "x86_64":
        assert not saturates_pairs()
        return
    pairs = {"avx2": "AVX2", "fma": "FMA3", "avx512f": "AVX512F", "avx512_vnni": "AVX512VNNI"}
    assert {ours for ours in pairs if ours in instruction_sets()} == {ours for ours, its in pairs.items() if known[its]}
    assert saturates_pairs() == (not {"avx512_vnni", "avx_vnni"} & set(instruction_sets()))


def test_the_toolchain_runs_networks_in_one_place():
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "export").rglob("*.py")
        if re.search(r"\b(OnnxRuntimeEngine|InferenceSession|load_engine)\(", path.read_text(encoding="utf-8"))
    }
    # compare_files.py looks between layers, with the judge's options.
    assert found == {"export/judge.py", "export/compare_files.py"}
