"""What is wrong with the user's own code is said with its line, by exit codes 1 and 2: never as a bug of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import checker

from mmedge.cli import run
from mmedge.errors import CheckError, ConfigError, EngineError
from mmedge.export import Recipe
from mmedge.export.failures import own_words
from tests.unit.test_export_cache import FILES, MODEL, RECIPE, weights

ACTIVATE = "import torch\n\n\ndef activate(x):\n    "
# What is written into which file, the exit code, and what is said.
FAULTS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "factory raises": ("model.py", MODEL.replace("return Model()", "return {}['x']"), 2, ("KeyError", "model.py:")),
    "its file is missing": ("model.py", MODEL.replace("weights.pt", "nope.pt"), 2, ("nope.pt", "model.py:")),
    "it ends the program": ("model.py", MODEL.replace("return Model()", "raise SystemExit"), 2, ("model.py:",)),
    "it takes nothing": ("model.py", MODEL.replace("make(recipe)", "make()"), 2, ("model.parameters",)),
    "it gives a number": ("model.py", MODEL.replace("return Model()", "return 3"), 2, ("returned int",)),
    "no such stage": ("model.py", MODEL.replace("self.head", "self.hed"), 2, ("no submodule 'head'",)),
    "no Python": ("model.py", f"{MODEL}\ndef (\n", 2, ("SyntaxError", "model.py:")),
    "its import raises": ("helper.py", "raise ValueError('not today')\n", 2, ("not today", "helper.py:1")),
    "its import is missing": ("helper.py", "import no_such_module\n", 2, ("no_such_module",)),
    "forward raises": ("helper.py", f"{ACTIVATE}raise RuntimeError('cannot')\n", 2, ("cannot", "helper.py:5")),
    "shapes differ": ("helper.py", f"{ACTIVATE}return x @ torch.zeros(7, 7)\n", 2, ("shapes", "helper.py:5")),
    "forward branches": (
        "helper.py",
        f"{ACTIVATE}return x if x.sum() > 0 else -x\n",
        2,
        ("helper.py:5", "torch.where"),
    ),
    "an operator without a form": ("helper.py", f"{ACTIVATE}return torch.special.airy_ai(x)\n", 2, ("airy_ai", ".py:")),
    "no tensor": ("helper.py", f"{ACTIVATE}return x.numpy()\n", 2, ("no tensor", "stages.net.outputs")),
    "not a number": ("helper.py", f"{ACTIVATE}return x * float('nan')\n", 1, ("NaN", "net.y")),
    "a rule raises": ("rules.py", "def double(y):\n    return y / {}['n']\n", 1, ("KeyError", "rules.py:2")),
    "a rule's shape": ("rules.py", "def double(y):\n    return y[:, :2]\n", 1, ("declared float32 [1, 3]",)),
    "a rule without its import": ("rules.py", "import no_such_module\n", 2, ("no_such_module", "rules:double")),
    "no recordings": ("recipe.toml", RECIPE.replace('["fp32"]', '["int8"]'), 2, ("mmedge record",)),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_the_users_is_told_as_such(tmp_path, monkeypatch, capfd, what):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    torch.save(weights(), "weights.pt")
    file, text, code, told = FAULTS[what]
    Path(file).write_text(text)
    got = run(["export", "recipe.toml", "--no-smoke"])
    err = capfd.readouterr().err
    assert got == code, err
    for words in (*told, "fix:"):
        assert words in err.partition("error: ")[2], err
    assert not Path("kept.mmedge").exists()


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    (tmp_path / "r.toml").write_text(RECIPE)
    return Recipe.load(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (EngineError("ONNX Runtime failed", where="eye"), CheckError),
        (checker.ValidationError("a node is odd\nand more"), ConfigError),
        (torch.OutOfMemoryError("no memory"), ConfigError),
    ],
)
def test_what_tools_raise_is_an_error_of_the_export(recipe, raised, kind):
    with pytest.raises(kind) as caught, own_words("quantize", recipe):
        raise raised
    assert caught.value.exit_code in (1, 2, 4)
    assert caught.value.fix or isinstance(raised, EngineError)
