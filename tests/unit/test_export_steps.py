"""The steps of an export: done once, stopped after, refused where a recipe does not have them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.export import Recipe, run_steps
from mmedge.export.smoke import Smoke, SmokeRow
from mmedge.export.training import save_weights
from mmedge.export.training.weights import make_model
from tests.measured import DATA, RECIPE, project

pytestmark = pytest.mark.parallel


def recipe_in(folder, text: str) -> Recipe:
    (folder / "r.toml").write_text(text)
    return Recipe.load(folder / "r.toml")


IMAGE_RECIPE = """
name = "shapes"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [112, 112]
frame = [48, 64]
color = "gray"
mean = [0.5]
std = [0.25]
[model]
factory = "mmedge.export.models.digits_image:make"
parameters = { embedding = 8 }
[stages.image_encoder]
inputs = { x = "image" }
outputs = { embedding = ["batch", 8] }
[stages.head]
inputs = { embedding = "image_encoder.embedding" }
outputs = { digit = ["batch", 3] }
[tasks.digit]
kind = "classification"
output = "head.digit"
labels = ["0", "1", "2"]
[train]
weights = "weights.safetensors"
[calibration]
recordings = "clip.mkv"
frames = 8
max_drop_points = 100
[sync]
trigger = "image"
"""


def test_all_steps_run_once_and_are_resumed(tmp_path, write_clip, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_clip("clip.mkv")
    recipe = recipe_in(tmp_path, IMAGE_RECIPE)
    save_weights(make_model(recipe), {"seed": 5, "temperature": {"digit": 1.5}}, tmp_path / "weights.safetensors")
    shown: list[str] = []

    partial = run_steps(recipe, only="onnx", progress=lambda text, share: shown.append(text))
    assert partial.path is None
    assert sorted(p.name for p in partial.folder.glob("*.onnx")) == ["head.fp32.onnx", "image_encoder.fp32.onnx"]
    assert partial.cached == ["train"]

    first = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: shown.append(text))
    assert first.cached == ["train", "onnx"]
    steps = ["train", "onnx", "parity", "parser", "quantize", "compare", "golden", "smoke", "pack"]
    assert list(first.seconds) == steps
    assert {"train", "onnx", "quantize", "compare", "pack", "done"} <= set(shown)
    second = run_steps(recipe, output=tmp_path / "b.mmedge", progress=lambda text, share: None)
    assert second.cached == steps[:-1], "the bundle is another file"
    assert (tmp_path / "a.mmedge").read_bytes() == (tmp_path / "b.mmedge").read_bytes()
    with load(tmp_path / "a.mmedge") as bundle:
        assert bundle.manifest.provenance["seed"] == 5
        assert bundle.tasks["digit"].temperature == 1.5

    document = second.to_dict()
    assert document["schema"] == "mmedge.export/1"
    assert document["quantization"]["coverage"] == 1.0
    text = io.StringIO()
    second.print(Console(file=text, width=100))
    assert "ONNX against torch" in text.getvalue()
    assert "INT8" in text.getvalue()

    save_weights(make_model(recipe), {"seed": 6}, tmp_path / "weights.safetensors")
    assert run_steps(recipe, only="train").folder != first.folder, "other weights, other results"


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("int8", 'precisions = ["fp32", "int8"]'),
        ("compare", 'precisions = ["fp32", "int8"]'),
        ("fp16", 'precisions = ["fp32", "fp16"]'),
        ("parser", 'targets = ["cpu", "tensorrt"]'),
        ("smoke", 'targets = ["cpu", "tensorrt"]'),
        ("measure", "data.dataset"),
    ],
)
def test_a_step_that_a_recipe_does_not_have_is_an_error_with_the_line_to_write(tmp_path, monkeypatch, step, line):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = IMAGE_RECIPE.replace('[data]\ndataset = "data:Data"\n', "")
    text += '[export]\nprecisions = ["fp32"]\ntargets = ["cpu"]\n'
    with pytest.raises(ConfigError) as caught:
        run_steps(recipe_in(tmp_path, text), only=step, progress=lambda text, share: None)
    assert line in caught.value.fix
    assert not list((tmp_path / "cache").rglob("*.onnx")), "it is said before anything is done"


def test_an_unknown_step_and_an_unwritable_cache_are_refused(tmp_path, monkeypatch):
    recipe = recipe_in(tmp_path, IMAGE_RECIPE)
    with pytest.raises(ConfigError, match="unknown step 'fly'"):
        run_steps(recipe, only="fly")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot write the export cache") as caught:
        run_steps(recipe, only="train")
    assert "XDG_CACHE_HOME" in caught.value.fix


def test_what_tensorrt_did_not_build_is_tried_again(tmp_path, write_clip, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_clip("clip.mkv")
    text = IMAGE_RECIPE + '[export]\nprecisions = ["fp32"]\n'
    recipe = recipe_in(tmp_path, text)
    save_weights(make_model(recipe), {}, tmp_path / "weights.safetensors")
    problems = ["no answer within 60 s", None]

    def smoke(*_: object) -> Smoke:
        return Smoke(rows=(SmokeRow(stage="head", precision="fp32", problem=problems.pop(0)),))

    monkeypatch.setattr("mmedge.export.steps.smoke", smoke)
    runs = [run_steps(recipe, only="smoke", progress=lambda text, share: None) for _ in range(3)]
    assert [run.smoke.rows[0].problem for run in runs if run.smoke] == ["no answer within 60 s", None, None]
    assert ["smoke" in run.cached for run in runs] == [False, False, True]


def test_an_error_of_the_data_is_none_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = DATA.replace("def prepare(self): ...", "def prepare(self): raise OSError(5, 'the share is gone')")
    recipe = project(tmp_path, RECIPE.replace('weights = "weights.safetensors"\n', ""), data=data)
    with pytest.raises(Exception, match="the share is gone") as caught:
        run_steps(recipe, only="train", progress=lambda text, share: None)
    assert "export cache" not in str(caught.value)
