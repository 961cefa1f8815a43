"""What is packed can be opened, tests itself on the runtime, and is the same file every time."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle import load
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_variant
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import CheckError, ConfigError
from mmedge.export import Recipe, pack, quantize
from mmedge.export.onnx.lint import lint
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.recipe import Export
from mmedge.export.recordings import RawSamples, raw_samples
from mmedge.export.report import coverage
from mmedge.fusion import load_graph
from mmedge.fusion.golden import self_test
from mmedge.fusion.stage import StageRunner

RECIPE = """
name = "t"
licence = "Apache-2.0"
seed = 3
[inputs.image]
modality = "image"
size = [12, 14]
frame = [48, 64]
reduce = 2
fit = "letterbox"
color = "gray"
mean = [0.5]
std = [0.25]
[inputs.audio]
modality = "audio"
sample_rate_hz = 8000
window_ms = 200
[inputs.audio.features]
kind = "log_mel"
n_fft = 256
window_samples = 200
hop_samples = 100
n_mels = 10
f_min_hz = 50
f_max_hz = 3800
[model]
factory = "unused:make"
[stages.image_encoder]
inputs = { x = "image" }
outputs = { embedding = ["batch", 6] }
[stages.audio_encoder]
inputs = { x = "audio" }
outputs = { embedding = ["batch", 6] }
[stages.fusion]
inputs = { image = "image_encoder.embedding", audio = "audio_encoder.embedding", present = "@present" }
outputs = { digit = ["batch", 3], agreement = ["batch", 1] }
[tasks.digit]
kind = "classification"
output = "fusion.digit"
labels = ["a", "b", "c"]
[tasks.agreement]
kind = "verification"
output = "fusion.agreement"
labels = ["no", "yes"]
[missing.audio]
policy = "zero"
[sync]
trigger = "image"
"""
METADATA = {
    "temperature": {"digit": 1.25},
    "validated_masks": [{"present": ["image", "audio"], "metric": "top1", "value": 0.97}],
    "seed": 11,
    "metrics": {"anything": 1},
}


def network(nodes: list[onnx.NodeProto], inputs: dict, outputs: dict, **constants: np.ndarray) -> onnx.ModelProto:
    def values(specs: dict) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in specs.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def encoder(shape: list[int]) -> onnx.ModelProto:
    node = helper.make_node
    return network(
        [
            node("Reshape", ["x", "planes"], ["p"], name="reshape"),
            node("Conv", ["p", "w"], ["c"], name="conv"),
            node("Relu", ["c"], ["r"], name="relu"),
            node("ReduceMean", ["r", "axes"], ["m"], name="mean", keepdims=0),
            node("Gemm", ["m", "v"], ["embedding"], name="gemm", transB=1),
        ],
        {"x": shape},
        {"embedding": [1, 6]},
        planes=np.array([1, 1, *shape[-2:]], np.int64),
        axes=np.array([2, 3], np.int64),
        w=weights(4, 1, 3, 3),
        v=weights(6, 4),
    )


def fusion() -> onnx.ModelProto:
    node = helper.make_node
    return network(
        [
            node("Concat", ["image", "audio"], ["e"], name="join", axis=1),
            node("Gemm", ["e", "w"], ["d"], name="digit", transB=1),
            node("ReduceMean", ["present", "axes"], ["share"], name="share"),
            node("Mul", ["d", "share"], ["digit"], name="gate"),
            node("Gemm", ["e", "v"], ["agreement"], name="agreement", transB=1),
        ],
        {"image": [1, 6], "audio": [1, 6], "present": [1, 2]},
        {"digit": [1, 3], "agreement": [1, 1]},
        axes=np.array([1], np.int64),
        w=weights(3, 12),
        v=weights(1, 12),
    )


def samples(count: int = 30) -> RawSamples:
    rng = np.random.default_rng(7)
    bright = rng.integers(20, 200, count)
    return RawSamples.split(
        {
            "image": (b + rng.integers(0, 55, (1, 48, 64, 1))).astype(np.uint8),
            "audio": rng.normal(0, b / 1000, (1, 1600)).astype(np.float32),
        }
        for b in bright
    )


def recipe_in(folder, text: str = RECIPE) -> Recipe:
    (folder / "r.toml").write_text(text)
    return Recipe.load(folder / "r.toml")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[OnnxModels]:
    recipe = recipe_in(tmp_path_factory.mktemp("recipe"))
    networks = {
        "image_encoder": encoder([1, 1, 12, 14]),
        "audio_encoder": encoder([1, 15, 10]),
        "fusion": fusion(),
    }
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models=networks)
    return [fp32, quantize(fp32, None, samples())]


@pytest.fixture(scope="module")
def path(models, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle") / "t.mmedge"
    return pack(target, models[0].recipe, models, metadata=METADATA, samples=samples())


def test_variants_take_raw_arrays_for_tensorrt_and_tensors_for_the_cpu(path):
    with load(path) as bundle:
        signature = {}
        for variant in bundle.manifest.variants:
            model = onnx.load_from_string(bundle.read(variant.file))
            if variant.target == "tensorrt":
                assert not [f for f in lint(model) if f.level == "error"]
            types = [(v.name, v.type.tensor_type.elem_type) for v in model.graph.input]
            signature[variant.stage, variant.target, variant.precision] = (variant.file, types)
        f32, u8 = TensorProto.FLOAT, TensorProto.UINT8
        image = {k[1:]: v for k, v in signature.items() if k[0] == "image_encoder"}
        assert image == {
            ("cpu", "fp32"): ("image_encoder.cpu.fp32.onnx", [("x", f32)]),
            ("cpu", "int8"): ("image_encoder.cpu.int8.onnx", [("x", f32)]),
            ("tensorrt", "fp32"): ("image_encoder.trt.fp32.onnx", [("x", u8)]),
            ("tensorrt", "int8"): ("image_encoder.trt.int8.onnx", [("x", u8)]),
        }
        shared = [v.file for v in bundle.manifest.variants if v.stage == "fusion" and v.precision == "fp32"]
        assert len(shared) == 2
        assert len(set(shared)) == 1, "stages fed by stages alone are stored once"
        assert coverage(bundle) == 1.0


def test_the_manifest_carries_what_training_and_export_know(path, models):
    with load(path) as bundle:
        manifest = bundle.manifest
        assert manifest.tasks["digit"].temperature == 1.25
        assert bundle.labels("digit") == ("a", "b", "c")
        assert manifest.validated_masks[0].value == 0.97
        assert manifest.provenance["seed"] == 11
        assert manifest.provenance["recipe_sha256"] == models[0].recipe.sha256
        assert manifest.provenance["opset"] == 20
        int8 = next(v for v in manifest.variants if v.precision == "int8")
        assert int8.quantization is not None
        assert int8.quantization.frames == 20


@pytest.mark.arithmetic
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_stage_passes_its_self_test_on_the_runtime(path, precision):
    with load(path) as bundle:
        graph = load_graph(bundle, backend="onnxruntime", precision=precision)
        graph.close()


def test_tensorrt_builds_every_int8_network_in_int8(path, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    with load(path) as bundle:
        for variant in bundle.manifest.variants:
            if (variant.target, variant.precision) == ("tensorrt", "int8"):
                sha = bundle.manifest.files[variant.file].sha256
                raw = bundle.read(variant.file)
                compiled = compile_variant(
                    raw, sha, variant.stage, "int8", cache=EngineCache(tmp_path), module="tensorrt_rtx"
                )
                assert compiled.plan_path.stat().st_size > 0
                assert compiled.build.int8_layers > 0


@pytest.mark.arithmetic
def test_the_self_test_refuses_a_network_with_other_weights(models, path, tmp_path):
    fp32 = models[0]
    wrong = onnx.ModelProto()
    wrong.CopyFrom(fp32.models["image_encoder"])
    for tensor in wrong.graph.initializer:
        if tensor.name == "v":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, "v"))
    with load(path) as bundle:
        good = bundle.manifest.variants[0]
        assert good.file == "image_encoder.cpu.fp32.onnx"
        golden = bundle.golden(good.golden)
        assert golden["in.x"].shape == (4, 48, 64, 1)
        assert golden["in.x"].dtype == np.uint8
        assert golden["out.embedding"].shape == (4, 6)
    recipe = fp32.recipe
    for model, right in ((fp32.models["image_encoder"], True), (wrong, False)):
        engine = OnnxRuntimeEngine(model.SerializeToString())
        stage = StageRunner("image_encoder", recipe.stages["image_encoder"], recipe.inputs, engine, {}, raw=False)
        if right:
            assert self_test(stage, golden, good.tolerance, "test") < 0.1
        else:
            with pytest.raises(CheckError, match="self-test failed"):
                self_test(stage, golden, good.tolerance, "test")


def test_fusion_golden_samples_differ_in_their_masks(path):
    with load(path) as bundle:
        golden = bundle.golden("golden/fusion.npz")
        assert golden["in.present"].tolist() == [[1, 1], [0, 1], [1, 0], [1, 1]]
        assert not golden["in.image"][1].any()
        assert golden["in.image"][2].any()


def test_equal_input_gives_equal_bytes(path, models, tmp_path):
    again = pack(tmp_path / "again.mmedge", models[0].recipe, models, metadata=METADATA, samples=samples())
    assert again.read_bytes() == path.read_bytes()


def test_precisions_and_targets_are_those_of_the_recipe(models, tmp_path):
    recipe = recipe_in(tmp_path, RECIPE + '[export]\nprecisions = ["fp32"]\ntargets = ["cpu"]\n')
    with load(pack(tmp_path / "t.mmedge", recipe, models[:1], samples=samples())) as bundle:
        assert {(v.target, v.precision) for v in bundle.manifest.variants} == {("cpu", "fp32")}


def test_missing_networks_and_wrong_metadata_are_refused(models, tmp_path):
    with pytest.raises(ConfigError, match="int8 networks are missing"):
        pack(tmp_path / "t.mmedge", models[0].recipe, models[:1], samples=samples())
    with pytest.raises(ConfigError, match="metadata"):
        pack(tmp_path / "t.mmedge", models[0].recipe, models, metadata={"temperature": 3}, samples=samples())


def test_an_int8_file_that_a_self_test_cannot_judge_is_left_out_and_its_stage_stays_float(models, tmp_path, caplog):
    fp32, int8 = models
    wrong = onnx.ModelProto()
    wrong.CopyFrom(int8.models["fusion"])
    for node in wrong.graph.node:
        if node.name == "gate":
            node.op_type = "Div"
    blind = replace(int8, models={**int8.models, "fusion": wrong})
    for precisions in (("fp32", "int8"), ("int8",)):
        recipe = msgspec.structs.replace(fp32.recipe, export=Export(precisions=precisions))
        caplog.clear()
        target = pack(tmp_path / "t.mmedge", recipe, [replace(fp32, recipe=recipe), blind], samples=samples())
        with load(target) as bundle:
            kept = {(v.target, v.precision) for v in bundle.manifest.variants if v.stage == "fusion"}
            assert kept == {("cpu", "fp32"), ("tensorrt", "fp32")}
            assert set(bundle.manifest.files) >= {v.file for v in bundle.manifest.variants}
            assert not [name for name in bundle.manifest.files if name.startswith("fusion") and "int8" in name]
        assert "stage 'fusion' gets no int8 file for target 'cpu'" in caplog.text
        assert "a self-test would detect nothing" in caplog.text


def sound(seconds: float) -> np.ndarray:
    t = np.arange(int(8000 * seconds)) / 8000
    return (0.3 * np.sin(2 * np.pi * 440 * t) * t / seconds).astype(np.float32)[None]


def test_recordings_are_read_evenly_and_split_by_time(tmp_path, write_clip):
    folder = tmp_path / "recordings"
    folder.mkdir()
    clip = write_clip("clip.mkv", sound=sound(1.0), times_s=[k / 25 for k in range(25)])
    clip.rename(folder / "clip.mkv")
    recipe = recipe_in(tmp_path, RECIPE + '[calibration]\nrecordings = "recordings"\nframes = 8\n')
    found = raw_samples(recipe)
    everything = [*found.calibration, *found.held_out]
    assert (len(found.calibration), len(found.held_out)) == (
        len(everything) * 2 // 3,
        len(everything) - len(everything) * 2 // 3,
    )
    assert 9 <= len(everything) <= 12
    assert everything[0].name == "clip 0"
    for sample in everything:
        assert sample.arrays["image"].shape == (1, 48, 64, 1)
        assert sample.arrays["audio"].shape == (1, 1600)
    loudness = [float(np.abs(s.arrays["audio"]).max()) for s in everything]
    assert loudness == sorted(loudness), "in order of time"
    only = raw_samples(recipe, held_out_only=True)
    assert only.calibration == ()
    assert [s.name for s in only.held_out] == [s.name for s in found.held_out]


def test_a_recording_without_an_input_is_named(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "a.image.mkv").touch()
    recipe = recipe_in(tmp_path, RECIPE + '[calibration]\nrecordings = "recordings"\n')
    with pytest.raises(ConfigError, match="'a' has no data for input 'audio'"):
        raw_samples(recipe)
