"""What `mmedge new` makes of signatures as people's networks have them: several seats, names, states, spectra."""

from __future__ import annotations

import json
import sys
from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mmedge.bundle import load
from mmedge.bundle.manifest import AudioInput, Detection, TensorInput
from mmedge.cli import run
from mmedge.errors import MmedgeError
from mmedge.export.brought import infer
from mmedge.export.brought.new import from_networks
from mmedge.export.brought.project_text import joined_labels, rule_text
from mmedge.export.recipe import RecipeTask
from tests.networks import FLOAT, NODE, head, network, new_project, seeing, telling

pytestmark = pytest.mark.parallel

INT64, FLOAT16 = TensorProto.INT64, TensorProto.FLOAT16
PICTURE = {"x": [1, 3, 16, 16]}


@pytest.fixture(autouse=True)
def another_project():
    sys.modules.pop("rules", None)  # of the project before, as a process of its own has it


@pytest.fixture
def new(tmp_path):
    """Make a project of networks; return its report, or its error."""

    def call(**models: onnx.ModelProto) -> dict:
        return new_project(tmp_path, models)

    return call


def answering(inputs: dict, outputs: dict, metadata: dict | None = None) -> onnx.ModelProto:
    """Return a network that gives tensors of these shapes: 0..1, as far as its first input is."""
    nodes = [NODE("ReduceMean", [next(iter(inputs))], ["mean"], keepdims=0), NODE("Relu", ["mean"], ["p"])]
    nodes += [NODE("Expand", ["p", f"{name}/shape"], [name]) for name in outputs]
    given = {name: spec if isinstance(spec, tuple) else (FLOAT, spec) for name, spec in inputs.items()}
    sizes = {f"{name}/shape": np.array(shape) for name, shape in outputs.items()}
    return network(nodes, given, {name: (FLOAT, shape) for name, shape in outputs.items()}, metadata, **sizes)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ([1, 3, 16, 16], "--input image=0 --input image_right=1"),
        ([1, 16000], "--input audio=mic://default --input audio_right=mic://NAME1"),
    ],
)
def test_two_inputs_of_one_network_are_two_devices(new, shape, options):
    told = new(
        pair=answering({"left": shape, "right": shape}, {"y": [1, 3]}), one=answering({"x": shape}, {"y": [1, 3]})
    )
    assert told["next"][0].endswith(options)
    (hint,) = told["hints"]
    assert "'right' has a seat" in hint
    with load(told["bundle"]) as bundle:
        left, right = bundle.manifest.stages["pair"].inputs.values()
        assert left != right
        assert bundle.manifest.stages["one"].inputs == {"x": left}


def test_a_device_feeds_the_networks_of_its_kind(new):
    shapes = {"a": [1, 3, 16, 16], "b": [1, 3, 8, 8], "c": [1, 16000], "d": [1, 8000]}
    told = new(**{name: answering({"x": shape}, {"y": [1, 3]}) for name, shape in shapes.items()})
    assert told["next"][0].endswith("--image 0 --audio mic://default")
    with load(told["bundle"]) as bundle:
        masks = {mask.present for mask in bundle.manifest.validated_masks}
    assert {("image", "image_b"), ("audio", "audio_d")} <= masks, "a device may be absent with all that it feeds"


@pytest.mark.parametrize("task", ["pose", "segment", "obb"])
def test_what_is_no_detector_is_refused(new, tmp_path, task):
    metadata = {"task": task, "names": "{0: 'person'}"}
    told = new(net=answering({"x": [1, 3, 320, 320]}, {"y": [1, 56, 2100]}, metadata))
    assert f"task '{task}'" in told["message"]
    assert "[1, 4 + C, n]" in told["fix"]
    assert "callable" in told["fix"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("rows", "names"), [(56, 1), (8, 3), (84, 79)])
def test_names_say_how_many_of_a_boxs_values_are_scores(new, rows, names):
    metadata = {"names": str({k: f"n{k}" for k in range(names)})}
    told = new(net=answering({"x": [1, 3, 320, 320]}, {"y": [1, rows, 2100]}, metadata))
    assert f"{rows - 4} values per box beside its place" in told["message"]
    assert told["where"].endswith("net.onnx")


