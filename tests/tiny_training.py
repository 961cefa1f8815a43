"""A small folder of data of every kind, and a recipe whose networks learn from it in seconds."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.export.datasets.folder import Folder
from mmedge.export.recipe import Recipe

EYE = """\
modality = "image"
size = [8, 8]
color = "gray"
mean = [0.4]
std = [0.3]
frame = [16, 16]
"""
RECIPE = f"""
name = "tiny"
licence = "Apache-2.0"
seed = 3

[data]
folder = "data"

[inputs.front]
{EYE}
[inputs.rear]
{EYE}
[inputs.sound]
modality = "audio"
sample_rate_hz = 1000
window_ms = 64

[inputs.imu]
modality = "tensor"
shape = [1, 4]

[model]
factory = "tiny_model:make"

[stages.net]
inputs = {{ front = "front", rear = "rear", sound = "sound", imu = "imu", present = "@present" }}
outputs = {{ side = [1, 2], level = [1, 1], same = [1, 1], loud = [1, 3] }}

[tasks.side]
kind = "classification"
output = "net.side"
labels = ["left", "right"]

[tasks.loud]
kind = "classification"
output = "net.loud"
labels = ["quiet", "middle", "loud"]
column = "loudness"

[tasks.level]
kind = "regression"
output = "net.level"
column = "level"

[tasks.same]
kind = "verification"
output = "net.same"
labels = ["no", "yes"]
column = "same"

[train]
epochs = 4
batch_size = 16
learning_rate = 1e-2
workers = 0
weights = "w.safetensors"

[sync]
trigger = "front"
"""

MODEL = """
import torch
from torch import nn
from mmedge.export.models.staged import StagedModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.rear = nn.Linear(64, 8), nn.Linear(64, 8)
        self.sound, self.imu = nn.Linear(64, 8), nn.Linear(4, 8)
        self.drop = nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(36)
        self.heads = nn.ModuleList(nn.Linear(36, n) for n in (2, 1, 1, 3))

    def forward(self, front, rear, sound, imu, present):
        each = [self.front(front.flatten(1)), self.rear(rear.flatten(1)), self.sound(sound.abs() * 4), self.imu(imu)]
        known = [torch.relu(x) * present[:, k : k + 1] for k, x in enumerate(each)]
        joined = self.drop(self.norm(torch.cat([*known, present], 1)))
        return tuple(head(joined) for head in self.heads)


def make(recipe):
    return StagedModel(recipe, {"net": Net()})
"""

HEADER = "split,group,label,front,rear,sound,imu,loudness,level,same,sound_age_ms"


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate_hz: int = 1000) -> None:
    """Write mono PCM, -1..1, as 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_project(home: Path, counts: tuple[int, int, int] = (48, 32, 32), recipe: str = RECIPE) -> Recipe:
    """Write data, model and recipe; the bright half of the front picture says the class, its sound how loud it is."""
    import cv2

    data = home / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = [HEADER]
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        for number in range(count):
            name = f"{split}{number}"
            side, loud, level = int(rng.integers(2)), int(rng.integers(3)), float(rng.uniform(0, 2))
            picture = rng.integers(0, 60, (16, 16)).astype(np.uint8)
            picture[:, 8 * side : 8 * side + 8] += 150
            cv2.imwrite(str(data / f"{name}.png"), picture)
            other = rng.integers(0, 60, (16, 16)).astype(np.uint8)
            same = int(rng.integers(2))
            other[:, 8 * (side ^ 1 ^ same) : 8 * (side ^ 1 ^ same) + 8] += 150
            cv2.imwrite(str(data / f"{name}-rear.jpg"), other)
            write_wav(data / f"{name}.wav", rng.uniform(-1, 1, 80) * (0.05, 0.3, 0.9)[loud])
            np.save(data / f"{name}.npy", np.full(4, level) + rng.normal(0, 0.02, 4))
            rear = f"{name}-rear.jpg" if number % 5 else ""
            files = f"{name}.png,{rear},{name}.wav,{name}.npy"
            known = f"{('quiet', 'middle', 'loud')[loud]},{level:.4f}" if number % 7 else ","
            lines.append(f"{split},{split},{('left', 'right')[side]},{files},{known},{('no', 'yes')[same]},5")
    (data / "index.csv").write_text("\n".join(lines) + "\n")
    (home / "tiny_model.py").write_text(MODEL)
    (home / "recipe.toml").write_text(recipe)
    return Recipe.load(home / "recipe.toml")


def folder(recipe: Recipe) -> Folder:
    """Return the prepared data of such a project."""
    data = Folder(recipe, recipe.folder / "data")
    data.prepare()
    return data
