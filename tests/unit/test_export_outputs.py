"""What a stage's module returns is matched by name, else by position; what fits neither is named."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmedge.errors import ConfigError
from mmedge.export import Recipe, to_onnx
from mmedge.export.judge import judge
from mmedge.export.models.calls import named_outputs
from mmedge.export.models.staged import StagedModel

RECIPE = """
name = "t"
licence = "Apache-2.0"
[inputs.x]
modality = "tensor"
shape = [1, 4]
[inputs.w]
modality = "tensor"
shape = [1, 4]
[model]
factory = "unused:make"
[stages.net]
inputs = { x = "x", w = "w" }
outputs = { one = ["batch", 4], two = ["batch", 4] }
[tasks.t]
kind = "classification"
output = "net.one"
labels = ["a", "b", "c", "d"]
[export]
targets = ["cpu"]
[sync]
trigger = "x"
"""


def recipe_in(folder, text: str = RECIPE) -> Recipe:
    (folder / "r.toml").write_text(text)
    return Recipe.load(folder / "r.toml")


class Swapped(NamedTuple):
    two: torch.Tensor
    one: torch.Tensor


@dataclass
class Named:
    loss: torch.Tensor | None
    two: torch.Tensor
    one: torch.Tensor


class Output(OrderedDict):
    """As libraries of transformers return it."""


def give(how: str, one, two):
    return {
        "tuple": lambda: (one, two),
        "list": lambda: [one, two],
        "dict": lambda: {"two": two, "aux": one * 3, "one": one},
        "nested": lambda: {"heads": {"two": two}, "main": [{"one": one}]},
        "named tuple": lambda: Swapped(two=two, one=one),
        "data class": lambda: Named(loss=None, two=two, one=one),
        "mapping": lambda: Output([("two", two), ("one", one)]),
        "nested tuple": lambda: (one, (two,)),
        "dict of others": lambda: {"first": one, "second": two},
    }[how]()


FORMS = ["tuple", "list", "dict", "nested", "named tuple", "data class", "mapping", "nested tuple", "dict of others"]


class Net(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, nn.Linear(4, 4)

    def forward(self, x, w):
        return give(self.how, self.linear(x), w * 2)


class PositionalOnly(Net):
    def forward(self, x, w, /):
        return super().forward(x, w)


class Stars(Net):
    def forward(self, *given):
        return super().forward(*given)


class Keywords(Net):
    def forward(self, **given):
        return super().forward(given["x"], given["w"])


class KeywordOnly(Net):
    def forward(self, *, w, x):
        return super().forward(x, w)


def of(net: nn.Module) -> nn.Module:
    model = nn.Module()
    model.net = net
    return model


def held_against(net: Net, recipe: Recipe) -> None:
    made = to_onnx(of(net), recipe)
    x, w = (np.random.default_rng(k).normal(size=(1, 4)).astype(np.float32) for k in (0, 1))
    got = judge(made.models["net"])({"x": x, "w": w})
    np.testing.assert_allclose(got["one"], net.linear(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["two"], 2 * w, rtol=1e-6)


@pytest.mark.parametrize("how", FORMS)
def test_every_form_of_output_is_exported_under_its_name(tmp_path, how):
    recipe = recipe_in(tmp_path)
    held_against(Net(how), recipe)
    model = StagedModel(recipe, {"net": (net := Net(how))})
    x, w = torch.randn(2, 4), torch.randn(2, 4)
    got = model({"x": x, "w": w}, torch.ones(2, 2))
    assert torch.equal(got["net.one"], net.linear(x))
    assert torch.equal(got["net.two"], 2 * w)


@pytest.mark.parametrize("kind", [PositionalOnly, Stars, Keywords, KeywordOnly])
@pytest.mark.parametrize("how", ["tuple", "dict"])
def test_every_form_of_input_is_fed(tmp_path, kind, how):
    held_against(kind(how), recipe_in(tmp_path))


def test_states_of_an_lstm_come_by_position(tmp_path):
    text = RECIPE.replace("shape = [1, 4]\n[inputs.w]", "shape = [1, 5, 4]\n[inputs.w]").replace(
        'x = "x", w = "w"', 'x = "x"'
    )
    text = text.replace(
        '{ one = ["batch", 4], two = ["batch", 4] }', "{ one = [1, 5, 3], h = [1, 1, 3], c = [1, 1, 3] }"
    )
    text = text.replace('output = "net.one"', 'output = "net.h"').replace('["a", "b", "c", "d"]', '["a", "b", "c"]')
    lstm = nn.LSTM(4, 3, batch_first=True)
    made = to_onnx(of(lstm), recipe_in(tmp_path, text))
    x = np.random.default_rng(0).normal(size=(1, 5, 4)).astype(np.float32)
    out, (h, c) = lstm(torch.from_numpy(x))
    got = judge(made.models["net"])({"x": x})
    for name, want in (("one", out), ("h", h), ("c", c)):
        np.testing.assert_allclose(got[name], want.detach().numpy(), atol=1e-5)


class Wrong(nn.Module):
    def __init__(self, result) -> None:
        super().__init__()
        self.result, self.linear = result, nn.Linear(4, 4)

    def forward(self, x, w):
        return self.result(self.linear(x), w)


@pytest.mark.parametrize(
    ("result", "came"),
    [
        (lambda one, two: one, r"returns a tensor \[1, 4\], but the recipe declares one, two"),
        (lambda one, two: (one, (two, two)), r"returns 0 \[1, 4\], 1.0 \[1, 4\], 1.1 \[1, 4\]"),
        (lambda one, two: {"one": one, "other": two}, r"returns one \[1, 4\], other \[1, 4\]"),
        (lambda one, two: [{"one": one, "two": two}, {"one": two}], "one is there more than once"),
        (lambda one, two: None, "returns no tensor"),
        (lambda one, two: "two", "returns no tensor"),
    ],
)
def test_what_fits_neither_is_named(tmp_path, result, came):
    recipe = recipe_in(tmp_path)
    with pytest.raises(ConfigError, match=came) as caught:
        to_onnx(of(Wrong(result)), recipe)
    assert "stages.net.outputs" in str(caught.value.where)
    with pytest.raises(ConfigError, match=came):
        StagedModel(recipe, {"net": Wrong(result)})({"x": torch.zeros(1, 4), "w": torch.zeros(1, 4)}, torch.ones(1, 2))


def test_other_parameters_than_inputs_are_named(tmp_path):
    class Other(Net):
        def forward(self, picture, sound):
            return super().forward(picture, sound)

    with pytest.raises(ConfigError, match=r"forward\(picture, sound\) of Other does not take the inputs x, w"):
        to_onnx(of(Other("tuple")), recipe_in(tmp_path))


WRAPS = [lambda part, rest: {**part, "+": rest}, lambda part, rest: [part, rest], lambda part, rest: (rest, part)]
names = st.lists(st.text("abcdef_", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@settings(max_examples=60, deadline=None)
@given(names=names, data=st.data())
def test_any_nesting_in_any_order_gives_each_name_its_tensor(names, data):
    tensors = {name: torch.full((1,), float(k)) for k, name in enumerate(names)}
    rest = data.draw(st.permutations(names))
    result: object = {}
    for name in rest:
        part = {name: tensors[name]}
        wrap = data.draw(st.sampled_from(WRAPS))
        result = wrap(part, result)
    got = named_outputs(result, names, nn.Identity(), "net")
    assert list(got) == names
    assert all(torch.equal(got[name], tensors[name]) for name in names)
