"""Quantisation-aware training rounds as the exported network does, and leaves nothing behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mmedge.export.int8.qdq import insert_qdq
from mmedge.export.judge import judge
from mmedge.export.training import train
from mmedge.export.training.fake_quant import fake_quantised
from mmedge.export.training.lightning_module import Training
from tests.tiny_training import write_project

LAYERS = {
    "Conv": nn.Conv2d(3, 8, 3),
    "ConvTranspose": nn.ConvTranspose2d(3, 5, 2),
    "Gemm": nn.Linear(6, 4),
}


@pytest.mark.parametrize("op", LAYERS)
def test_it_rounds_as_the_exported_pairs_do(op: str) -> None:
    layer = copy.deepcopy(LAYERS[op])
    shape = [1, 6] if op == "Gemm" else [1, 3, 7, 7]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in layer.named_parameters()]
    attributes = {"transB": 1} if op == "Gemm" else {}
    node = helper.make_node(op, ["x", "weight", "bias"], ["y"], name="layer", **attributes)
    given, told = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None)))
    graph = helper.make_graph([node], "g", [given], [told], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    quantised = insert_qdq(model, ["layer"], {"x": float(x.abs().max())})
    want = judge(quantised)({"x": x.numpy()})["y"]
    plain = layer(x)
    with fake_quantised(layer) as count, torch.no_grad():
        got = layer(x).numpy()
    assert count == 1
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert np.abs(plain.detach().numpy() - want).max() > 3e-4  # rounding shows


def test_nothing_is_left_behind_and_gradients_reach_the_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    before, names = {k: v.clone() for k, v in model.state_dict().items()}, [n for n, _ in model.named_parameters()]
    x = torch.randn(2, 1, 8, 8)
    model.eval()
    want = model(x)
    with fake_quantised(model):
        model(x).sum().backward()
    with pytest.raises(RuntimeError), fake_quantised(model):
        model(x[:, :, :4])  # too small for the last layer
    assert torch.equal(model(x), want)
    assert [n for n, _ in model.named_parameters()] == names
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert isinstance(model[0].weight, nn.Parameter)


@pytest.mark.long
def test_training_so_makes_int8_better_than_training_on_alone() -> None:
    """Features of very different sizes share one scale: what is small is lost, unless training makes up for it."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(512, 16, generator=rng) * torch.logspace(0, 2.5, 16)
    target = torch.sin(x / torch.logspace(0, 2.5, 16)) @ torch.randn(16, 1, generator=rng)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))

    def fit(net: nn.Module, steps: int) -> None:
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(x), target).backward()
            optimizer.step()

    def int8_error(net: nn.Module) -> float:
        with fake_quantised(net), torch.no_grad():
            return float(nn.functional.mse_loss(net(x), target))

    fit(model, 600)
    other = copy.deepcopy(model)
    fit(model, 300)
    with fake_quantised(other):
        fit(other, 300)
    assert int8_error(other) < 0.7 * int8_error(model)


def test_the_last_epochs_of_a_recipe_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = write_project(tmp_path / "p", (24, 8, 8))
    recipe = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=3, qat_epochs=2))
    rounding: dict[int, bool] = {}
    plain = Training.training_step

    def watched(self: Training, batch: Any, batch_idx: int) -> Any:
        layers = [layer for layer in self.model.modules() if isinstance(layer, nn.Linear)]
        rounding[self.current_epoch] = all("forward" in vars(layer) for layer in layers)
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", watched)
    model = train(recipe, output=tmp_path / "w", progress=False)
    assert rounding == {0: False, 1: True, 2: True}
    assert not any("forward" in vars(layer) for layer in model.modules())
