"""The demo's data are a distribution of their own: who lacks them is told what to type, and both have one version."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmedge import extras
from mmedge.cli import run
from mmedge.errors import MissingDependencyError
from mmedge.export import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where `mmedge-demo` is not installed."""
    (tmp_path / "assets").mkdir()  # pip leaves it behind
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "extras.py"))


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("line", [["demo"], ["demo", "--view"]])
def test_a_demo_without_its_data_says_what_to_install(line: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*line, "--json"]) == MissingDependencyError.exit_code
    error = json.loads(capfd.readouterr().out)
    assert (error["message"], error["fix"]) == ("the demo's data are not installed", "pip install 'mmedge[demo]'")


@pytest.mark.usefixtures("without")
def test_a_recipe_that_names_them_says_so_as_well() -> None:
    recipe = Recipe.load(ROOT / "recipes/digits_image.toml")
    with pytest.raises(MissingDependencyError, match="data are not installed"):
        recipe.path("mmedge:assets/digits/weights.safetensors")
    assert recipe.path("assets/own.bin") == ROOT / "recipes/assets/own.bin"  # a folder of one's own


def test_the_distribution_is_of_the_same_version_and_the_wheel_leaves_them_out() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    demo = tomllib.loads((ROOT / "demo/pyproject.toml").read_text())
    version = ours["project"]["version"]
    assert demo["project"]["version"] == version
    assert demo["project"]["dependencies"] == [f"mmedge=={version}"]
    assert ours["project"]["optional-dependencies"]["demo"] == [f"mmedge-demo=={version}"]
    assert ours["tool"]["scikit-build"]["wheel"]["exclude"] == ["mmedge/assets/**"]
    assert demo["tool"]["scikit-build"]["wheel"]["packages"] == {"mmedge/assets": "../mmedge/assets"}
