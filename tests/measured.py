"""A small recipe of two inputs with its own model and data, written beside it."""

from __future__ import annotations

from pathlib import Path

from mmedge.export import Recipe

RECIPE = """
name = "t"
licence = "MIT"
[data]
dataset = "data:Data"
[inputs.a]
modality = "tensor"
shape = [1, 2]
[inputs.b]
modality = "tensor"
shape = [1, 2]
[model]
factory = "model:make"
[stages.eye]
inputs = { x = "a" }
outputs = { y = ["batch", 3] }
[stages.ear]
inputs = { x = "b" }
outputs = { y = ["batch", 3] }
[stages.fusion]
inputs = { eye = "eye.y", ear = "ear.y", present = "@present" }
outputs = { state = ["batch", 2], same = ["batch", 1] }
[tasks.state]
kind = "classification"
output = "fusion.state"
labels = ["calm", "alarm"]
[tasks.same]
kind = "verification"
output = "fusion.same"
labels = ["no", "yes"]
[train]
weights = "weights.safetensors"
workers = 0
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


class Encoder(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, eye, ear, present):
        x = torch.cat([eye * present[:, :1], ear * present[:, 1:]], 1)
        return self.a(x), self.b(x)


def make(recipe):
    torch.manual_seed(3)
    model = StagedModel(recipe, {"eye": Encoder(2, 3), "ear": Encoder(2, 3), "fusion": Fusion()})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=2.0 if parameter.ndim > 1 else 0.1)
    return model
"""
DATA = """
import numpy as np
from mmedge.export.datasets.base import Dataset, Sample


class Data(Dataset):
    def prepare(self): ...

    def split(self, name, *, epoch=0):
        rng = np.random.default_rng(5)
        samples = []
        for number in range(120):
            there = ("ab", "a", "b")[number % 3] if number % 2 else "ab"
            inputs = {n: rng.normal(size=2).astype(np.float32) for n in there}
            labels = {n: int(x[0] > 0) for n, x in inputs.items()}
            samples.append(Sample(inputs=inputs, labels=labels, age_ms={n: float(rng.uniform(0, 9)) for n in there}))
        return samples

    def groups(self, name):
        return frozenset((name,))
"""


def project(folder: Path, text: str = RECIPE, data: str = DATA, model: str = MODEL) -> Recipe:
    """Write a recipe, its model and its data into a folder, and read the recipe."""
    # Modules are remembered by name: each project has its own.
    own = {"data": f"data_{folder.name}", "model": f"model_{folder.name}"}
    for name, content in (("data", data), ("model", model)):
        (folder / f"{own[name]}.py").write_text(content)
        text = text.replace(f'"{name}:', f'"{own[name]}:')
    (folder / "r.toml").write_text(text)
    return Recipe.load(folder / "r.toml")
