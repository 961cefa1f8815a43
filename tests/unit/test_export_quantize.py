"""INT8 comes out in the one form TensorRT takes, where it should be, and costs what is reported."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import CheckError, ConfigError
from mmedge.export import Recipe, compare, quantize
from mmedge.export.int8.compare import Comparison, TaskComparison
from mmedge.export.int8.qdq import choose, insert_qdq
from mmedge.export.int8.ranges import RangeCollector
from mmedge.export.onnx.lint import lint
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.recordings import RawSamples
from mmedge.export.report import int8_nodes, quantization_report, sqnr_db

pytestmark = pytest.mark.arithmetic


def weights(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def make(nodes: str, inputs: dict, outputs: dict, constants: dict) -> onnx.ModelProto:
    """``nodes``: one line each, ``outputs = Op inputs; attribute=value``; node names are those of the output."""
    made = []
    for line in nodes.strip().splitlines():
        left, _, right = line.strip().partition(" = ")
        call, _, options = right.partition("; ")
        op, *names = call.split()
        attributes = {k: np.array(eval(v)).tolist() for k, _, v in (o.partition("=") for o in options.split("; ") if o)}
        made.append(helper.make_node(op, names, left.split(), name=f"{left}/{op}", **attributes))
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def encoder() -> onnx.ModelProto:
    """Convolutions, a depthwise one, a residual addition, a pool, global average, Gemm, Softmax."""
    return make(
        """
        c1 = Conv x w1 b1; pads=[1,1,1,1]
        r1 = Relu c1
        p1 = MaxPool r1; kernel_shape=[2,2]; strides=[2,2]
        c2 = Conv p1 w2; pads=[1,1,1,1]; group=8
        r2 = Relu c2
        c3 = Conv r2 w3
        s = Add c3 p1
        r3 = Relu s
        g = GlobalAveragePool r3
        f = Flatten g
        embedding = Gemm f w4 b4; transB=1
        """,
        {"x": [1, 1, 16, 16]},
        {"embedding": [1, 6]},
        {
            "w1": weights(8, 1, 3, 3),
            "b1": weights(8, 1).ravel(),
            "w2": weights(8, 1, 3, 3),
            "w3": weights(8, 8, 1, 1),
            "w4": weights(6, 8),
            "b4": weights(6, 1).ravel(),
        },
    )


def fusion(gain: float = 1.0) -> onnx.ModelProto:
    """A head over an embedding gated by presence, a mixture of its probabilities, and a table of the mask."""
    return make(
        """
        has = Slice present zero one one
        gated = Mul image has
        scaled = Mul gated gain
        logits = Gemm scaled w b; transB=1
        p = Softmax logits
        rest = Sub one_f has
        spare = Mul rest none
        mix = Add p spare
        pair = Concat mix mix; axis=1
        bias = MatMul present table
        safe = Add pair bias
        digit = Log safe
        """,
        {"image": [1, 6], "present": [1, 2]},
        {"digit": [1, 6]},
        {
            "gain": np.array([[gain, 1, 1, 1, 1, 1]], np.float32),
            "w": weights(3, 6) * np.array([1 / gain, 1, 1, 1, 1, 1], np.float32) * 20,
            "b": np.zeros(3, np.float32),
            "table": np.full((2, 6), 0.01, np.float32),
            "none": np.full((1, 3), 0.1, np.float32),
            "zero": np.array([0], np.int64),
            "one": np.array([1], np.int64),
            "one_f": np.float32(1),
        },
    )


RECIPE = """
name = "t"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [16, 16]
frame = [32, 32]
color = "gray"
mean = [0.5]
std = [0.5]
[inputs.imu]
modality = "tensor"
shape = [1, 2]
[model]
factory = "unused:make"
[stages.encoder]
inputs = { x = "image" }
outputs = { embedding = ["batch", 6] }
[stages.fusion]
inputs = { image = "encoder.embedding", present = "@present" }
outputs = { digit = ["batch", 6] }
[tasks.t]
kind = "classification"
output = "fusion.digit"
labels = ["a", "b", "c", "d", "e", "f"]
[sync]
trigger = "image"
"""


@pytest.fixture
def fp32(tmp_path) -> OnnxModels:
    (tmp_path / "r.toml").write_text(RECIPE)
    models = {"encoder": encoder(), "fusion": fusion()}
    return OnnxModels(recipe=Recipe.load(tmp_path / "r.toml"), precision="fp32", models=models)


def samples(count: int = 60) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    bright = rng.uniform(0, 200, (count, 1, 1, 1))
    frames = (bright + rng.uniform(0, 55, (count, 32, 32, 1))).astype(np.uint8)
    return [{"image": f[None], "imu": rng.normal(size=(1, 2)).astype(np.float32)} for f in frames]


def quantised(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], masks: set[str]) -> onnx.ModelProto:
    choice = choose(model, masks)
    collector = RangeCollector(model, choice.tensors)
    for feed in feeds:
        collector(feed)
    return insert_qdq(model, choice.nodes, collector.thresholds("max", 1.0))


def test_weighted_nodes_residuals_and_pools_are_chosen():
    assert choose(encoder(), set()).nodes == (
        "c1/Conv",
        "c2/Conv",
        "c3/Conv",
        "s/Add",
        "g/GlobalAveragePool",
        "embedding/Gemm",
    )


def test_probabilities_masks_and_sums_behind_the_last_layer_stay_float():
    assert choose(fusion(), {"present"}).nodes == ("logits/Gemm",)


@pytest.fixture(scope="module")
def int8() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    return quantised(encoder(), [{"x": rng.normal(size=(1, 1, 16, 16)).astype(np.float32)} for _ in range(8)], set())


def test_pairs_have_the_flavour_that_tensorrt_takes(int8):
    assert lint(int8) == []
    graph = int8.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    producers = {o: n for n in graph.node for o in n.output}
    assert int8_nodes(int8) == (4, 4)
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
        if node.op_type in ("Conv", "Gemm"):
            weight = producers[node.input[1]]
            channels = {"Conv": 0, "Gemm": 0}[node.op_type]
            stored = constants[weight.input[0]]
            assert stored.dtype == np.int8
            assert constants[weight.input[1]].shape == (stored.shape[channels],)
            for bias in node.input[2:]:
                assert constants[bias].dtype == np.float32


def test_residual_inputs_have_their_own_pairs_and_outputs_have_none(int8):
    producers = {o: n for n in int8.graph.node for o in n.output}
    add = next(n for n in int8.graph.node if n.op_type == "Add")
    assert [producers[name].op_type for name in add.input] == ["DequantizeLinear"] * 2
    assert producers["embedding"].op_type == "Gemm"
    pairs = [n.input[0] for n in int8.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in producers]
    assert len(pairs) == len(set(pairs)), "a pair is shared"


def test_quantised_network_answers_nearly_the_same(int8):
    rng = np.random.default_rng(2)
    exact = OnnxRuntimeEngine(encoder().SerializeToString())
    coarse = OnnxRuntimeEngine(int8.SerializeToString())
    feeds = [{"x": rng.normal(size=(1, 1, 16, 16)).astype(np.float32)} for _ in range(20)]
    want, got = (np.stack([run(f)["embedding"] for f in feeds]) for run in (exact, coarse))
    assert 20 < sqnr_db(want, got) < 60


def test_quantize_reports_rule_frames_and_noise(fp32):
    result = quantize(fp32, fp32.recipe.calibration, samples())
    assert result.precision == "int8"
    notes = result.quantization["encoder"]
    assert (notes.rule, notes.frames, notes.dropped, notes.float_nodes) == ("frame-quantile", 40, (), ())
    assert notes.sqnr_db == pytest.approx(result.sqnr_db["encoder.embedding"], abs=0.01)
    assert notes.sqnr_db > 20
    report = quantization_report(fp32, result)
    assert report.coverage == pytest.approx(5 / 6)  # the table of the mask stays float
    assert [s.stage for s in report.stages] == ["encoder", "fusion"]
    assert report.to_dict()["schema"] == "mmedge.quantization/1"


def test_glitches_are_left_out_and_named(fp32, caplog):
    arrays = samples()
    for index in (3, 17):
        arrays[index]["imu"] = arrays[index]["imu"] * 1000 + 1000
    with caplog.at_level(logging.WARNING):
        result = quantize(fp32, None, RawSamples.split(arrays, "session2.mkv"))
    assert result.quantization["encoder"].dropped == ("session2.mkv 3", "session2.mkv 17")
    assert result.quantization["encoder"].frames == 38
    assert "session2.mkv 17" in caplog.text


def test_a_fusion_stage_that_int8_would_ruin_stays_float(fp32, caplog):
    # One feature is ten thousand times larger than the others: 8 bits leave nothing of those.
    hard = fusion(gain=1e4)
    fp32.models["fusion"].CopyFrom(hard)
    with caplog.at_level(logging.WARNING):
        result = quantize(fp32, None, samples())
    assert "fusion" not in result.models
    assert "at least 20 wanted" in result.skipped["fusion"]
    assert result.quantization["fusion"].float_nodes == ("logits/Gemm",)
    assert result.quantization["fusion"].sqnr_db is None
    assert "'fusion' is left as it is" in caplog.text
    assert result.models["encoder"] != fp32.models["encoder"]


def test_a_stage_with_nothing_to_quantise_stays_as_it_is(fp32):
    mean = make(
        "sum = Add image image\ndigit = Softmax sum",
        {"image": [1, 6], "present": [1, 2]},
        {"digit": [1, 6]},
        {},
    )
    fp32.models["fusion"].CopyFrom(mean)
    result = quantize(fp32, None, samples())
    assert "fusion" not in result.models
    assert result.skipped["fusion"] == "it has no layer with weights"


def test_what_is_int8_already_is_refused(fp32):
    once = quantize(fp32, None, samples())
    with pytest.raises(ConfigError, match="already int8"):
        quantize(once, None, samples())


def test_compare_passes_int8_and_refuses_a_broken_network(fp32):
    int8 = quantize(fp32, None, samples(90))
    comparison = compare(fp32, int8, None, samples(90))
    assert {row.present for row in comparison.rows} == {("image", "imu"), ("image",), ("imu",)}
    assert all(row.samples == 30 for row in comparison.rows)
    comparison.raise_for_status(max_drop_points=100)
    assert compare(fp32, fp32, None, samples(9)).agreement == {"t": 1.0}
    document = comparison.to_dict()
    assert document["schema"] == "mmedge.comparison/1"
    assert msgspec.json.decode(msgspec.json.encode(comparison), type=type(comparison)) == comparison

    broken = onnx.ModelProto()
    broken.CopyFrom(fp32.models["fusion"])
    for node in broken.graph.node:
        if node.op_type == "Log":
            node.op_type = "Neg"
    other = OnnxModels(recipe=fp32.recipe, precision="int8", models={**fp32.models, "fusion": broken})
    with pytest.raises(CheckError, match="int8 gives another label than fp32") as caught:
        compare(fp32, other, None, samples()).raise_for_status(max_drop_points=0.3)
    assert caught.value.where == "task 't'"


def loss(**rows: tuple[int, float]) -> Comparison:
    """``image_audio=(samples, agreement)`` with the names of the present inputs joined."""
    return Comparison(
        a="fp32",
        b="int8",
        rows=tuple(
            TaskComparison(
                task="t",
                present=tuple(mask.split("_")),
                samples=count,
                agreement=share,
                score_difference=0.1,
                sqnr_db=30.0,
            )
            for mask, (count, share) in rows.items()
        ),
    )


def test_a_mask_cannot_hide_its_loss_behind_the_others():
    hidden = loss(image_audio=(400, 1.0), image=(400, 0.93), audio=(400, 1.0), text=(400, 1.0))
    assert 100 * (1 - hidden.agreement["t"]) < 2.0
    with pytest.raises(CheckError, match=r"on 1\.75 %.*, 2 allowed; worst with image: 7\.00 %, 6 allowed"):
        hidden.raise_for_status(max_drop_points=2.0)
    hidden.raise_for_status(max_drop_points=2.5)
    everywhere = loss(image_audio=(400, 0.97), image=(400, 0.97), audio=(400, 0.97))
    with pytest.raises(CheckError, match=r"on 3\.00 %.*, 2 allowed; worst with image \+ audio: 3\.00 %, 6 allowed"):
        everywhere.raise_for_status(max_drop_points=2.0)


@pytest.mark.parametrize(("count", "flips"), [(50, 3), (400, 4)])
def test_a_label_or_two_of_one_mask_may_always_differ(count, flips):
    others = dict.fromkeys("abcdefgh", (400, 1.0))
    loss(image=(50, 1 - 1 / 50), **others).raise_for_status(max_drop_points=0.3)
    loss(image=(50, 1 - 2 / 50), **others).raise_for_status(max_drop_points=0.3)
    with pytest.raises(CheckError, match="worst with image: "):
        loss(image=(count, 1 - flips / count), **others).raise_for_status(max_drop_points=0.3)


def test_a_limit_that_is_met_exactly_is_kept():
    loss(image=(1000, 1 - 9 / 1000), image_audio=(4000, 1.0)).raise_for_status(max_drop_points=0.3)  # 3 * 0.3 < 0.9
    loss(image=(1000, 1 - 3 / 1000)).raise_for_status(max_drop_points=0.3)
    with pytest.raises(CheckError):
        loss(image=(1000, 1 - 10 / 1000), image_audio=(4000, 1.0)).raise_for_status(max_drop_points=0.3)


def test_a_mask_of_few_samples_does_not_hide_one_that_lost_too_many():
    found = loss(few=(10, 0.8), many=(400, 0.95), image_audio=(4000, 1.0))
    with pytest.raises(CheckError, match=r"worst with many: 5\.00 %, 1\.5 allowed"):
        found.raise_for_status(max_drop_points=0.5)


def test_the_worst_mask_is_reported_per_task():
    found = loss(image_audio=(400, 0.99), image=(400, 0.965), audio=(200, 0.98))
    assert found.worst["t"].present == ("image",)
    assert found.to_dict()["worst"] == {"t": {"present": ("image",), "samples": 400, "agreement": 0.965}}
    assert found.table().caption == "t: 97.8 % over all, 96.5 % with image"


def test_too_few_samples_are_refused(fp32):
    with pytest.raises(ConfigError, match="not enough"):
        quantize(fp32, None, samples(2))


def test_missing_recordings_say_how_to_make_some(fp32):
    with pytest.raises(ConfigError, match="names no recordings") as caught:
        quantize(fp32)
    assert "mmedge record" in caught.value.fix
