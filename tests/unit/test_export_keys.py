"""A data set's code counts where it is used: for training, measuring and reading of files, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmedge.export import Recipe, keys, user_code
from mmedge.export.shipped import shipped_recipe
from mmedge.export.steps import trained_key

FILES = """
name = "net"
licence = "Apache-2.0"
[inputs.x]
modality = "image"
size = [8, 8]
mean = [0.0]
std = [1.0]
color = "gray"
[stages.net]
onnx = "net.onnx"
inputs = { x = "x" }
outputs = { y = ["batch", 2] }
[tasks.t]
kind = "classification"
output = "net.y"
labels = ["a", "b"]
[calibration]
recordings = "pictures"
[sync]
trigger = "x"
"""


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Let a module of the package be found as another one, with one line more."""

    def change(module: str) -> None:
        found = user_code._file

        def edited(name: str) -> Path | None:
            file = found(name)
            if name != module or file is None:
                return file
            (tmp_path / "edited.py").write_text(file.read_text() + "\n# edited\n")
            return tmp_path / "edited.py"

        monkeypatch.setattr(user_code, "_file", edited)

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Recipe:
    (tmp_path / "pictures").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "pictures" / f"{k}.png"), np.full((8, 8), k, np.uint8))
    (tmp_path / "recipe.toml").write_text(FILES)
    return Recipe.load(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("mmedge.export.datasets.av_digits", True),
        ("mmedge.export.datasets.speech", True),
        ("mmedge.export.datasets.base", True),
        ("mmedge.export.models.blocks", True),
        ("mmedge.export.training.augment", True),
        ("mmedge.export.datasets.impacts", False),
        ("mmedge.export.onnx.lint", False),
    ],
)
def test_weights_are_trained_again_where_what_makes_them_is_changed(edit, module: str, changes: bool) -> None:  # type: ignore[no-untyped-def]
    recipe = shipped_recipe("av_digits")
    key, measured = trained_key(recipe, b""), keys.data_code(recipe)
    assert (trained_key(recipe, b""), keys.data_code(recipe)) == (key, measured)
    edit(module)
    assert (trained_key(recipe, b"") != key) == changes
    assert (keys.data_code(recipe) != measured) == (changes and ".models." not in module)


@pytest.mark.parametrize(
    ("module", "changes"),
    [("files", True), ("problems", True), ("folder", False), ("av_digits", False), ("base", True)],
)
def test_ranges_are_measured_again_where_files_are_read_otherwise(
    edit, folder: Recipe, module: str, changes: bool
) -> None:  # type: ignore[no-untyped-def]
    before = keys.samples_digest(folder)
    assert keys.samples_digest(folder) == before
    edit(f"mmedge.export.datasets.{module}")
    assert (keys.samples_digest(folder) != before) == changes


def test_a_data_set_of_the_user_s_own_counts_with_ours_behind_it(edit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.py").write_text("from mmedge.export.datasets.impacts import Impacts\n\nData = Impacts\n")
    with user_code.importable(tmp_path):
        before = user_code.code_digest(["mine:Data"], tmp_path)
        edit("mmedge.export.datasets.base")
        assert user_code.code_digest(["mine:Data"], tmp_path) != before
