"""Recipes that bring networks along: a picture, a sound and numbers, and the networks they feed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export import Recipe
from mmedge.export.brought.brought import bring
from tests.networks import FLOAT, INT64, NODE, info, network

HEAD = """
name = "t"
licence = "MIT"
[inputs.image]
modality = "image"
size = [8, 6]
frame = [16, 12]
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[inputs.audio]
modality = "audio"
sample_rate_hz = 16000
window_ms = 36
[inputs.imu]
modality = "tensor"
shape = [1, 3]
[sync]
trigger = "image"
[tasks]
"""


def recipe(folder, stages: str, **networks) -> Recipe:
    for name, model in networks.items():
        onnx.save(model, folder / f"{name}.onnx")
    (folder / "recipe.toml").write_text(HEAD + stages)
    return Recipe.load(folder / "recipe.toml")


def brought(folder, model, inputs: str, outputs: str = ""):
    made, networks = bring(recipe(folder, f'[stages.net]\nonnx = "net.onnx"\ninputs = {inputs}\n{outputs}', net=model))
    return made.stages["net"].outputs, OnnxRuntimeEngine(networks["net"].SerializeToString())


def counter() -> onnx.ModelProto:
    """A sum that goes on: rate is a scalar that decides a branch, and what the other branch says would not run."""
    then = helper.make_graph(
        [NODE("ReduceSum", ["x", "axis"], ["here"], keepdims=1), NODE("Add", ["state", "here"], ["sum"])],
        "then",
        [],
        [info("sum", None)],
    )
    other = helper.make_graph(
        [NODE("Reshape", ["x", "nonsense"], ["shaped"])],
        "else",
        [],
        [info("shaped", None)],
    )
    return network(
        [
            NODE("Equal", ["sr", "rate"], ["right"]),
            NODE("If", ["right"], ["stateN"], then_branch=then, else_branch=other),
            NODE("Sigmoid", ["stateN"], ["y"]),
        ],
        {"x": (FLOAT, [None, None]), "state": (FLOAT, [1, None]), "sr": (INT64, [])},
        {"y": (FLOAT, None), "stateN": (FLOAT, None)},
        axis=np.array([1]),
        rate=np.array(16000),
        nonsense=np.array([7, 1000], np.int64),
    )


STREAM = """
[stages.net]
onnx = "net.onnx"
inputs = { x = "audio", state = "@state:stateN", sr = "@const:16000" }
outputs = { y = [1, 1], stateN = [1, 1] }
every_ms = 32
[tasks.heard]
kind = "classification"
output = "net.y"
labels = ["heard"]
scores = "probabilities"
"""
