"""How old data are can be trained with: from the sample through the batch into stages, and out as ONNX."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from torch import nn  # noqa: E402

from mmedge.bundle import load  # noqa: E402
from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export import Recipe, compare, run_steps  # noqa: E402
from mmedge.export.datasets.base import Sample  # noqa: E402
from mmedge.export.models.staged import StagedModel  # noqa: E402
from mmedge.export.training import load_weights, make_dataset, train_and_save  # noqa: E402
from mmedge.export.training.evaluate import accuracies, examine  # noqa: E402

RECIPE = """
name = "t"
licence = "MIT"
[data]
dataset = "age_data:Data"
[inputs.a]
modality = "tensor"
shape = [1, 2]
[inputs.b]
modality = "tensor"
shape = [1, 2]
[model]
factory = "age_model:make"
[stages.ear]
inputs = { x = "b" }
outputs = { y = ["batch", 2] }
[stages.fusion]
inputs = { a = "a", ear = "ear.y", present = "@present", age = "@age_ms" }
outputs = { state = ["batch", 2] }
[tasks.state]
kind = "classification"
output = "fusion.state"
labels = ["fresh", "stale"]
[train]
epochs = 12
batch_size = 16
learning_rate = 0.05
modality_dropout = 0.0
workers = 0
weights = "weights.safetensors"
[export]
precisions = ["fp32"]
targets = ["cpu"]
[sync]
trigger = "a"
"""
MODEL = """
import torch
from torch import nn
from mmedge.export.models.staged import StagedModel


class Ear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, a, ear, present, age):
        return self.layers(torch.cat([a * present[:, :1], ear * present[:, 1:], present, age / 100], 1))


def make(recipe):
    return StagedModel(recipe, {"ear": Ear(2, 2), "fusion": Fusion()})
"""
# The arrays say nothing: the class is whether the oldest input is older than 100 ms.
DATA = """
import numpy as np
from mmedge.export.datasets.base import SPLITS, Dataset, Sample


class Data(Dataset):
    def prepare(self): ...

    def split(self, name, *, epoch=0):
        rng, samples = np.random.default_rng(SPLITS.index(name)), []
        for number in range(96 if name == "train" else 32):
            stale = number % 2
            ages = {n: float(rng.uniform(150, 250) if stale else rng.uniform(0, 50)) for n in "ab"}
            inputs = {n: rng.normal(size=2).astype(np.float32) for n in "ab"}
            samples.append(Sample(inputs=inputs, labels=dict.fromkeys("ab", stale), age_ms=ages))
        return samples

    def groups(self, name):
        return frozenset((name,))
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("age")
    for name, text in (("r.toml", RECIPE), ("age_model.py", MODEL), ("age_data.py", DATA)):
        (folder / name).write_text(text)
    return Recipe.load(folder / "r.toml")


def test_ages_become_a_row_of_the_batch(recipe: Recipe) -> None:
    data = make_dataset(recipe)
    row = np.zeros(2, np.float32)
    batch = data.collate(
        [
            Sample(inputs={"a": row, "b": row}, labels={}, age_ms={"b": 30.5}),
            Sample(inputs={"a": row}, labels={}, age_ms={"a": 2, "b": 7}),
            Sample(inputs={"a": row}, labels={}),
        ]
    )
    assert batch["age_ms"].dtype == torch.float32
    assert batch["age_ms"].tolist() == [[0, 30.5], [2, 0], [0, 0]], "what is absent has no age"


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        ({"c": 1.0}, r"an age for 'c', the recipe's inputs are \['a', 'b'\]"),
        ({"a": -1.0}, "is -1.0 ms"),
        ({"a": float("nan")}, "is nan ms"),
    ],
)
def test_what_is_no_age_is_refused(recipe: Recipe, ages: dict[str, float], message: str) -> None:
    sample = Sample(inputs={"a": np.zeros(2, np.float32)}, labels={}, age_ms=ages)
    with pytest.raises(ConfigError, match=message):
        make_dataset(recipe).collate([sample])


