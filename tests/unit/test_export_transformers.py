"""Transformers go down the path: a picture's patches attend to each other, a picture is held against a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mmedge.export import Recipe, compare, quantize, to_onnx
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.recordings import RawSamples
from mmedge.export.report import int8_nodes
from tests.texts import WORDS, tokenizer_json

pytestmark = pytest.mark.parallel

SIDE, PATCH, WIDTH, HEADS, WORDS_MOST = 32, 8, 32, 4, 6
HEAD = """
name = "towers"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [32, 32]
frame = [32, 32]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[model]
factory = "unused:make"
[export]
targets = ["cpu"]
[calibration]
max_drop_points = 0.5
[sync]
trigger = "image"
[stages.vision]
inputs = { x = "image" }
"""
VIT = (
    HEAD
    + """outputs = { score = ["batch", 10] }
[tasks.seen]
kind = "classification"
output = "vision.score"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""
)
TOWERS = (
    HEAD
    + """outputs = { embedding = ["batch", 32] }
[inputs.said]
modality = "text"
max_tokens = 6
tokenizer = "said.json"
[missing.said]
policy = "zero"
[stages.text]
inputs = { ids = "said" }
outputs = { embedding = ["batch", 32] }
[stages.join]
inputs = { image = "vision.embedding", text = "text.embedding" }
outputs = { same = ["batch", 1] }
[tasks.same]
kind = "verification"
output = "join.same"
labels = ["no", "yes"]
"""
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x):
        batch, count, _ = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, WIDTH)
        x = x + self.out(seen)
        return x + self.mlp(self.after(x))


class Vision(nn.Module):
    def __init__(self, outputs: int, *, normed: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.place = nn.Parameter(0.5 * torch.randn(1, (SIDE // PATCH) ** 2, WIDTH))
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(WIDTH)
        self.head, self.normed = nn.Linear(WIDTH, outputs), normed

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        y = self.head(self.norm(self.blocks(tokens)).mean(1))
        return functional.normalize(y, dim=1) if self.normed else y


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(len(WORDS), WIDTH), nn.Parameter(0.5 * torch.randn(1, WORDS_MOST, WIDTH))
        self.blocks, self.head = nn.Sequential(Block(), Block()), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids):
        kept = (ids > 0).unsqueeze(-1).float()
        tokens = self.blocks(self.words(ids) + self.place) * kept
        return functional.normalize(self.head(tokens.sum(1) / kept.sum(1).clamp(min=1)), dim=1)


class Join(nn.Module):
    def forward(self, image, text):
        return (image * text).sum(1, keepdim=True) * 10


def pictures(count: int, rng: np.random.Generator):
    """Blots of light and dark: more like pictures than noise is."""
    for _ in range(count):
        coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.float32)
        yield np.clip(np.kron(coarse, np.ones((7, 7, 1)))[:SIDE, :SIDE], 0, 255).astype(np.uint8)[None]


def quantised(recipe: Recipe, model: nn.Module, samples: RawSamples) -> tuple[OnnxModels, OnnxModels]:
    fp32 = to_onnx(model, recipe)
    return fp32, quantize(fp32, None, samples)


def test_a_vision_transformer_keeps_its_answers_in_int8(tmp_path):
    (tmp_path / "r.toml").write_text(VIT)
    recipe, model = Recipe.load(tmp_path / "r.toml"), nn.Module()
    torch.manual_seed(0)
    model.vision = Vision(10)
    samples = RawSamples.split({"image": picture} for picture in pictures(180, np.random.default_rng(0)))
    fp32, int8 = quantised(recipe, model, samples)
    assert not any(node.op_type == "Attention" for node in fp32.models["vision"].graph.node)
    done, weighted = int8_nodes(int8.models["vision"])
    assert weighted == 10
    assert done == weighted
    found = compare(fp32, int8, None, samples)
    assert found.agreement["seen"] >= 0.995 or min(int8.sqnr_db.values()) >= 30


def test_two_towers_keep_their_agreement_in_int8(tmp_path):
    (tmp_path / "r.toml").write_text(TOWERS)
    (tmp_path / "said.json").write_bytes(tokenizer_json())
    recipe, model, rng = Recipe.load(tmp_path / "r.toml"), nn.Module(), np.random.default_rng(1)
    torch.manual_seed(1)
    model.vision, model.text, model.join = Vision(WIDTH, normed=True), Text(), Join()
    samples = RawSamples.split(
        {"image": picture, "said": rng.integers(1, len(WORDS), (1, WORDS_MOST))} for picture in pictures(180, rng)
    )
    fp32, int8 = quantised(recipe, model, samples)
    for stage in ("vision", "text"):
        done, weighted = int8_nodes(int8.models[stage])
        assert done == weighted > 0
    found = compare(fp32, int8, None, samples)
    worst = min(db for name, db in int8.sqnr_db.items() if not name.startswith("join"))
    assert found.agreement["same"] >= 0.995 or worst >= 30