@pytest.mark.parametrize(("shape", "layout"), [([1, 7, 400], "yolo"), ([1, 400, 8], "yolo-objectness")])
def test_names_make_boxes_known_on_any_grid(new, shape, layout):
    picture, names = {"x": (FLOAT, [1, 3, 320, 320])}, {"task": "detect", "names": "['a', 'b', 'c']"}
    told = new(net=telling(picture, names, y=head(layout, shape, (320, 320))))
    with load(told["bundle"]) as bundle:
        assert bundle.tasks["net"].detection.layout == layout
        assert bundle.labels("net") == ("a", "b", "c")


def test_a_task_that_another_library_wrote_says_nothing(new):
    assert new(net=answering(PICTURE, {"y": [1, 3]}, {"task": "image-classification"}))["bundle"]


@pytest.mark.parametrize(
    ("names", "labels", "hint"),
    [
        ("{0: 'a', 1: 'b'}", ("0", "1", "2"), "names 2 classes, its output has 3"),
        ("{0: 'a', 1: 'a', 2: 'c'}", ("a", "a_1", "c"), "now 'a_1'"),
        ("['a_1', 'a', 'a']", ("a_1", "a", "a_2"), "now 'a_2'"),
        ("['a', '', 'b\\n c\\x85d']", ("a", "1", "b c d"), "now '1', 'b c d'"),
        ("['\\ud800', 'b', 'c']", ("?", "b", "c"), "now '?'"),
        ("{0: 'a', 'b': 1}", ("0", "1", "2"), None),
    ],
)
def test_names_that_do_not_fit_are_told(new, names, labels, hint):
    told = new(net=answering(PICTURE, {"y": [1, 3]}, {"names": names}))
    with load(told["bundle"]) as bundle:
        assert bundle.labels("net") == labels
    assert len(told["hints"]) == (hint is not None)
    assert hint is None or hint in told["hints"][0]


def test_a_bundle_that_cannot_be_loaded_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "_distinct", tuple)
    onnx.save(answering(PICTURE, {"y": [1, 2]}, {"names": "['a', 'a']"}), tmp_path / "net.onnx")
    with pytest.raises(MmedgeError, match="labels must be distinct and not empty"):
        from_networks(tmp_path / "p", [tmp_path / "net.onnx"], None)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("h0", "c0"), ("hn", "cn")),
        (("h_0", "c_0"), ("h_n", "c_n")),
        (("h0", "c0"), ("h1", "c1")),
        (("past_h", "past_c"), ("present_h", "present_c")),
    ],
)
def test_states_by_the_names_that_torch_users_give(new, inputs, outputs):
    given, made = ({name: [1, 1, 16] for name in names} for names in (inputs, outputs))
    told = new(net=answering({"input": [1, 512], **given}, {"y": [1, 3], **made}))
    with load(told["bundle"]) as bundle:
        stage = bundle.manifest.stages["net"]
    assert stage.every_ms == 32
    assert {name: stage.inputs[name] for name in inputs} == {
        i: f"@state:{o}" for i, o in zip(inputs, outputs, strict=True)
    }


@pytest.mark.parametrize(("kind", "name"), [(FLOAT16, "h0"), (FLOAT, "h10")])
def test_another_type_or_number_is_no_state(new, kind, name):
    told = new(net=answering({"x": [1, 3, 16, 16], name: (kind, [1, 1, 16])}, {"y": [1, 3], "h1": [1, 1, 16]}))
    with load(told["bundle"]) as bundle:
        assert bundle.manifest.stages["net"].inputs[name] == name


