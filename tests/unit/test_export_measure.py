"""Exported networks are measured on samples as torch is in training, under every mask, whatever the stages take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import nn

from mmedge.errors import CheckError
from mmedge.export import Recipe, to_onnx
from mmedge.export.datasets.base import Dataset, Sample
from mmedge.export.measure import MaskAccuracy, Measurement, measure, measure_key
from mmedge.export.models.staged import StagedModel
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.training import make_dataset
from mmedge.export.training.evaluate import accuracies, examine
from mmedge.export.training.weights import make_model
from tests.measured import RECIPE, project


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return project(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def versions(recipe: Recipe) -> list[OnnxModels]:
    """Return the fp32 networks, and as int8 the same without an ear."""
    fp32 = to_onnx(make_model(recipe), recipe)
    deaf = onnx.ModelProto()
    deaf.CopyFrom(fp32.models["ear"])
    for tensor in deaf.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    return [fp32, replace(fp32, precision="int8", models={**fp32.models, "ear": deaf})]


MEMORY = RECIPE.replace(
    'inputs = { x = "a" }\noutputs = { y = ["batch", 3] }',
    'inputs = { x = "a", last = "@state:memory" }\noutputs = { y = ["batch", 3], memory = ["batch", 4] }',
)
AGES = RECIPE.replace('present = "@present"', 'present = "@present", age = "@age_ms"').replace(
    'inputs = { x = "b" }', 'inputs = { x = "b", age = "@age_ms" }'
)


class Eye(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.cat([x, last], 1)
        return self.a(both), torch.tanh(self.b(both))


class Ear(nn.Linear):
    def forward(self, x: torch.Tensor, age: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x if age is None else x + age)


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, eye: Any, ear: Any, present: Any, age: Any = None) -> Any:
        age = torch.zeros_like(present) if age is None else age
        x = torch.cat([eye * present[:, :1] + age[:, 1:], ear * present[:, 1:] - age[:, :1]], 1)
        return self.a(x), self.b(x)


class Listed(Dataset):
    """A data set of samples that are given."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample]) -> None:
        super().__init__(recipe)
        self.samples = samples

    def prepare(self) -> None: ...

    def split(self, name: Any, *, epoch: int = 0) -> Any:
        return self.samples

    def groups(self, name: Any) -> frozenset[str]:
        return frozenset((name,))


def drawn(count: int, steps: int = 0) -> list[Sample]:
    rng = np.random.default_rng(1)
    samples = []
    for number in range(count):
        there = ("ab", "ab", "a", "b")[number % 4]
        shapes = {"a": (steps, 2) if steps else (2,), "b": (2,)}
        samples.append(
            Sample(
                inputs={n: rng.normal(size=shapes[n]).astype(np.float32) for n in there},
                labels={n: int(rng.integers(2)) for n in there},
                age_ms={n: float(rng.uniform(0, 3)) for n in there},
            )
        )
    return samples


@pytest.mark.parametrize(("text", "steps"), [(RECIPE, 0), (MEMORY, 5), (AGES, 0)], ids=["plain", "states", "ages"])
def test_onnx_is_measured_as_torch_is(tmp_path: Path, text: str, steps: int) -> None:
    recipe = project(tmp_path, text)
    torch.manual_seed(8)
    # Weights that are not small: what was fed wrongly would give other labels.
    model = StagedModel(recipe, {"eye": Eye() if steps else Ear(2, 3), "ear": Ear(2, 3), "fusion": Fusion()})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=2.0)
    dataset = Listed(recipe, drawn(80, steps))
    found = measure([to_onnx(model, recipe)], dataset)
    want = accuracies(recipe, examine(model, dataset, dataset.samples, recipe)[0])
    assert found.fp32 == want
    assert want["state"].keys() == {"a+b", "a", "b"}
    assert want["same"].keys() == {"a+b"}
    assert len({*want["state"].values()}) > 1
    assert (found.samples, found.of) == (80, 80)


