"""Outputs that are no classes as they stand: whole numbers, embeddings, maps; networks without a task; one camera."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import mmedge
from mmedge.bundle import load
from mmedge.cli import run
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import BundleError
from mmedge.export.datasets.media import write_clip
from tests.networks import FLOAT, NODE, network, new_project, seeing

pytestmark = pytest.mark.parallel

INT64, INT16 = TensorProto.INT64, TensorProto.INT16
CLIP = 25


@pytest.fixture
def new(tmp_path):
    sys.modules.pop("rules", None)  # of the project before, as a process of its own has it

    def call(*options: str, **models: onnx.ModelProto) -> dict:
        return new_project(tmp_path, models, *options)

    return call


@pytest.fixture
def clip(tmp_path):
    """A second in which the picture gets brighter, and a tone."""
    pictures = np.linspace(20, 220, CLIP).astype(np.uint8)[:, None, None] * np.ones((1, 480, 640), np.uint8)
    write_clip(tmp_path / "clip.mp4", pictures, np.sin(np.arange(16000) / 5).astype(np.float32) * 0.5, qp=20)
    return str(tmp_path / "clip.mp4")


def answering(nodes, outputs, size=8, **constants) -> onnx.ModelProto:
    """Return a network that sees pictures ``x`` and flattens them to ``f``, then ``nodes``."""
    return network([NODE("Flatten", ["x"], ["f"]), *nodes], {"x": (FLOAT, [1, 3, size, size])}, outputs, **constants)


def numbering(keepdims=0, kind=INT64) -> onnx.ModelProto:
    """The number of the brightest of three colours."""
    nodes = [
        NODE("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        NODE("ArgMax", ["means"], ["number"], axis=1, keepdims=keepdims),
        NODE("Cast", ["number"], ["label"], to=kind),
    ]
    return answering(nodes, {"label": (kind, [1, 1] if keepdims else [1])}, axes=np.array([2, 3]))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("kind", [INT64, TensorProto.INT32])
def test_the_number_of_a_class_is_read_as_one(new, keepdims, kind):
    told = new("--classes", "3", net=numbering(keepdims, kind))
    with load(told["bundle"]) as bundle:
        assert bundle.tasks["net"].scores == "probabilities"
        engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
    for number in range(3):
        picture = np.zeros((1, 3, 8, 8), np.float32)
        picture[0, number] = 1
        assert engine({"x": picture})["label"].tolist() == [np.eye(3)[number].tolist()]


@pytest.mark.parametrize("names", [[], ["cup", "pen", "key"]])
def test_whole_numbers_are_never_logits(new, tmp_path, clip, names):
    """Without names the number is told as it is; with a file of names the label."""
    (tmp_path / "names.txt").write_text("\n".join(names))
    told = new(*(["--classes", str(tmp_path / "names.txt")] if names else []), net=numbering())
    with load(told["bundle"]) as bundle:
        assert list(bundle.tasks) == (["net"] if names else [])
        assert bundle.outputs == (() if names else ("net.label",))
    with mmedge.Pipeline(told["bundle"], {"image": clip}, latency="offline") as pipe:
        result = next(iter(pipe))
    if names:
        assert result.tasks["net"].label == "cup"
        return
    assert result.outputs["net.label"].dtype == np.int64
    line = json.loads(result.to_json())
    assert line["outputs"] == {"net.label": {"shape": [1], "dtype": "int64", "values": [0]}}
    assert any("--classes N" in hint for hint in told["hints"])


def test_scores_beside_a_number_are_the_task(new):
    nodes = [
        NODE("MatMul", ["f", "w"], ["m"]),
        NODE("Softmax", ["m"], ["scores"]),
        NODE("ArgMax", ["m"], ["label"], axis=1, keepdims=0),
    ]
    outputs = {"label": (INT64, [1]), "scores": (FLOAT, [1, 4])}
    told = new("--classes", "4", net=answering(nodes, outputs, w=np.ones((192, 4), np.float32)))
    with load(told["bundle"]) as bundle:
        assert bundle.tasks["net"].output == "net.scores"
    assert "whole numbers" in told["left"][0]


def wide(count: int, *ends: str) -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(0, 0.1, (192, count)).astype(np.float32)
    names = ["f", *(f"t{k}" for k in range(len(ends))), "output"]
    nodes = [NODE("MatMul", ["f", "w"], [names[1]])]
    nodes += [NODE(op, [names[k + 1]], [names[k + 2]]) for k, op in enumerate(ends)]
    return answering(nodes, {"output": (FLOAT, [1, count])}, w=weight)


@pytest.mark.parametrize(
    ("model", "options", "is_task"),
    [
        (wide(512), (), False),
        (wide(512), ("--classes", "512"), True),
        (wide(10), (), True),
        (wide(10), ("--classes", "none"), False),
        (wide(1000), (), True),
        (wide(512, "Softmax"), (), True),
        (wide(48, "LpNormalization"), (), False),  # of length 1
    ],
)
def test_an_embedding_is_one_whatever_it_is_called(new, model, options, is_task):
    told = new(*options, net=model)
    with load(told["bundle"]) as bundle:
        assert (list(bundle.tasks), bundle.outputs) == ((["net"], ()) if is_task else ([], ("net.output",)))
    assert is_task or any("results tell net.output as they are" in hint for hint in told["hints"])


def test_measures_beside_a_probability_are_no_classes(new):
    """As MTCNN's networks have them: a softmax over two classes, and four numbers that move the box."""
    nodes = [
        NODE("MatMul", ["f", "w"], ["m"]),
        NODE("Softmax", ["m"], ["probability"]),
        NODE("MatMul", ["f", "v"], ["offsets"]),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(192, 2)).astype(np.float32), "v": rng.normal(size=(192, 4)).astype(np.float32)}
    model = answering(nodes, {"offsets": (FLOAT, [1, 4]), "probability": (FLOAT, [1, 2])}, **weights)
    told = new("--scale", "0..1", "--color", "rgb", net=model)
    with load(told["bundle"]) as bundle:
        assert [task.output for task in bundle.tasks.values()] == ["net.probability"]
    assert told["left"] == ["net.offsets [1, 4]: numbers of unknown meaning"]
    assert told["asks"] == []