def test_what_may_be_a_state_is_told_with_the_line_to_write(new, tmp_path):
    told = new(net=answering({"pcm": [1, 512], "memory": [2, 16]}, {"y": [1, 3], "rest": [1, 8], "later": [2, 16]}))
    (hint,) = told["hints"]
    assert '"memory" = "@state:later"' in hint
    assert "net.later [2, 16]" in told["left"]
    assert "every_ms = 32" in hint
    recipe = tmp_path / "p" / "recipe.toml"
    text = recipe.read_text()
    start, end = text.index("[inputs.memory]"), text.index("[stages.net]")
    text = text[:start] + text[end:]  # as the hint says
    text = text.replace('"memory" = "memory" }', '"memory" = "@state:later" }\nevery_ms = 32')
    recipe.write_text(text.replace('[missing.memory]\npolicy = "zero"', ""))
    assert run(["export", str(recipe), "--output", str(tmp_path / "b.mmedge")]) == 0
    with load(tmp_path / "b.mmedge") as bundle:
        assert list(bundle.inputs) == ["audio"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("log_mel", [1, 1, 64, 101]), ("mel", [1, 64, 101, 1]), ("input_features", [1, 80, 100]), ("fbank", [1, 98, 40])],
)
def test_a_spectrum_is_no_picture(new, name, shape):
    told = new(net=answering({name: shape}, {"y": [1, 3]}))
    with load(told["bundle"]) as bundle:
        assert bundle.inputs == {name: TensorInput(shape=tuple(shape))}
    (hint,) = told["hints"]
    assert "[inputs.NAME.features]" in hint
    assert "(samples - window_samples) // hop_samples + 1" in hint


@pytest.mark.parametrize(("name", "shape", "heard"), [("waveform", [15600], 15600), ("features", [400], None)])
def test_one_row_of_samples_is_sound_by_its_name(new, name, shape, heard):
    told = new(net=answering({name: shape}, {"y": [1, 3]}))
    with load(told["bundle"]) as bundle:
        (seat,) = bundle.inputs.values()
    assert (seat.samples if isinstance(seat, AudioInput) else None) == heard
    assert run(["verify", told["bundle"]]) == 0


@pytest.mark.parametrize("shape", [[], [1], [None]])
@pytest.mark.parametrize("sound", ["audio_signal", "zz_audio"])
def test_the_length_of_a_sound_is_known(new, shape, sound):
    inputs = {"length": (INT64, shape), sound: [1, 8000]}
    told = new(net=answering({sound: inputs[sound], **inputs}, {"y": [1, 3]}))
    with load(told["bundle"]) as bundle:
        assert bundle.manifest.stages["net"].inputs["length"] == "@const:8000"
    assert told["next"][0].endswith("--audio mic://default")


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        (["n", "t", 6], (1, 50, 6)),
        ([1, 6, None], (1, 6, 50)),
        (["t"], (50,)),
        (["n", 6], (1, 6)),
        ([None, 5, "n"], (1, 5, 1)),
    ],
)
def test_an_open_dimension_of_a_tensor_is_no_guess(tmp_path, shape, made):
    model = answering({"imu": shape, "k": ["n", 2]}, {"y": [1, 3]})
    told = new_project(tmp_path, {"net": model})
    if 50 in made:
        axis = made.index(50)
        assert "input 'imu' [" in told["message"]
        assert f"is open in axis {axis}, " in told["message"]
        assert told["fix"] == "say how long it is: --size net=N"
        told = new_project(tmp_path, {"net": model}, "--size", "50")
    with load(told["bundle"]) as bundle:
        assert bundle.inputs["imu"].shape == made


def test_two_open_dimensions_of_a_tensor_are_refused(tmp_path):
    model = answering({"imu": [1, "t", "c"]}, {"y": [1, 3]})
    told = new_project(tmp_path, {"net": model}, "--size", "50")
    assert "is open in axes 1, 2, " in told["message"]


def test_eight_networks_are_joined_with_few_masks(new, tmp_path):
    told = new(**{f"m{k}": seeing(8 + k, 3, "Softmax") for k in range(8)})
    with load(told["bundle"]) as bundle:
        assert len(bundle.manifest.validated_masks) == 16  # and all of them
        assert bundle.labels("joined") == ("nothing", *(f"m{k}" for k in range(8)))
    assert told["next"][0].startswith("mmedge run ")
    assert (tmp_path / "p" / "mmedge.toml").read_text().endswith('allow = ["rules"]\n')


