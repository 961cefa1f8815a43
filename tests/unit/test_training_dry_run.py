"""What the model gives is held against the recipe before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export import Recipe, to_onnx  # noqa: E402
from mmedge.export.models.staged import StagedModel  # noqa: E402
from mmedge.export.training import loop, train_and_save  # noqa: E402
from mmedge.export.training.dry_run import dry_run  # noqa: E402

RECIPE = """
name = "t"
licence = "MIT"
[data]
dataset = "DATA:Data"
[inputs.imu]
modality = "tensor"
shape = [1, 3]
[model]
factory = "MODEL:make"
[stages.encoder]
inputs = { x = "imu", last = "@state:memory" }
outputs = { y = ["batch", 4], memory = ["batch", 5] }
[stages.fusion]
inputs = { y = "encoder.y", present = "@present" }
outputs = { state = ["batch", 2] }
[tasks.state]
kind = "classification"
output = "fusion.state"
labels = ["calm", "alarm"]
[train]
workers = 0
epochs = 1
[sync]
trigger = "imu"
"""
MODEL = """
import torch
from torch import nn
from mmedge.export.models.staged import StagedModel


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(8, 5)

    def forward(self, x, last):
        x = self.norm(x)
        return self.a(x), torch.tanh(self.b(torch.cat([x, last], 1)))


class Fusion(nn.Linear):
    def forward(self, y, present):
        return super().forward(y * present)


def make(recipe):
    return StagedModel(recipe, {"encoder": Encoder(), "fusion": Fusion(4, 2)})
"""
DATA = """
import numpy as np
from mmedge.export.datasets.base import Dataset, Sample


class Data(Dataset):
    def prepare(self): ...

    def split(self, name, *, epoch=0):
        rng = np.random.default_rng(0)
        return [Sample(inputs={"imu": rng.normal(size=(6, 3)).astype(np.float32)}, labels={"imu": k % 2})
                for k in range(COUNT)]

    def groups(self, name):
        return frozenset((name,))
"""


def project(folder: Path, *changes: tuple[str, str], count: int = 8) -> Recipe:
    texts = {"r.toml": RECIPE, "MODEL": MODEL, "DATA": DATA.replace("COUNT", str(count))}
    for old, new in changes:
        assert any(old in text for text in texts.values())
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    # Modules are remembered by name: each project has its own.
    for name in ("MODEL", "DATA"):
        own = f"{name.lower()}_{folder.name}"
        texts = {key: text.replace(f"{name}:", f"{own}:") for key, text in texts.items()}
        (folder / f"{own}.py").write_text(texts[name])
    (folder / "r.toml").write_text(texts["r.toml"])
    return Recipe.load(folder / "r.toml")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(loop, "_fit", fit)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("changes", "message", "key"),
    [
        (
            [('y = ["batch", 4]', 'y = ["batch", 5]')],
            r"Encoder returns \[1, 4\], \[1, 5\], but the recipe declares \[1, 5\], \[1, 5\]",
            "stages.encoder.outputs",
        ),
        (
            [('state = ["batch", 2]', "state = [1, 3]"), ('"alarm"', '"alarm", "fire"')],
            r"Fusion returns \[1, 2\], but the recipe declares \[1, 3\]",
            "stages.fusion.outputs",
        ),
        ([('"alarm"', '"alarm", "fire"')], r"fusion.state \[1, 2\] has 2 classes, there are 3 labels", "tasks.state.l"),
        (
            [('state = ["batch", 2]', 'state = ["batch", 2], more = [2]')],
            r"Fusion returns a tensor \[2, 2\], but the recipe declares state, more",
            "stages.fusion.outputs",
        ),
        ([("return super().forward(y", "return super().forward(y[:, :3]")], "Fusion cannot take a batch", "stages.fus"),
        ([('present = "@present"', 'there = "@present"')], r"of Fusion does not take the inputs .*there", "stages.fus"),
    ],
)
def test_a_model_that_does_not_fit_its_recipe_is_told_before_training(
    tmp_path: Path, changes: list[tuple[str, str]], message: str, key: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        train_and_save(project(tmp_path, *changes), progress=False)
    where = str(caught.value.where)
    assert key in where
    assert where.startswith(f"{tmp_path / 'r.toml'}: $.")
    if "cannot take" in message:
        assert where.endswith(f"model_{tmp_path.name}.py:20")
        assert "'y': [2, 4]" in caught.value.message


@pytest.mark.usefixtures("untrained")
def test_a_split_without_samples_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no samples of split 'train'"):
        train_and_save(project(tmp_path, count=0), progress=False)


def test_the_exporter_says_the_same_in_the_same_words(tmp_path: Path) -> None:
    recipe = project(tmp_path, ('y = ["batch", 4]', 'y = ["batch", 5]'))
    model = loop.make_model(recipe)
    with pytest.raises(ConfigError) as late:
        to_onnx(model, recipe)
    with pytest.raises(ConfigError) as early:
        dry_run(model, loop.make_dataset(recipe), recipe)
    assert str(early.value) == str(late.value)


def test_a_dry_run_leaves_no_trace(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    model: StagedModel = loop.make_model(recipe)
    model.get_submodule("encoder.norm").eval()  # as frozen layers are
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(4)
    want = torch.rand(3)
    torch.manual_seed(4)
    dry_run(model, loop.make_dataset(recipe), recipe)
    torch.testing.assert_close(torch.rand(3), want)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes["encoder"]
    assert not modes["encoder.norm"]
    assert isinstance(model, nn.Module)


def test_a_data_set_beside_the_recipe_is_found_by_workers_too(tmp_path: Path) -> None:
    recipe = project(tmp_path, ("workers = 0", "workers = 1"))
    report = train_and_save(recipe, output=tmp_path / "w.safetensors", limit=1, progress=False)
    assert report.validation["state"].keys() == {"imu"}