def test_numbers_that_nothing_names_are_asked_for(new):
    (ask,) = new("--scale", "0..1", "--color", "rgb", net=wide(7))["asks"]
    assert "what its 7 numbers are (taken as classes: --classes none" in ask


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_bundle_without_tasks_runs_and_tells_its_outputs(new, clip, isolation):
    """An embedding and a map, larger than a line shows, through both kinds of runtime."""
    nodes = [NODE("MatMul", ["f", "w"], ["embedding"]), NODE("Mul", ["x", "two"], ["map"])]
    outputs = {"embedding": (FLOAT, [1, 96]), "map": (FLOAT, [1, 3, 64, 64])}
    weight = np.full((3 * 64 * 64, 96), 1e-4, np.float32)
    model = answering(nodes, outputs, size=64, w=weight, two=np.float32(2))
    told = new("--scale", "0..1", net=model)
    with mmedge.Pipeline(told["bundle"], {"image": clip}, latency="offline", isolation=isolation) as pipe:
        results = list(pipe)
    assert len(results) == CLIP
    for result in results:
        embedding, seen = result.outputs["net.embedding"], result.outputs["net.map"]
        assert (embedding.shape, seen.shape) == ((1, 96), (1, 3, 64, 64))
        np.testing.assert_allclose(embedding, 1e-4 * seen.sum() / 2, rtol=1e-3)
        assert json.loads(result.to_json())["outputs"]["net.map"] == {"shape": [1, 3, 64, 64], "dtype": "float32"}
    assert results[-1].outputs["net.map"].mean() > 2 * results[0].outputs["net.map"].mean()


