"""From ONNX files to a bundle that runs, with nothing asked; and a project to start from."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmedge.bundle import load
from mmedge.cli import run
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export.brought.infer import read_network
from mmedge.export.brought.outputs import run_network
from mmedge.export.brought.seats import Seats
from mmedge.export.datasets.media import write_clip
from tests.networks import FLOAT, NODE, network, seeing
from tests.texts import tokenizer_json

pytestmark = pytest.mark.parallel

GRID, CELL = 20, 16
# A YOLO of 320x320 has cells of three sizes; those of the other two see nothing here.
OTHERS = 40 * 40 + 10 * 10


def detector() -> onnx.ModelProto:
    """In the form of YOLOv8: a box around each cell of a grid, of class 'lamp' as far as the cell is bright."""
    centres = (np.arange(GRID, dtype=np.float32) + 0.5) * CELL
    x, y = np.meshgrid(centres, centres)
    side = np.full(GRID * GRID, 6.0 * CELL, np.float32)
    boxes = np.stack([x.ravel(), y.ravel(), side, side])[None]
    boxes = np.pad(boxes, ((0, 0), (0, 0), (0, OTHERS)))
    return network(
        [
            NODE("ReduceMean", ["images", "channel"], ["gray"], keepdims=1),
            NODE("AveragePool", ["gray"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
            NODE("Reshape", ["cells", "row"], ["seen"]),
            NODE("Concat", ["seen", "dark"], ["lamp"], axis=2),
            NODE("Mul", ["lamp", "tenth"], ["rest"]),
            NODE("Concat", ["boxes", "lamp", "rest"], ["output0"], axis=1),
        ],
        {"images": (FLOAT, ["batch", 3, "height", "width"])},
        {"output0": (FLOAT, ["batch", 6, "anchors"])},
        {"names": "{0: 'lamp', 1: 'rest'}", "imgsz": "[320, 320]", "license": "AGPL-3.0"},
        channel=np.array([1]),
        row=np.array([1, 1, -1]),
        dark=np.zeros((1, 1, OTHERS), np.float32),
        tenth=np.float32(0.1),
        boxes=boxes,
    )


def level(gain: float = 1000) -> onnx.ModelProto:
    """The probability that a second of sound is loud."""
    return network(
        [
            NODE("Mul", ["pcm", "pcm"], ["power"]),
            NODE("ReduceMean", ["power", "axis"], ["mean"], keepdims=1),
            NODE("Mul", ["mean", "gain"], ["scaled"]),
            NODE("Sub", ["scaled", "quiet"], ["logit"]),
            NODE("Sigmoid", ["logit"], ["loud"]),
        ],
        {"pcm": (FLOAT, [1, "samples"])},
        {"loud": (FLOAT, [1, 1])},
        axis=np.array([1]),
        gain=np.float32(gain),
        quiet=np.float32(5),
    )


def reader(length="sequence", ids=TensorProto.INT64):
    """In the form of BERT: the mean of the embeddings of the tokens that the mask leaves, -> three classes."""
    rng = np.random.default_rng(0)
    kinds = {"input_ids": ids, "attention_mask": TensorProto.INT64, "token_type_ids": TensorProto.INT64}
    return network(
        [
            NODE("Gather", ["words", "input_ids"], ["word"]),
            NODE("Gather", ["types", "token_type_ids"], ["type"]),
            NODE("Add", ["word", "type"], ["both"]),
            NODE("Cast", ["attention_mask"], ["mask"], to=FLOAT),
            NODE("Unsqueeze", ["mask", "two"], ["column"]),
            NODE("Mul", ["both", "column"], ["left"]),
            NODE("ReduceSum", ["left", "one"], ["sum"], keepdims=0),
            NODE("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
            NODE("Div", ["sum", "count"], ["mean"]),
            NODE("MatMul", ["mean", "head"], ["logits"]),
        ],
        {name: (kind, ["batch", length]) for name, kind in kinds.items()},
        {"logits": (FLOAT, ["batch", 3])},
        words=rng.normal(size=(200, 8)).astype(np.float32),
        types=np.array([[0.0] * 8, [100.0] * 8], np.float32),
        head=rng.normal(size=(8, 3)).astype(np.float32),
        one=np.array([1]),
        two=np.array([2]),
    )


@pytest.fixture
def files(tmp_path):
    onnx.save(detector(), tmp_path / "yolo-v8.onnx")
    onnx.save(level(), tmp_path / "level.onnx")
    return [str(tmp_path / "yolo-v8.onnx"), str(tmp_path / "level.onnx")]


@pytest.fixture
def new(capfd):
    def call(*arguments: str) -> dict:
        code = run(["new", *arguments, "--json"])
        told = capfd.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    return call


def clip(path) -> str:
    """A bright square at the top right from the first second on, and a tone from the second one on."""
    dark = np.random.default_rng(0).integers(0, 30, (75, 480, 640), dtype=np.uint8)  # a camera's pictures change
    dark[25:, 80:144, 480:544] = 255
    t = np.arange(3 * 16000) / 16000
    write_clip(path, dark, (np.sin(2e3 * t) * 0.3 * (t > 2)).astype(np.float32), qp=30)
    return str(path)


def test_two_networks_become_a_bundle_that_runs_as_printed(tmp_path, files, new):
    report = new(str(tmp_path / "kiosk"), "--from", *files)
    assert report["schema"] == "mmedge.new/1"
    unit = (tmp_path / "kiosk" / "mmedge-kiosk.service").read_text()
    assert report["unit"] == str(tmp_path / "kiosk" / "mmedge-kiosk.service")
    assert f"--input image=0 --input audio=mic://default --allow-callable {tmp_path / 'kiosk' / 'mmedge.toml'}" in unit
    with load(report["bundle"]) as bundle:
        image, sound = bundle.inputs["image"], bundle.inputs["audio"]
        assert (image.size, image.fit, image.mean, image.std) == ((320, 320), "letterbox", (0, 0, 0), (1, 1, 1))
        assert (sound.sample_rate_hz, sound.samples, sound.features) == (16000, 16000, None)
        assert bundle.labels("yolo_v8") == ("lamp", "rest")
        assert bundle.tasks["yolo_v8"].detection.layout == "yolo"
        assert bundle.labels("joined") == ("nothing", "level", "yolo_v8", "yolo_v8+level")
        assert {mask.present for mask in bundle.manifest.validated_masks} == {("image",), ("audio",)}
        assert bundle.manifest.licence == "AGPL-3.0"
    (printed,) = report["next"]
    assert printed.endswith("--image 0 --audio mic://default")
    file = clip(tmp_path / "clip.mp4")
    printed = printed.replace(
        "--image 0 --audio mic://default", f"--image {file} --audio {file} --latency offline --json"
    )
    # As it stands there, in another folder: neither a flag nor PYTHONPATH makes its rule run.
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(printed)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [result["tasks"]["joined"]["label"] for result in results]
    assert seen[20] == "nothing"
    assert seen[40] == "yolo_v8"
    assert seen[-1] == "yolo_v8+level"
    (box,) = results[40]["tasks"]["yolo_v8"]["boxes"]
    assert box["label"] == "lamp"
    centre = ((box["x1"] + box["x2"]) / 2, (box["y1"] + box["y2"]) / 2)
    assert centre == pytest.approx((0.8, 112 / 480), abs=0.04)


def test_what_was_written_can_be_changed_and_exported_again(tmp_path, files, new):
    folder = tmp_path / "kiosk"
    new(str(folder), "--from", *files)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("threshold = 0.25", "threshold = 0.75"))
    assert run(["export", str(folder / "recipe.toml"), "--output", str(tmp_path / "b.mmedge")]) == 0
    with load(tmp_path / "b.mmedge") as bundle:
        assert bundle.tasks["yolo_v8"].threshold == 0.75


def seats(tmp_path, inputs, outputs, tokenizer=None, metadata=None):
    """Return the seats and sources that are inferred from a signature alone."""
    nodes = [NODE("Identity", [name], [f"{name}/same"]) for name in inputs]
    model = network(nodes, inputs, outputs, metadata)
    onnx.save(model, tmp_path / "net.onnx")
    found = Seats(tokenizer)
    net = read_network(tmp_path / "net.onnx", [])
    found.add(net)
    return found.inputs, net


INT64, UINT8 = TensorProto.INT64, TensorProto.UINT8
IMAGENET = {"size": [224, 224], "fit": "crop", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ("kind", "shape", "output", "wanted"),
    [
        (FLOAT, [1, 3, 224, 224], [1, 1000], {**IMAGENET, "color": "rgb"}),
        (FLOAT, ["n", 3, None, None], ["n", 1000], {**IMAGENET, "color": "rgb"}),
        (FLOAT, [1, 1, 28, 30], [1, 10], {"size": [28, 30], "color": "gray", "fit": "stretch", "std": [1.0]}),
        (FLOAT, [1, 96, 64, 3], [1, 4], {"size": [96, 64], "color": "rgb", "fit": "stretch", "mean": [0.0] * 3}),
        (UINT8, [1, 96, 64, 3], [1, 4], {"size": [96, 64], "std": [1 / 255] * 3}),
        (FLOAT, [1, 3, None, None], [1, 84, None], {"size": [640, 640], "fit": "letterbox"}),
    ],
)
def test_pictures(tmp_path, kind, shape, output, wanted):
    inputs, net = seats(tmp_path, {"pixels": (kind, shape)}, {"y": (FLOAT, output)})
    assert net.sources == {"pixels": "image"}
    seat = msgspec.structs.asdict(inputs["image"])
    assert {key: list(seat[key]) if isinstance(seat[key], tuple) else seat[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("inputs", "outputs", "sources", "every_ms"),
    [
        (
            {"input": (FLOAT, [None, None]), "state": (FLOAT, [2, None, 128]), "sr": (INT64, [])},
            {"output": (FLOAT, [None, 1]), "stateN": (FLOAT, [None, None, None])},
            {"input": "audio", "state": "@state:stateN", "sr": "@const:16000"},
            32.0,
        ),
        (
            {"x": (FLOAT, [1, 512]), "h": (FLOAT, [2, 1, 64]), "c": (FLOAT, [2, 1, 64])},
            {"p": (FLOAT, [1, 1]), "hn": (FLOAT, [2, 1, 64]), "cn": (FLOAT, [2, 1, 64])},
            {"x": "audio", "h": "@state:hn", "c": "@state:cn"},
            32.0,
        ),
        ({"waveform": (FLOAT, [1, None])}, {"y": (FLOAT, [1, 5])}, {"waveform": "audio"}, None),
        ({"features": (FLOAT, [1, 40])}, {"y": (FLOAT, [1, 5])}, {"features": "features"}, None),
        ({"timer": (FLOAT, [1, 40])}, {"y": (FLOAT, [1, 5])}, {"timer": "timer_net"}, None),
        ({"input_ids": (INT64, [1, 16])}, {"y": (FLOAT, [1, 5])}, {"input_ids": "input_ids"}, None),
        ({"gain": (FLOAT, [])}, {"y": (FLOAT, [1, 5])}, {"gain": "@const:0"}, None),
    ],
)
def test_sound_states_scalars_and_tensors(tmp_path, inputs, outputs, sources, every_ms):
    _, net = seats(tmp_path, inputs, outputs)
    assert (net.sources, net.every_ms) == (sources, every_ms)


def test_a_tokenizer_makes_a_text_of_input_ids(tmp_path):
    inputs, net = seats(tmp_path, {"input_ids": (INT64, [1, 16])}, {"y": (FLOAT, [1, 5])}, "tokenizer.json")
    assert net.sources == {"input_ids": "text"}
    assert inputs["text"].max_tokens == 16


@pytest.mark.parametrize("length", ["sequence", 12])
@pytest.mark.parametrize("ids", [TensorProto.INT64, TensorProto.INT32])
def test_a_network_that_reads_gets_its_mask_from_the_text(tmp_path, new, length, ids):
    own = reader(length, ids)
    onnx.save(own, tmp_path / "bert.onnx")
    (tmp_path / "words.json").write_bytes(tokenizer_json({"[UNK]": 0, "[PAD]": 1, "dark": 2, "bright": 3}))
    files = ["--from", str(tmp_path / "bert.onnx"), "--tokenizer", str(tmp_path / "words.json")]
    report = new(str(tmp_path / "p"), *files)
    assert report["next"] == [f"mmedge run {report['bundle']} --text text://stdin"]
    assert report["hints"] == []
    with load(report["bundle"]) as bundle:
        seat = bundle.inputs["text"]
        assert (seat.max_tokens, seat.pad) == (12 if length == 12 else 32, 1)
        assert bundle.manifest.stages["bert"].inputs == {"input_ids": "text", "token_type_ids": "@const:0"}
        packed = OnnxRuntimeEngine(bundle.read(bundle.variants("bert", "cpu")[0].file))
    given = np.full((1, seat.max_tokens), 1)
    for tokens in ([2, 0, 3], [3]):
        given[:] = 1
        given[0, : len(tokens)] = tokens
        types, mask = np.zeros_like(given), np.zeros_like(given)
        mask[0, : len(tokens)] = 1
        kind = helper.tensor_dtype_to_np_dtype(ids)
        feeds = {"input_ids": given.astype(kind), "attention_mask": mask, "token_type_ids": types}
        got = packed({"input_ids": given, "token_type_ids": types})["logits"]
        np.testing.assert_allclose(got, run_network(own, feeds, "")[0], rtol=1e-4, atol=1e-5)
    given[:] = 1  # a text of no tokens
    assert np.isfinite(packed({"input_ids": given, "token_type_ids": types})["logits"]).all()


def test_without_a_tokenizer_there_is_a_hint(tmp_path, new):
    onnx.save(reader(), tmp_path / "bert.onnx")
    report = new(str(tmp_path / "p"), "--from", str(tmp_path / "bert.onnx"))
    assert "--tokenizer" in report["hints"][0]
    assert "push" in report["next"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokenizer", "words.json"], "--from NETWORK.onnx"),
        (["--from", "level.onnx", "--tokenizer", "words.json"], "no network takes tokens"),
        (["--from", "bert.onnx", "--tokenizer", "none.json"], "cannot read the tokenizer"),
        (["--from", "bert.onnx", "--tokenizer", "level.onnx"], "not a tokenizer"),
        (["--from", "bert.onnx", "--tokenizer", "large.json"], "tokens, but the embedding has 200 rows"),
    ],
)
def test_a_tokenizer_is_used_or_refused(tmp_path, files, arguments, said, capfd, monkeypatch):
    onnx.save(reader(), tmp_path / "bert.onnx")
    (tmp_path / "words.json").write_bytes(tokenizer_json())
    words = {"[PAD]": 0, "[UNK]": 1} | {f"word{k}": k for k in range(2, 300)}
    (tmp_path / "large.json").write_bytes(tokenizer_json(words))
    monkeypatch.chdir(tmp_path)
    assert run(["new", "p", *arguments]) == 2
    told = capfd.readouterr().err
    assert said in told
    assert "fix:" in told
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("classes", "ends", "bias", "scores"),
    [
        (1, ["Sigmoid"], 0.5, "probabilities"),
        (1, ["Sigmoid", "Identity"], 9.0, "probabilities"),
        (1, [], 0.5, None),  # within 0..1 on noise, and no probability
        (1, ["Tanh"], 0.5, None),
        (4, [], 0.5, "logits"),
        (4, ["LogSoftmax"], 0.5, "logits"),
        (4, ["Softmax"], 0.5, "probabilities"),
        (4, ["Sigmoid"], 0.5, "probabilities"),  # each by itself
        (4, ["Softmax", "Identity"], 0.5, "probabilities"),
    ],
)
def test_what_the_last_operator_says(tmp_path, capfd, classes, ends, bias, scores):
    onnx.save(seeing(8, classes, *ends, bias=bias), tmp_path / "net.onnx")
    assert run(["new", str(tmp_path / "p"), "--from", str(tmp_path / "net.onnx"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    with load(told["bundle"]) as bundle:
        if scores is not None:
            assert bundle.tasks["net"].scores == scores
            return
        assert (bundle.tasks, bundle.outputs) == ({}, ("net.y",))
    assert "net.y [1, 1], one number that ends in" in told["left"][0]
    assert "Sigmoid" in told["hints"][0]


def test_answers_that_are_no_numbers_are_told_with_what_may_be_the_cause(tmp_path, capfd):
    onnx.save(seeing(8, 3, "Log", weight=-1, bias=-1), tmp_path / "net.onnx")  # wants pictures in -1..0
    folder = tmp_path / "p"
    assert run(["new", str(folder), "--from", str(tmp_path / "net.onnx")]) == 2
    told = capfd.readouterr().err
    assert "output 'y' of network 'net' is NaN or infinite on noise: 'x' is given 0..1" in told
    assert f"mmedge export {folder / 'recipe.toml'} --output {folder / 'p.mmedge'}" in told
    assert not list(folder.glob("*.mmedge"))
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("mean = [0.0, 0.0, 0.0]", "mean = [2.0, 2.0, 2.0]"))
    assert run(["export", str(folder / "recipe.toml"), "--output", str(folder / "p.mmedge")]) == 0
    assert run(["verify", str(folder / "p.mmedge")]) == 0


def test_one_camera_serves_the_networks_of_two_sizes(tmp_path):
    for name, size in (("a", 8), ("b", 12)):
        onnx.save(seeing(size, 2), tmp_path / f"{name}.onnx")
    # In a process of its own, which has not imported the rules of another project.
    command = [sys.executable, "-m", "mmedge", "new", "p", "--json", "--from", "a.onnx", "b.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    assert report["next"][0].endswith(" --image 0")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.txt", b"", "is not an ONNX file"), ("a.onnx", b"what", "not an ONNX file"), ("b.onnx", None, "cannot read")],
)
def test_files_that_cannot_be_used(tmp_path, name, content, said, capfd):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code = run(["new", str(tmp_path / "p"), "--from", str(tmp_path / name)])
    told = capfd.readouterr().err
    assert (code, "Traceback" in told) == (2, False)
    assert said in told
    assert not (tmp_path / "p").exists(), "nothing is left behind"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, files, capfd):
    assert run(["new", str(tmp_path), "--from", *files]) == 2
    assert "not empty" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_the_starter_project_trains(tmp_path, new):
    report = new(str(tmp_path / "p"))
    assert [line.split()[1] for line in report["next"]] == ["train", "export", "run"]
    recipe = tmp_path / "p" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 20", "epochs = 2"))
    assert run(["export", str(recipe), "--output", str(tmp_path / "s.mmedge")]) == 0
    with load(tmp_path / "s.mmedge") as bundle:
        assert {mask.present for mask in bundle.manifest.validated_masks} >= {("image",), ("audio",)}
