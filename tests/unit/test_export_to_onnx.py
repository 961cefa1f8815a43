"""Stages reach ONNX with names, parity and without traces; what cannot be exported is named with its line."""

from __future__ import annotations

import inspect
import textwrap

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mmedge.errors import CheckError, ConfigError
from mmedge.export import Recipe, to_onnx
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.stages import masks, network_stages

RECIPE = """
name = "t"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [8, 8]
frame = [16, 16]
color = "gray"
mean = [0.5]
std = [0.5]
[inputs.imu]
modality = "tensor"
shape = [1, 6]
[model]
factory = "unused:make"
[stages.head]
inputs = { image = "encoder.embedding", imu = "imu", present = "@present", last = "@state:memory" }
outputs = { score = ["batch", 3], memory = ["batch", 4] }
[stages.encoder]
inputs = { x = "image" }
outputs = { embedding = ["batch", 5] }
[tasks.t]
kind = "classification"
output = "head.score"
labels = ["a", "b", "c"]
[sync]
trigger = "image"
"""


def recipe_in(folder, text: str = RECIPE) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return Recipe.load(path)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    return recipe_in(tmp_path)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 5)
        nn.init.normal_(self.layers[1].running_mean)

    def forward(self, x):
        return self.linear(self.dropout(self.layers(x).mean((2, 3))))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(13, 3), nn.Linear(9, 4)

    def forward(self, image, imu, present, last):
        x = torch.cat([image * present[:, :1], last], 1)
        return self.a(torch.cat([image, imu, present], 1)), torch.tanh(self.b(x))


class Model(nn.Module):
    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = encoder or Encoder()
        self.head = Head()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model().train()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> OnnxModels:
    return to_onnx(model, recipe_in(tmp_path_factory.mktemp("recipe")))


def test_names_shapes_and_opset_are_those_of_the_recipe(exported):
    head = exported.models["head"]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in head.graph.input}
    assert shapes == {"image": [1, 5], "imu": [1, 6], "present": [1, 2], "last": [1, 4]}
    assert [v.name for v in head.graph.output] == ["score", "memory"]
    assert [(e.domain, e.version) for e in head.opset_import] == [("", 20)]
    assert exported.precision == "fp32"


def test_batch_norm_is_folded_and_dropout_gone(exported):
    assert {n.op_type for n in exported.models["encoder"].graph.node} == {"Conv", "Relu", "ReduceMean", "Gemm"}


def test_parity_is_measured_for_every_output(exported):
    assert {(p.stage, p.output) for p in exported.parity} == {
        ("encoder", "embedding"),
        ("head", "score"),
        ("head", "memory"),
    }
    assert all(p.max_rel < 1e-5 and p.cosine > 0.9999 and p.samples == 4 for p in exported.parity)


def test_no_trace_of_the_authors_disk_is_left_but_sources_are_known(exported):
    for model in exported.models.values():
        raw = model.SerializeToString()
        assert b"test_export_to_onnx" not in raw
        assert b"/torch/" not in raw
        assert b"pytorch" not in raw
        assert not model.metadata_props
    names = {n.op_type: n.name for n in exported.models["encoder"].graph.node}
    assert names["Conv"] == "layers.1/Conv"
    line = inspect.getsourcelines(Encoder.forward)[1] + 1
    assert exported.sources["encoder"][names["Gemm"]].endswith(f"test_export_to_onnx.py:{line} (linear)")


def test_node_names_are_unique(exported):
    for model in exported.models.values():
        names = [n.name for n in model.graph.node]
        assert len(names) == len(set(names))
        assert all(names)


def test_saved_models_come_back_equal(exported, tmp_path):
    exported.save(tmp_path)
    again = OnnxModels.load(tmp_path, exported.recipe, "fp32")
    assert list(again.models) == list(exported.models)
    assert all(again.models[s] == exported.models[s] for s in again.models)
    assert again.parity == exported.parity
    assert again.sources == exported.sources


def test_the_users_model_is_not_changed(model, exported):
    assert exported.models
    assert model.training
    assert model.encoder.dropout.training
    fresh = Model().state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in model.state_dict().items() if "running" not in k)