class Told(nn.Module):
    """Returns what it is fed."""

    def forward(self, x: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        return age


class Passed(nn.Module):
    def forward(self, **feeds: torch.Tensor) -> torch.Tensor:
        return next(iter(feeds.values()))


def test_stages_that_take_ages_depend_on_the_mask(recipe: Recipe) -> None:
    ear = msgspec.structs.replace(recipe.stages["ear"], inputs={"x": "b", "age": "@age_ms"})
    after = msgspec.structs.replace(recipe.stages["fusion"], inputs={"y": "ear.y"})
    stages = {"ear": ear, "fusion": after}
    model = StagedModel(msgspec.structs.replace(recipe, stages=stages), {"ear": Told(), "fusion": Passed()})
    assert model.masked == {"ear", "fusion"}
    inputs = {name: torch.zeros(2, 2) for name in "ab"}
    present = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    ages = torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    assert model.features(inputs) == {}
    full = model(inputs, torch.ones(2, 2), ages)
    assert full["fusion.state"].tolist() == ages.tolist()
    assert model(inputs, present, ages, reuse=full)["fusion.state"].tolist() == [[3, 4], [0, 6]]
    assert model(inputs, present)["fusion.state"].tolist() == [[0, 0], [0, 0]]


@pytest.mark.long
def test_a_model_learns_from_ages_alone_and_is_exported(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trained = train_and_save(recipe, progress=False)
    assert min(trained.validation["state"].values()) >= 0.95
    report = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: None)
    assert report.measurement is not None
    data, (model, _) = make_dataset(recipe), load_weights(recipe)
    want = accuracies(recipe, examine(model, data, data.split("validation"), recipe)[0])
    assert report.measurement.fp32 == want == trained.validation
    with load(tmp_path / "a.mmedge") as bundle:
        assert bundle.golden("golden/fusion.npz")["in.age"].shape == (4, 2)
    assert report.onnx is not None
    rng = np.random.default_rng(0)
    raw = [{name: rng.normal(size=(1, 2)).astype(np.float32) for name in "ab"} for _ in range(6)]
    assert compare(report.onnx, report.onnx, samples=raw).agreement == {"state": 1.0}


def test_an_index_tells_how_old_the_data_of_a_line_are(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    text = RECIPE.split("[inputs.a]")[0].replace('dataset = "age_data:Data"', 'folder = "."')
    text += """
[inputs.camera]
modality = "image"
size = [4, 4]
frame = [8, 8]
color = "gray"
mean = [0.5]
std = [0.25]
[model]
factory = "unused:make"
[stages.net]
inputs = { x = "camera", age = "@age_ms" }
outputs = { y = ["batch", 2] }
[tasks.t]
kind = "classification"
output = "net.y"
labels = ["0", "1"]
[sync]
trigger = "camera"
"""
    (tmp_path / "r.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.toml")
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((8, 8), np.uint8))

    def index(*ends: str, columns: str = ",image_age_ms") -> None:
        lines = [f"{split},{split},0,p.png,,{end}" for split, end in zip(("train", "validation", "test"), ends)]  # noqa: B905
        (tmp_path / "index.csv").write_text("\n".join([f"split,group,label,image,audio,text{columns}", *lines]))

    index(",12.5", ",", ",0")
    data = make_dataset(recipe)
    assert data.split("train")[0].age_ms == {"camera": 12.5}
    assert data.collate([data.split("train")[0], data.split("validation")[0]])["age_ms"].tolist() == [[12.5], [0]]
    for bad in (",x", ",-1", ",nan"):
        index(bad, ",", ",")
        with pytest.raises(ConfigError, match="is not an age in ms") as caught:
            make_dataset(recipe)
        assert caught.value.where == f"{tmp_path / 'index.csv'}:2"
    for columns in (",age", ",image_age_ms,image_age_ms"):
        index("," * columns.count(","), columns=columns)
        with pytest.raises(ConfigError, match="and after them any of image_age_ms,audio_age_ms,text_age_ms"):
            make_dataset(recipe)
    index("", "", "", columns="")
    assert make_dataset(recipe).split("train")[0].age_ms == {"camera": 0.0}
