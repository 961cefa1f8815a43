"""What the documentation says of encoders and factories is there, and takes and gives what it says."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_every_factory_and_part_that_the_page_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    factories = re.findall(r"`(mmedge\.export\.models\.\w+):(\w+)`", text)
    assert len(factories) >= 4
    for module, name in factories:
        assert callable(getattr(import_module(module), name))
    parts = re.findall(r"^\| `(?!mmedge)(\w+)\.(\w+)", text[text.index("## Encoders") :], re.MULTILINE)
    assert {name for _, name in parts} >= {"ImageEncoder", "AudioEncoder", "TextEncoder", "Features"}
    for module, name in parts:
        assert callable(getattr(import_module(f"mmedge.export.models.{module}"), name))
    fusion = import_module("mmedge.export.models.fusion")
    section = text[text.index("a name of `fusion.FUSIONS`") :].split("|")[0]
    assert set(re.findall(r"`([a-z-]+)`", section)) == set(fusion.FUSIONS)


def test_encoders_take_the_shapes_of_the_page() -> None:
    digits = import_module("mmedge.export.models.av_digits")
    text = import_module("mmedge.export.models.text")
    assert digits.ImageEncoder(8).eval()(torch.zeros(2, 1, 112, 112)).shape == (2, 8)
    assert digits.AudioEncoder(8).eval()(torch.zeros(2, 95, 40)).shape == (2, 8)
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    assert text.TextEncoder(vocabulary=20, tokens=6, embedding=8, pad=0).eval()(tokens).shape == (2, 8)