def test_outputs_are_the_same_in_a_replay(new, clip, tmp_path):
    told = new("--scale", "0..1", net=wide(64))
    with mmedge.Pipeline(told["bundle"], {"image": clip}, latency="offline", record=tmp_path / "r") as pipe:
        lines = [json.loads(result.to_json())["outputs"] for result in pipe]
    assert run(["replay", str(tmp_path / "r"), told["bundle"], "--sink", f"jsonl:{tmp_path / 'out.jsonl'}"]) == 0
    again = [json.loads(line)["outputs"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert again == lines


def test_lines_of_people_show_outputs(new, clip, capfd):
    told = new("--scale", "0..1", net=numbering())
    assert run(["run", told["bundle"], "--image", clip, "--latency", "offline"]) == 0
    assert "net.label int64 [1] 0" in capfd.readouterr().out
    assert run(["inspect", told["bundle"]]) == 0
    assert "told as it is" in capfd.readouterr().out


def test_a_manifest_with_neither_is_refused():
    from mmedge.bundle import decode_manifest
    from tests.tiny import MANIFEST

    with pytest.raises(BundleError, match="no tasks and tells no outputs"):
        decode_manifest(json.dumps({**MANIFEST, "tasks": {}, "variants": [], "files": {}}).encode())


def sounding(divided: bool, kind=FLOAT) -> onnx.ModelProto:
    """The mean of the squares of samples that are those of int16."""
    nodes = [NODE("Cast", ["pcm"], ["s"], to=FLOAT)]
    nodes += [NODE("Div", ["s", "full"], ["d"])] if divided else [NODE("Identity", ["s"], ["d"])]
    nodes += [
        NODE("Mul", ["d", "d"], ["square"]),
        NODE("ReduceMean", ["square", "axis"], ["mean"], keepdims=1),
        NODE("Neg", ["mean"], ["power"]),
    ]
    return network(
        nodes, {"pcm": (kind, [1, 1600])}, {"power": (FLOAT, [1, 1])}, axis=np.array([1]), full=np.float32(32768)
    )


@pytest.mark.parametrize(
    ("model", "options", "gain"),
    [
        (sounding(True), (), 32768),
        (sounding(False), (), 1),
        (sounding(False), ("--scale", "int16"), 32768),
        (sounding(False, INT16), (), 32768),
        (sounding(True, INT16), (), 32768),
    ],
)
def test_sound_in_numbers_of_int16(new, clip, model, options, gain):
    told = new(*options, net=model)
    with load(told["bundle"]) as bundle:
        assert bundle.inputs["audio"].gain == gain
    with mmedge.Pipeline(told["bundle"], {"audio": clip}, latency="offline") as pipe:
        powers = [-float(result.outputs["net.power"][0, 0]) for result in pipe]
    divided = any(node.op_type == "Div" for node in model.graph.node)
    assert powers[-3] == pytest.approx(0.125 * (1 if divided else gain**2), rel=0.1)


@pytest.mark.parametrize(
    ("states", "window", "step"),
    [
        ({"state": ("stateN", [2, "batch", 128])}, 576, 512),
        ({"h": ("hn", [2, "batch", 64]), "c": ("cn", [2, "batch", 64])}, 512, 512),
        ({"state": ("stateN", [2, "batch", 64])}, 512, 512),
    ],
)
def test_a_stream_hears_what_its_state_says(new, states, window, step):
    """Silero VAD 5 hears 64 samples again, 4 does not: its states are 64 wide."""
    nodes = [NODE("ReduceMean", ["input", "axis"], ["mean"], keepdims=1), NODE("Sigmoid", ["mean"], ["output"])]
    nodes += [NODE("Identity", [name], [out]) for name, (out, _) in states.items()]
    inputs = {"input": (FLOAT, ["batch", None]), "sr": (INT64, []), **{n: (FLOAT, s) for n, (_, s) in states.items()}}
    outputs = {"output": (FLOAT, ["batch", 1]), **{out: (FLOAT, s) for out, s in states.values()}}
    told = new(net=network(nodes, inputs, outputs, axis=np.array([1])))
    with load(told["bundle"]) as bundle:
        stage, seat = bundle.manifest.stages["net"], bundle.inputs["audio"]
        assert (seat.samples, stage.every_ms) == (window, step / 16)
        assert stage.inputs["sr"] == "@const:16000"
        width = {tuple(dims)[-1] for name, dims in stage.outputs.items() if name != "output"}
        assert width == {shape[-1] for _, shape in states.values()}
    assert any("--size SAMPLES" in ask for ask in told["asks"]) == (window == 512)


def test_one_camera_feeds_networks_of_several_sizes_and_scales(new, clip):
    told = new("--scale", "a=0..1", "--scale", "b=-1..1", a=seeing(8, 2, "Softmax"), b=seeing(12, 2, "Softmax"))
    assert told["next"][0].endswith(" --image 0")
    with load(told["bundle"]) as bundle:
        assert bundle.inputs["image_b"].shares == "image"
    with mmedge.Pipeline(told["bundle"], {"image": clip}, latency="offline", allow=["rules"]) as pipe:
        assert all(result.present == {"image": True, "image_b": True} for result in pipe)
    with mmedge.Pipeline(told["bundle"], {"image": "push://"}, allow=["rules"]) as pipe:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pipe.push("image", np.full((48, 64, 3), 90, np.uint8), time.monotonic_ns())
            result = next(iter(pipe))
            if all(result.present.values()):
                break
        assert all(result.present.values()), "what is pushed to one is pushed to both"


@pytest.mark.parametrize("shares", ["audio", "image"])
def test_a_source_is_shared_with_another_input_of_its_kind(shares):
    from mmedge.bundle import decode_manifest
    from tests.tiny import MANIFEST

    inputs = {**MANIFEST["inputs"], "image": {**MANIFEST["inputs"]["image"], "shares": shares}}
    with pytest.raises(BundleError, match="does not name another input of this kind"):
        decode_manifest(json.dumps({**MANIFEST, "inputs": inputs, "variants": [], "files": {}}).encode())


@pytest.mark.parametrize("name", ["eeg", "waveform"])
def test_a_signal_that_does_not_say_that_it_is_sound_is_asked_about(new, name):
    nodes = [NODE("ReduceMean", [name], ["m"], keepdims=0), NODE("Reshape", ["m", "one"], ["level"])]
    signal = network(nodes, {name: [1, 1, 3000]}, {"level": [1, 1]}, one=np.array([1, 1]))
    asks = [ask for ask in new(net=signal)["asks"] if "sound" in ask]
    if name == "waveform":
        assert asks == []
        return
    assert "of 'eeg', that it is sound, nor its rate (taken as 16000 Hz: set sample_rate_hz" in asks[0]
    assert 'modality = "tensor" and shape = [1, 1, 3000]' in asks[0]
