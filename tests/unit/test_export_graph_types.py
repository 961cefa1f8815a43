"""The host feeds stages what the runtime feeds them: shapes and dtypes of every seat, link, state and constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.export import Recipe, quantize, run_steps, to_onnx
from mmedge.export.recordings import RawSamples
from mmedge.export.stages import StageGraph, feed_zeros, onnx_runners
from mmedge.fusion import load_graph
from mmedge.types import Snapshot, Tensor, Text
from tests.networks import DOUBLE, INT64, NODE, network
from tests.texts import tokenizer_json

RECIPE = """
name = "typed"
licence = "Apache-2.0"
[inputs.said]
modality = "text"
max_tokens = 4
tokenizer = "said.json"
pad = 3
[inputs.count]
modality = "tensor"
shape = [1, 2]
dtype = "int32"
[inputs.raw]
modality = "tensor"
shape = [1, 3]
dtype = "uint8"
[inputs.level]
modality = "tensor"
shape = [1, 3]
[model]
factory = "typed_model:make"
pretrained = true
[stages.pick]
onnx = "pick.onnx"
inputs = { level = "level" }
[stages.rule]
callable = "typed_rules:join"
inputs = { said = "said", count = "count", raw = "raw", best = "pick.best", half = "@const:0.5", there = "@present" }
outputs = { x = ["batch", 5] }
[stages.head]
inputs = { x = "rule.x", said = "said", count = "count", age = "@age_ms", there = "@present" }
outputs = { score = ["batch", 3] }
[tasks.t]
kind = "classification"
output = "head.score"
labels = ["a", "b", "c"]
[missing.said]
policy = "zero"
[missing.count]
policy = "zero"
[missing.raw]
policy = "zero"
[export]
targets = ["cpu"]
precisions = ["fp32"]
[sync]
trigger = "level"
"""
MODEL = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.numbers, self.linear = nn.Embedding(8, 5), nn.Embedding(8, 5), nn.Linear(5, 3)

    def forward(self, x, said, count, age, there):
        seen = self.words(said).sum(1) + self.numbers(count.clamp(0, 7)).sum(1) + x
        return self.linear(seen) + age.sum() * 0.001 + there.sum()


def make(recipe):
    model = nn.Module()
    model.head = Head()
    return model
"""
RULES = """
import numpy as np

SEEN = []


def join(said, count, raw, best, half, there):
    SEEN.append([a.dtype.name for a in (said, count, raw, best, half, there)])
    assert said.shape == (1, 4) and half.shape == ()
    return np.array([[said.sum(), count.sum(), raw.sum(), best[0, 0], half]], np.float32)
"""
DTYPES = ["int64", "int32", "uint8", "int64", "float32", "float32"]


def pick() -> onnx.ModelProto:
    node = NODE("ArgMax", ["level"], ["best"], name="pick", axis=1)
    return network([node], {"level": [1, 3]}, {"best": (INT64, [1, 1])})


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Recipe:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "said.json").write_bytes(tokenizer_json())
    (tmp_path / "typed_model.py").write_text(MODEL)
    (tmp_path / "typed_rules.py").write_text(RULES)
    onnx.save(pick(), tmp_path / "pick.onnx")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return Recipe.load(tmp_path / "recipe.toml")


