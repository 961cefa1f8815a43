"""Transformers go down the whole path: ONNX, INT8, TensorRT's form, a bundle that runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import mmedge
from benchmarks.transformers import ImageTower, TextTower
from mmedge import export
from mmedge.types import AnyArray
from tests.texts import tokenizer_json

pytestmark = pytest.mark.parallel
HEAD = 'name = "net"\nlicence = "Apache-2.0"\n'
IMAGE = """
[inputs.image]
modality = "image"
size = [64, 64]
color = "rgb"
fit = "stretch"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
frame = [64, 64]
"""
TAIL = '\n[export]\nprecisions = ["fp32", "int8"]\n[sync]\ntrigger = "image"\n'
ONE = f"""{HEAD}outputs = ["look.y"]
{IMAGE}
[stages.look]
inputs = {{ x = "image" }}
outputs = {{ y = ["batch", 10] }}
{TAIL}"""
TWO = f"""{HEAD}outputs = ["look.y", "read.y"]
{IMAGE}
[inputs.text]
modality = "text"
max_tokens = 16
tokenizer = "words.json"
[stages.look]
inputs = {{ x = "image" }}
outputs = {{ y = ["batch", 64] }}
[stages.read]
inputs = {{ x = "text" }}
outputs = {{ y = ["batch", 64] }}
[missing.text]
policy = "zero"
{TAIL}"""
MODEL = '[model]\nfactory = "model:make"\npretrained = true\n'


def pictures(count: int) -> list[AnyArray]:
    """Return soft, lit pictures, as a camera gives them: uint8 [1, 64, 64, 3]."""
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 1, (count, 8, 8, 3))
    rough = small.repeat(8, 1).repeat(8, 2) * 255 * rng.uniform(0.3, 1, (count, 1, 1, 1))
    return list((rough + rng.normal(0, 6, rough.shape)).clip(0, 255).astype(np.uint8)[:, None])


class Towers(nn.Module):
    def __init__(self, **towers: nn.Module) -> None:
        super().__init__()
        for name, tower in towers.items():
            self.add_module(name, tower)


def made(folder: Path, text: str, model: nn.Module, samples: list[dict[str, AnyArray]]) -> tuple[Path, Any]:
    words = {"[UNK]": 0} | {f"w{index}": index for index in range(1, 256)}
    (folder / "words.json").write_bytes(tokenizer_json(words))
    (folder / "recipe.toml").write_text(text.replace("[stages.look]", f"{MODEL}[stages.look]"))
    recipe = export.Recipe.load(folder / "recipe.toml")
    fp32 = export.to_onnx(model, recipe, samples[:4])
    int8 = export.quantize(fp32, recipe.calibration, samples)
    return export.pack(folder / "net.mmedge", recipe, [fp32, int8], samples=samples), int8


def test_a_vision_transformer_becomes_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = [{"image": picture} for picture in pictures(60)]
    path, int8 = made(tmp_path, ONE, Towers(look=ImageTower()), samples)
    assert int8.sqnr_db["look.y"] >= 30
    kinds = [node.op_type for node in int8.models["look"].graph.node]
    assert kinds.count("DequantizeLinear") > 15  # every projection, not the first convolution alone
    with mmedge.Pipeline(mmedge.load(path), {"image": "test://?width=160&height=120&fps=20"}) as pipe:
        result = next(iter(pipe))
    assert result.outputs["look.y"].shape == (1, 10)


def test_an_image_and_a_text_tower_become_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    samples = [{"image": picture, "text": rng.integers(0, 256, (1, 16)).astype(np.int64)} for picture in pictures(60)]
    model = Towers(look=ImageTower(out=64), read=TextTower(vocabulary=257, tokens=16))
    path, int8 = made(tmp_path, TWO, model, samples)
    assert min(int8.sqnr_db.values()) >= 30
    assert {v.precision for v in mmedge.load(path).manifest.variants if v.stage == "read"} == {"fp32", "int8"}


def test_attention_of_a_newer_opset_is_written_out_for_tensorrt_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = ImageTower(width=64, depth=1).eval()
    program = torch.export.export(tower, (torch.zeros(1, 3, 64, 64),))
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch itself
        exported = torch.onnx.export(program, dynamo=True, opset_version=23, **options)
    assert exported is not None
    onnx.save(exported.model_proto, tmp_path / "vit.onnx")
    text = ONE.replace("[stages.look]", '[stages.look]\nonnx = "vit.onnx"').replace(', "int8"', "")
    (tmp_path / "recipe.toml").write_text(text)
    recipe = export.Recipe.load(tmp_path / "recipe.toml")
    samples = [{"image": picture} for picture in pictures(12)]
    path = export.pack(tmp_path / "net.mmedge", recipe, [export.to_onnx(None, recipe, samples[:4])], samples=samples)
    bundle = mmedge.load(path)
    kinds = {
        variant.target: {node.op_type for node in onnx.load_from_string(bundle.read(variant.file)).graph.node}
        for variant in bundle.manifest.variants
    }
    assert "Attention" in kinds["cpu"]
    assert "Attention" not in kinds["tensorrt"]
    assert "Softmax" in kinds["tensorrt"]