class DataDependent(nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # the line to be named
            return x[:, 0, 0, :5]
        return x[:, 0, 1, :5]


class Unsupported(nn.Module):
    def forward(self, x):
        values, _ = torch.linalg.eig(x[:, 0, :5, :5])  # the line to be named
        return values.real


class WrongShape(nn.Module):
    def forward(self, x):
        return x.flatten(1)


class WrongName(nn.Module):
    def forward(self, image, other):
        return image


class Counting(nn.Module):
    """Answers differently each time: the traced constant cannot follow, and the error says why."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x[:, 0, 0, :5] * self.calls


def line_of(module: type[nn.Module]) -> int:
    lines, start = inspect.getsourcelines(module)
    return start + next(i for i, line in enumerate(lines) if "the line to be named" in line)


@pytest.mark.parametrize(
    ("module", "message"), [(DataDependent, "data-dependent"), (Unsupported, "'aten.linalg_eig' has no ONNX form")]
)
def test_what_cannot_be_exported_is_named_with_the_users_line(recipe, module, message):
    with pytest.raises(ConfigError, match=message) as caught:
        to_onnx(Model(module()), recipe)
    assert caught.value.where.startswith("stages.encoder, ")
    assert caught.value.where.endswith(f"test_export_to_onnx.py:{line_of(module)}")
    assert caught.value.fix


class Antialiased(nn.Module):
    def forward(self, x):
        small = nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
        again = nn.functional.interpolate(small, (5, 5), mode="bilinear", antialias=True)
        return again[:, 0, 0]


def test_all_that_tensorrt_refuses_is_listed_at_once_with_its_lines(recipe, tmp_path):
    first = inspect.getsourcelines(Antialiased.forward)[1] + 1
    with pytest.raises(ConfigError, match="TensorRT would refuse") as caught:
        to_onnx(Model(Antialiased()), recipe)
    for line in (first, first + 1):
        assert f"test_export_to_onnx.py:{line}: TensorRT has no antialiased Resize" in caught.value.message


def test_a_network_that_does_not_fit_the_recipe_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"returns \[1, 64\], but the recipe declares \[1, 5\]"):
        to_onnx(Model(WrongShape()), recipe)
    with pytest.raises(ConfigError) as caught:
        to_onnx(Model(WrongName()), recipe)
    assert "parameters of forward" in caught.value.fix
    with pytest.raises(ConfigError, match="no submodule 'encoder'"):
        to_onnx(nn.Sequential(), recipe)


def test_a_network_that_onnx_cannot_follow_fails_the_parity_gate(recipe):
    with pytest.raises(CheckError, match="answers the same input differently each time"):
        to_onnx(Model(Counting()), recipe)


@pytest.mark.parametrize("opset", [17, 23])
def test_opsets_that_tensorrt_does_not_take_are_refused(tmp_path, opset):
    recipe = recipe_in(tmp_path, RECIPE + f"[export]\nopset = {opset}\n")
    with pytest.raises(ConfigError, match=f"opset {opset}"):
        to_onnx(Model(), recipe)


def test_stages_are_ordered_by_what_feeds_them(recipe):
    assert network_stages(recipe) == ("encoder", "head")


def test_a_cycle_of_stages_is_named(tmp_path):
    text = RECIPE.replace('x = "image"', 'x = "head.score"')
    with pytest.raises(ConfigError, match=r"cycle: .*head"):
        network_stages(recipe_in(tmp_path, text))


def test_masks_leave_out_what_a_policy_rules_out(recipe, tmp_path):
    assert masks(recipe) == (("image", "imu"), ("imu",), ("image",))
    strict = recipe_in(tmp_path, RECIPE + textwrap.dedent('[missing.imu]\npolicy = "fail"\n'))
    assert masks(strict) == (("image", "imu"), ("imu",))


def test_a_name_cannot_be_input_and_output_of_one_stage(tmp_path):
    text = RECIPE.replace('last = "@state:memory"', 'memory = "@state:memory"')
    with pytest.raises(ConfigError, match="'memory' names both an input and an output"):
        to_onnx(Model(), recipe_in(tmp_path, text))


def test_an_output_may_be_named_like_an_operator(model, tmp_path):
    text = RECIPE.replace('outputs = { embedding = ["batch", 5] }', 'outputs = { relu = ["batch", 5] }')
    onnx_models = to_onnx(model, recipe_in(tmp_path, text.replace("encoder.embedding", "encoder.relu")))
    assert [output.name for output in onnx_models.models["encoder"].graph.output] == ["relu"]
    assert max(row.max_rel for row in onnx_models.parity) < 1e-4


def test_dynamic_dimensions_need_a_size(tmp_path):
    text = RECIPE.replace('embedding = ["batch", 5]', 'embedding = ["batch", "length"]')
    with pytest.raises(ConfigError, match="'length'") as caught:
        to_onnx(Model(), recipe_in(tmp_path, text))
    assert caught.value.where == "stages.encoder.outputs.embedding"


def test_exported_networks_pass_the_full_checker(exported):
    for model in exported.models.values():
        onnx.checker.check_model(model, full_check=True)
    assert np.isfinite([p.max_abs for p in exported.parity]).all()