def test_int8_that_is_wrong_under_one_mask_is_refused(recipe: Recipe, versions: list[OnnxModels]) -> None:
    fp32, deaf = versions
    with recipe.importable():
        dataset = make_dataset(recipe)
    model = make_model(recipe)
    with torch.no_grad():  # fp32 answers what the ear hears
        for sample in (samples := dataset.split("validation")):
            present = torch.tensor([[0.0, 1.0]])
            inputs = {n: torch.from_numpy(sample.inputs.get(n, np.zeros(2, np.float32)))[None] for n in "ab"}
            heard = int(model(inputs, present)["fusion.state"].argmax())
            sample.labels.update(dict.fromkeys(sample.labels, heard))
    found = measure([fp32, deaf], Listed(recipe, samples))
    row = next(row for row in found.rows if (row.task, row.present) == ("state", ("b",)))
    assert row.accuracy("fp32") == 1.0
    assert row.lost is not None
    assert row.lost > 20
    message = rf"int8 is right on {100 - row.lost:.2f} % of {row.samples}.* allowed"
    with pytest.raises(CheckError, match=message) as told:
        found.raise_for_status(2.0)
    assert told.value.where == "task 'state' with b"
    found.raise_for_status(100.0)
    document = found.to_dict()
    worst = {"task": "state", "present": ("b",), "precision": "int8", "points": round(row.lost, 2)}
    assert document["largest_drop"] == worst
    text = io.StringIO()
    Console(file=text, width=100).print(found.table())
    assert "INT8 loses most on state with b" in text.getvalue()
    measure([fp32], Listed(recipe, samples)).raise_for_status(0.0)


def test_two_samples_of_a_mask_may_always_be_lost() -> None:
    def of(right: int) -> Measurement:
        row = MaskAccuracy(task="t", present=("a",), samples=40, right={"fp32": 40, "int8": right})
        return Measurement(samples=40, of=40, rows=(row,))

    of(38).raise_for_status(0.5)
    with pytest.raises(CheckError, match=r"7\.50 points less, 5 allowed"):
        of(37).raise_for_status(0.5)


def test_probabilities_of_a_verification_are_even_at_a_half(tmp_path: Path) -> None:
    text = RECIPE.replace('kind = "verification"', 'kind = "verification"\nscores = "probabilities"')
    recipe = project(tmp_path, text)

    class Sure(Fusion):
        def forward(self, eye: Any, ear: Any, present: Any, age: Any = None) -> Any:
            return self.a(torch.cat([eye, ear], 1)), torch.sigmoid(eye[:, :1] * 0 - 1) + 0 * ear[:, :1]

    model = StagedModel(recipe, {"eye": Ear(2, 3), "ear": Ear(2, 3), "fusion": Sure()})
    other = [Sample(inputs={n: np.ones(2, np.float32) for n in "ab"}, labels={"a": 0, "b": 1})] * 4
    assert measure([to_onnx(model, recipe)], Listed(recipe, other)).fp32["same"] == {"a+b": 1.0}


def test_a_large_split_is_drawn_from_evenly(recipe: Recipe, versions: list[OnnxModels]) -> None:
    asked: list[int] = []

    class Counted(list[Sample]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    samples = Counted(drawn(10) * 25)
    told: list[tuple[int, int]] = []
    found = measure(versions[:1], Listed(recipe, samples), limit=100, progress=lambda *x: told.append(x))
    assert (found.samples, found.of) == (100, 250)
    assert len(asked) == 100
    assert {b - a for a, b in pairwise(asked)} == {2, 3}
    assert told[-1] == (100, 100)
    assert "evenly drawn from 250" in str(found.table().title)


def test_another_file_of_the_folder_is_measured_anew(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    text = """
name = "t"
licence = "MIT"
[data]
folder = "data"
[inputs.image]
modality = "image"
size = [4, 4]
frame = [8, 8]
color = "gray"
mean = [0.5]
std = [0.25]
[model]
factory = "unused:make"
[stages.net]
inputs = { x = "image" }
outputs = { y = ["batch", 2] }
[tasks.t]
kind = "classification"
output = "net.y"
labels = ["0", "1"]
[sync]
trigger = "image"
"""
    data = tmp_path / "data"
    data.mkdir()
    lines = ["split,group,label,image,audio,text"]
    for number, split in enumerate(("train", "validation", "test")):
        cv2.imwrite(str(data / f"{split}.png"), np.full((8, 8), number, np.uint8))
        lines.append(f"{split},{split},{number % 2},{split}.png,,")
    (data / "index.csv").write_text("\n".join(lines))
    (tmp_path / "r.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.toml")
    before = measure_key(make_dataset(recipe))
    assert measure_key(make_dataset(recipe)) == before
    cv2.imwrite(str(data / "train.png"), np.full((8, 8), 200, np.uint8))
    assert measure_key(make_dataset(recipe)) == before, "only what is measured on counts"
    cv2.imwrite(str(data / "validation.png"), np.full((8, 8), 200, np.uint8))
    assert measure_key(make_dataset(recipe)) != before