def rule(*names: str):
    joined = {name: RecipeTask(kind="classification", output=f"{name}.y", labels=("a", "b")) for name in names}
    scope: dict = {}
    exec(rule_text(joined), scope)
    return scope["join"]


def test_the_starters_rule_tells_combinations_and_of_many_the_surest():
    sure = {"a": 0.9, "b": 0.6, "c": 0.7}
    logits = {name: np.log([[p, 1 - p]]).astype(np.float32) for name, p in sure.items()}
    state = rule(*sure)(**logits)[0]
    for likely, switches in zip(state, product((False, True), repeat=3), strict=True):
        assert likely == pytest.approx(
            np.prod([p if on else 1 - p for p, on in zip(sure.values(), switches, strict=True)])
        )
    none = {name: np.zeros((1, 2), np.float32) for name in "defgh"}
    many = rule(*sure, *none)(**logits, **none)[0]
    assert many == pytest.approx([0.1, 0.9, 0.6, 0.7, 0, 0, 0, 0, 0])
    assert len(joined_labels([*sure, *none])) == len(many)


def test_the_starters_rule_says_what_a_softmax_cannot():
    boxes = Detection(layout="yolo", input="image")
    text = rule_text(
        {
            "a": RecipeTask(kind="classification", output="a.y", labels=("x", "y", "z")),
            "b": RecipeTask(kind="classification", output="b.y", labels=("b",), scores="probabilities"),
            "c": RecipeTask(kind="detection", output="c.y", labels=("c",), detection=boxes),
        }
    )
    assert "never\n    below 1/C" in text
    assert text.count("INDEX])") == 1
    assert "float(softmax(a)[0, INDEX])" in text


def test_a_network_may_be_called_as_nothing(new):
    told = new(nothing=seeing(8, 3, "Softmax"), other=seeing(8, 3, "Softmax"))
    with load(told["bundle"]) as bundle:
        assert bundle.labels("joined")[-1] == "nothing_net+other"


def test_a_file_given_twice_is_told(tmp_path, capfd, monkeypatch):
    onnx.save(seeing(8, 3, "Softmax"), tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    assert run(["new", "p", "--from", "a.onnx", str(tmp_path / "a.onnx"), "--json"]) == 0
    (hint,) = json.loads(capfd.readouterr().out)["hints"]
    assert "given twice: networks 'a' and 'a_2'" in hint


def test_a_failure_leaves_nothing_that_was_not_there(tmp_path, capfd):
    onnx.save(answering({"x": [1, 3, 320, 320]}, {"y": [1, 84, 2100]}), tmp_path / "net.onnx")
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").touch()
    for folder, said in (
        ("deep/er/p", "looks like boxes"),
        ("mine", "looks like boxes"),
        ("file", "the path is a file"),
    ):
        assert run(["new", str(tmp_path / folder), "--from", str(tmp_path / "net.onnx")]) == 2
        assert said in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "mine", "file"}
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ({"x": [4, 3, 16, 16]}, {"y": [4, 3]}, "a first dimension of 1, or an open one"),
        (PICTURE, {"boxes": [1, 256, 4], "scores": [1, 256, 2]}, "boxes are [1, 4 + C, n], [1, n, 5 + C] or [1, n, 6]"),
        (PICTURE, {"mask": [1, 5, 16, 16]}, "a callable that makes boxes or classes"),
        (PICTURE, {"embedding": [1, 8]}, "a callable that makes classes of the embedding"),
    ],
)
def test_outputs_that_no_task_fits_are_told_with_what_would(new, inputs, outputs, said):
    told = new(net=answering(inputs, outputs))
    with load(told["bundle"]) as bundle:
        assert (bundle.tasks, bundle.outputs) == ({}, tuple(f"net.{name}" for name in outputs))
    assert said in told["hints"][0]
    assert "Sigmoid" not in told["hints"][0]


def test_an_embedding_is_no_classification(new):
    told = new(net=answering(PICTURE, {"y": [1, 3], "image_features": [1, 8]}))
    assert told["left"] == ["net.image_features [1, 8]: taken as an embedding"]
    with load(told["bundle"]) as bundle:
        assert list(bundle.tasks) == ["net"]