def test_integers_and_texts_reach_callables_and_networks_as_in_a_run(recipe, tmp_path):
    done = run_steps(recipe, output=tmp_path / "t.mmedge", progress=lambda *_: None)
    assert done.onnx is not None
    with recipe.importable():
        import typed_rules
    assert all(seen == DTYPES for seen in typed_rules.SEEN)
    assert len(typed_rules.SEEN) > 0
    graph = StageGraph(done.onnx.recipe, onnx_runners(done.onnx.models))
    ids = np.array([[2, 4, 3, 3]], np.int64)
    values = {
        "count": np.array([[1, 6]], np.int32),
        "raw": np.array([[9, 8, 7]], np.uint8),
        "level": np.array([[0.1, 0.9, 0.3]], np.float32),
    }
    with load(tmp_path / "t.mmedge") as bundle:
        runtime = load_graph(bundle, allow=["typed_rules"])
        try:
            for mask in (tuple(recipe.inputs), ("level",), ("said", "level"), ("count", "raw", "level")):
                told = {
                    name: Tensor(stream=name, seq=0, capture_ns=0, arrive_ns=0, data=array)
                    for name, array in values.items()
                }
                told["said"] = Text(stream="said", seq=0, capture_ns=0, arrive_ns=0, text="dark it")
                present = {name: name in mask for name in recipe.inputs}
                kept = {name: value for name, value in told.items() if name in mask}
                runtime.run(Snapshot(t_ns=0, seq=0, present=present, values=kept), lambda *_: 0)
                known = graph({"said": ids, **values}, mask)
                for output in ("pick.best", "rule.x", "head.score"):
                    np.testing.assert_allclose(
                        runtime.output(output), known[output], rtol=1e-5, atol=1e-5, err_msg=f"{output} {mask}"
                    )
                    assert runtime.output(output).dtype == known[output].dtype
        finally:
            runtime.close()


def test_integer_outputs_keep_their_type_while_ranges_are_found(recipe):
    made = to_onnx(_model(recipe), recipe)
    rng = np.random.default_rng(0)
    samples = RawSamples.split(
        {
            "said": rng.integers(0, 6, (1, 4)),
            "count": rng.integers(0, 8, (1, 2)).astype(np.int32),
            "raw": rng.integers(0, 255, (1, 3)).astype(np.uint8),
            "level": rng.normal(size=(1, 3)).astype(np.float32),
        }
        for _ in range(60)
    )
    int8 = quantize(made, None, samples)
    assert int8.models.keys() | int8.skipped.keys() == {"pick", "head"}


def test_absent_texts_are_padding_and_idle_stages_keep_their_type(recipe):
    made = to_onnx(_model(recipe), recipe)
    graph = StageGraph(made.recipe, onnx_runners(made.models))
    known = graph({}, ())
    assert known["pick.best"].dtype == np.int64
    assert feed_zeros(made.recipe, "rule")["said"].tolist() == [[3, 3, 3, 3]]


def test_a_network_that_takes_another_type_is_refused_as_by_the_runtime(recipe):
    node = NODE("Cast", ["level"], ["best"], name="cast", to=INT64)
    wrong = network([node], {"level": (DOUBLE, [1, 3])}, {"best": (INT64, [1, 3])})
    with pytest.raises(ConfigError, match=r"the network takes float64, 'level' gives float32"):
        StageGraph(to_onnx(_model(recipe), recipe).recipe, onnx_runners({"pick": wrong}))


class _Clock(nn.Module):
    def forward(self, there):
        return there.sum(1, keepdim=True) + 1


class _Sum(nn.Module):
    def forward(self, level, n):
        return level + n


def test_a_stage_without_any_seat_runs_as_at_run_time(tmp_path: Path):
    text = RECIPE.replace("pretrained = true\n", "")
    start, end = text.index("[stages.pick]"), text.index("[tasks.t]")
    stages = '[stages.clock]\ninputs = { there = "@present" }\noutputs = { n = ["batch", 1] }\n'
    stages += '[stages.head]\ninputs = { level = "level", n = "clock.n" }\noutputs = { score = ["batch", 3] }\n'
    (tmp_path / "said.json").write_bytes(tokenizer_json())
    (tmp_path / "r.toml").write_text(text[:start] + stages + text[end:])
    recipe = Recipe.load(tmp_path / "r.toml")
    model = nn.Module()
    model.clock, model.head = _Clock(), _Sum()
    made = to_onnx(model, recipe)
    known = StageGraph(recipe, onnx_runners(made.models))({"level": np.zeros((1, 3), np.float32)}, ("level",))
    assert known["clock.n"].tolist() == [[2.0]]
    assert known["head.score"].tolist() == [[2.0, 2.0, 2.0]]


def _model(recipe: Recipe) -> torch.nn.Module:
    from mmedge.export.training import make_pretrained

    return make_pretrained(recipe)
