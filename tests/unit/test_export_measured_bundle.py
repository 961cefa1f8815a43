"""The exporter measures every mask itself, with the networks it exported; the manifest says what it found."""

from __future__ import annotations

import io
import json
import logging
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.export import Recipe, demo, run_steps
from mmedge.export.training import make_dataset, save_weights
from mmedge.export.training.evaluate import accuracies, examine
from mmedge.export.training.weights import make_model
from tests.measured import DATA, RECIPE, project

FAKE = {"seed": 1, "validated_masks": [{"present": ["a", "b"], "metric": "top1", "value": 0.1234}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests share what was exported, as runs of one user do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture(scope="module")
def recipe(home: Path) -> Recipe:
    found = project(home)
    save_weights(make_model(found), FAKE, home / "weights.safetensors")
    return found


def test_the_bundle_carries_what_was_measured(recipe: Recipe, tmp_path: Path) -> None:
    shown: list[str] = []
    first = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: shown.append(text))
    assert {"measure", "measure: 120 of 120 samples"} <= set(shown)
    with recipe.importable():
        dataset = make_dataset(recipe)
    want = accuracies(recipe, examine(make_model(recipe).eval(), dataset, dataset.split("validation"), recipe)[0])
    with load(tmp_path / "a.mmedge") as bundle:
        masks = {"+".join(mask.present): mask for mask in bundle.manifest.validated_masks}
    assert {mask: (m.metric, m.value) for mask, m in masks.items()} == {
        mask: ("top1", value) for mask, value in want["state"].items()
    }
    samples = dataset.split("validation")
    alone = {name: sum(name in sample.inputs for sample in samples) for name in "ab"}
    both = sum(len(sample.inputs) == 2 and sample.labels["a"] == sample.labels["b"] for sample in samples)
    assert {mask: m.samples for mask, m in masks.items()} == {"a+b": both, **alone}
    for mask in masks.values():
        assert mask.low is not None
        assert mask.high is not None
        assert 0 <= mask.low < mask.value < mask.high <= 1

    document = json.loads(json.dumps(first.to_dict()))["measurement"]
    assert document["schema"] == "mmedge.measurement/1"
    assert {row["fp32"] for row in document["rows"] if row["task"] == "state"} == {*want["state"].values()}
    text = io.StringIO()
    first.print(Console(file=text, width=100))
    assert "Exported networks on 120 validation samples" in text.getvalue()

    second = run_steps(recipe, output=tmp_path / "b.mmedge", progress=lambda text, share: None)
    assert "measure" in second.cached
    assert second.measurement == first.measurement
    assert (tmp_path / "a.mmedge").read_bytes() == (tmp_path / "b.mmedge").read_bytes()

    for folder in first.folder.parent.glob("measure-*"):
        shutil.rmtree(folder)
    again = run_steps(recipe, output=tmp_path / "c.mmedge", progress=lambda text, share: None)
    assert "measure" not in again.cached
    assert (tmp_path / "a.mmedge").read_bytes() == (tmp_path / "c.mmedge").read_bytes()


def figures(bundle: Path) -> list[float]:
    with load(bundle) as opened:
        return [mask.value for mask in opened.manifest.validated_masks]


def test_training_speaks_where_nothing_can_be_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = DATA.replace("def prepare(self): ...", "def prepare(self): raise Missing('no espeak-ng', fix='apt-get it')")
    recipe = project(tmp_path, data="from mmedge.errors import MissingDependencyError as Missing\n" + data)
    save_weights(make_model(recipe), FAKE, tmp_path / "weights.safetensors")
    with caplog.at_level(logging.WARNING, "mmedge.export.run"):
        report = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: None)
    assert report.measurement is None
    assert report.to_dict()["measurement"] is None
    assert figures(tmp_path / "a.mmedge") == [0.1234]
    (told,) = [record.getMessage() for record in caplog.records]
    for part in ("not measured", "figures of training", "no espeak-ng", "apt-get it"):
        assert part in told


def test_measuring_can_be_left_out(recipe: Recipe, tmp_path: Path) -> None:
    report = run_steps(recipe, output=tmp_path / "a.mmedge", measure=False, progress=lambda text, share: None)
    assert "measure" not in report.seconds
    assert figures(tmp_path / "a.mmedge") == [0.1234]


def test_the_demo_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    module = import_module("mmedge.export.run")
    monkeypatch.setattr(module, "run_steps", lambda recipe, **options: asked.update(options))
    demo.make_bundle(tmp_path / "a.mmedge", train=False, progress=lambda text, share: None)
    assert asked["measure"] is False


def test_a_recipe_without_data_has_nothing_to_measure(tmp_path: Path) -> None:
    recipe = project(tmp_path, RECIPE.replace('[data]\ndataset = "data:Data"\n', ""))
    with pytest.raises(ConfigError, match="no data to measure on") as caught:
        run_steps(recipe, only="measure", progress=lambda text, share: None)
    assert caught.value.where == f"{tmp_path / 'r.toml'}: $.data"


def test_a_recipe_that_verifies_alone_tells_of_that(tmp_path: Path) -> None:
    head, task = RECIPE.split("[tasks.state]")[0], RECIPE[RECIPE.index("[tasks.same]") :]
    recipe = project(tmp_path, head + task)
    save_weights(make_model(recipe), {}, tmp_path / "weights.safetensors")
    run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: None)
    with load(tmp_path / "a.mmedge") as bundle:
        (mask,) = bundle.manifest.validated_masks
    assert (mask.present, mask.metric) == (("a", "b"), "accuracy")


IMAGE_RECIPE = """
name = "shapes"
licence = "Apache-2.0"
[data]
dataset = "data:Data"
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
PICTURES = """
import numpy as np
from mmedge.export.datasets.base import Dataset, Sample


class Data(Dataset):
    def prepare(self): ...

    def split(self, name, *, epoch=0):
        rng = np.random.default_rng(5)
        pictures = [rng.integers(0, 256, (48, 64, 1), np.uint8) for _ in range(36)]
        return [Sample(inputs={"image": x}, labels={"image": k % 3}) for k, x in enumerate(pictures)]

    def groups(self, name):
        return frozenset((name,))
"""


def test_both_precisions_are_measured_where_both_are_exported(tmp_path: Path, write_clip: Any) -> None:
    write_clip("clip.mkv")
    recipe = project(tmp_path, IMAGE_RECIPE, PICTURES)
    save_weights(make_model(recipe), {}, tmp_path / "weights.safetensors")
    report = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: None)
    assert report.measurement is not None
    (row,) = report.measurement.rows
    assert row.right.keys() == {"fp32", "int8"}
    assert row.samples == 36
    steps = ("train", "onnx", "parity", "parser", "quantize", "compare", "measure", "golden", "smoke", "pack")
    assert tuple(report.seconds) == steps
    document = report.to_dict()["measurement"]
    assert isinstance(document, dict)
    assert document["rows"][0]["int8"] == row.accuracy("int8")
    assert document["largest_drop"]["points"] == round(row.lost or 0.0, 2)
    assert figures(tmp_path / "a.mmedge") == [row.accuracy("fp32")]
