"""A number in a unit, from a folder of pictures to a live result: trained, quantised, measured, packed, run."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmedge
from mmedge.bundle import load
from mmedge.bundle.manifest import Ema
from mmedge.bundle.tasks import Regression
from mmedge.cli.inspect import nodes_of
from mmedge.errors import CheckError, ConfigError
from mmedge.export import Recipe, run_steps
from mmedge.export.training import train_and_save

pytestmark = pytest.mark.parallel

RECIPE = """
name = "dimmer"
licence = "MIT"
[data]
folder = "."
[inputs.image]
modality = "image"
size = [8, 8]
frame = [16, 16]
color = "gray"
mean = [0.5]
std = [0.25]
[model]
factory = "dimmer_model:make"
[stages.net]
inputs = { x = "image" }
outputs = { level = ["batch", 1] }
[tasks.light]
kind = "regression"
output = "net.level"
regression = { unit = "%", clamp = [0, 90] }
smoothing = { kind = "ema", tau_ms = 1 }
[train]
epochs = 30
batch_size = 16
learning_rate = 0.05
augment = false
workers = 0
weights = "weights.safetensors"
[calibration]
recordings = "light.mkv"
frames = 24
max_drop_points = 2.0
[export]
precisions = ["fp32", "int8"]
targets = ["cpu", "tensorrt"]
[sync]
trigger = "image"
"""
MODEL = """
from torch import nn
from mmedge.export.models.staged import StagedModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
        self.last = nn.Linear(128, 1)

    def forward(self, x):
        return 50 + 50 * self.last(self.layers(x))


def make(recipe):
    return StagedModel(recipe, {"net": Net()})
"""


def picture(percent: float, seed: int) -> np.ndarray:
    """Return uint8 [16, 16] whose mean is about ``percent`` of 255."""
    noise = np.random.default_rng(seed).normal(0, 4, (16, 16))
    return np.clip(2.55 * percent + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dimmer")
    rows = ["split,group,label,image,audio,text"]
    for number, percent in enumerate(np.random.default_rng(0).uniform(5, 85, 160)):
        split = "validation" if number % 4 == 0 else "test" if number % 4 == 1 else "train"
        cv2.imwrite(str(folder / f"{number}.png"), picture(percent, number))
        rows.append(f"{split},{split},{percent:.3f},{number}.png,,")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "dimmer_model.py").write_text(MODEL)
    (folder / "recipe.toml").write_text(RECIPE)
    clip = b"".join(picture(5 + 80 * (k % 40) / 40, k).tobytes() for k in range(120))
    command = "ffmpeg -loglevel error -f rawvideo -pix_fmt gray -s 16x16 -r 25 -i - -c:v ffv1 -y light.mkv"
    subprocess.run(command.split(), input=clip, cwd=folder, check=True)
    return folder


@pytest.mark.long
def test_from_a_folder_to_a_live_value(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    recipe = Recipe.load(home / "recipe.toml")
    report = train_and_save(recipe, progress=False)
    assert report.metrics == {"light": "mae"}
    assert report.temperature == {}
    assert 0 < report.validation["light"]["image"] < 5  # percent points of light, of 80 that occur
    exported = run_steps(recipe, output=home / "dimmer.mmedge", progress=lambda text, share: None)
    assert exported.comparison is not None
    (row,) = exported.comparison.rows
    assert row.difference is not None
    assert 0 < row.difference < 1.8
    assert row.agreement == pytest.approx(1 - row.difference / 90)
    assert exported.measurement is not None
    (measured,) = exported.measurement.to_dict()["rows"]  # type: ignore[misc,attr-defined]
    assert measured["metric"] == "mae"
    assert measured["fp32"] == pytest.approx(report.validation["light"]["image"], abs=0.05)
    with pytest.raises(CheckError, match=r"int8 differs from fp32 by [0-9.]+ % of the task's range on average"):
        exported.comparison.raise_for_status(0.0)

    with load(home / "dimmer.mmedge") as bundle:
        bundle.verify()
        task = bundle.tasks["light"]
        assert (task.labels, bundle.labels("light")) == (None, ())
        assert task.regression == Regression(unit="%", clamp=(0, 90))
        assert task.smoothing == Ema(tau_ms=1)
        assert not any(member.startswith("labels/") for member in bundle.manifest.files)
        (mask,) = bundle.manifest.validated_masks
        assert (mask.metric, mask.value) == ("mae", measured["fp32"])
        assert nodes_of(bundle)["task", "light"] == ["regression", "in %", "0 .. 90", "ema 1 ms"]

    told: list[tuple[float, float]] = []
    with mmedge.Pipeline(home / "dimmer.mmedge", {"image": "push://"}, isolation="thread", results="all") as pipe:
        results = iter(pipe)
        for number, percent in enumerate((10.0, 40.0, 70.0, 100.0)):
            time.sleep(0.05)  # fifty time constants of the smoothing
            pipe.push("image", picture(percent, 500 + number), time.monotonic_ns())
            result = next(results)
            light = result.tasks["light"]
            assert light.value is not None
            told.append((percent, light.value))
            line = json.loads(result.to_json())["tasks"]["light"]
            assert line == {"label": None, "score": None, "value": light.value, "unit": "%"}
            assert str(light) == f"{light.value:.4g} %"
    assert all(abs(value - percent) < 10 for percent, value in told[:3]), told
    assert told[3][1] <= 90


def test_a_label_of_the_folder_that_is_no_number_names_its_line(home: Path, tmp_path: Path) -> None:
    text = (home / "index.csv").read_text().splitlines()
    for label in ("bright", "nan"):  # one that is left out is not known
        text[3] = f"train,train,{label},2.png,,"
        (tmp_path / "index.csv").write_text("\n".join(text))
        (tmp_path / "recipe.toml").write_text(RECIPE)
        with pytest.raises(ConfigError, match=f"the label '{label}' is not a number") as caught:
            train_and_save(Recipe.load(tmp_path / "recipe.toml"), progress=False)
        assert str(caught.value.where).endswith("index.csv:4")


def test_a_folder_has_one_kind_of_label(home: Path, tmp_path: Path) -> None:
    extra = '[tasks.what]\nkind = "classification"\noutput = "net.level"\nlabels = ["dark"]\n[train]'
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("[train]", extra))
    (tmp_path / "index.csv").write_text((home / "index.csv").read_text())
    with pytest.raises(ConfigError, match="a class or a number, not both"):
        train_and_save(Recipe.load(tmp_path / "recipe.toml"), progress=False)
