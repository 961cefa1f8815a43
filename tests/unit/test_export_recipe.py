"""What is no recipe, or a recipe that contradicts itself, is told by file and key before anything is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmedge.cli import run
from mmedge.errors import ConfigError
from mmedge.export import Recipe
from tests.tiny import tiny_bundle

RECIPE = """
name = "t"
licence = "MIT"
[inputs.imu]
modality = "tensor"
shape = [1, 3]
[model]
factory = "unused:make"
[stages.encoder]
inputs = { x = "imu" }
outputs = { y = ["batch", 4] }
[stages.fusion]
inputs = { y = "encoder.y", present = "@present", age = "@age_ms", last = "@state:memory" }
outputs = { state = ["batch", 2], memory = ["batch", 5] }
[tasks.state]
kind = "classification"
output = "fusion.state"
labels = ["calm", "alarm"]
[missing.imu]
policy = "zero"
[sync]
trigger = "imu"
"""


def written(folder: Path, text: str | bytes = RECIPE) -> Path:
    path = folder / "r.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_sound_recipe_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert Recipe.load(written(tmp_path)).at("tasks.state") == f"{tmp_path / 'r.toml'}: $.tasks.state"
    assert Recipe.load(written(tmp_path, b"\xef\xbb\xbf" + RECIPE.encode())).name == "t"


@pytest.mark.parametrize(
    ("old", "new", "message", "key"),
    [
        ('output = "fusion.state"', 'output = "fusion.stat"', "unknown tensor 'fusion.stat'", "tasks.state.output"),
        ('output = "fusion.state"', 'output = "imu"', "unknown tensor 'imu'", "tasks.state.output"),
        ('y = "encoder.y"', 'y = "encoder.z"', "unknown tensor 'encoder.z'", "stages.fusion.inputs.y"),
        ('"@state:memory"', '"@state:mind"', "state '@state:mind' is not an output", "stages.fusion.inputs.last"),
        ('x = "imu"', 'x = "imo"', "unknown tensor 'imo'", "stages.encoder.inputs.x"),
        ("[missing.imu]", "[missing.imo]", "unknown input 'imo'", "missing.imo"),
        ('trigger = "imu"', 'trigger = "imo"', "unknown trigger 'imo'", "sync.trigger"),
        ('["calm", "alarm"]', '["calm", "alarm", "?"]', r"fusion.state \[1, 2\] has 2 classes", "tasks.state.labels"),
        ('kind = "classification"', 'kind = "classification"\nthreshold = 2', "<= 1", "tasks.state.threshold"),
        ("[stages.fusion]", '[stages.fusion]\nonn = "imu"', "unknown field `onn`", "stages.fusion.onn"),
        ("[stages.fusion]", '[stages.fusion]\nevery_ms = "1"', "got `str`", "stages.fusion.every_ms"),
        ('y = ["batch", 4]', 'y = ["batch", "4", 0]', "int", "stages.encoder.outputs.y[2]"),
        ("[inputs.imu]", "[inputs.imu]\nrate = 3", "unknown field `rate`", "inputs.imu.rate"),
        ('kind = "classification"', 'kind = "classificator"', "enum value", "tasks.state.kind"),
        ("policy =", "polizei =", "polizei|policy", "missing.imu.polizei"),
        ('name = "t"', 'name = "my model"', "regex", "name"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(tmp_path: Path, old: str, new: str, message: str, key: str) -> None:
    assert old in RECIPE
    path = written(tmp_path, RECIPE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.load(path)
    assert caught.value.where == f"{path}: $.{key}"
    assert caught.value.fix


def test_outputs_that_only_a_network_tells_may_have_any_name(tmp_path: Path) -> None:
    brought = RECIPE.replace('outputs = { state = ["batch", 2], memory = ["batch", 5] }', 'onnx = "n.onnx"')
    brought = brought.replace('"calm", ', "")
    assert Recipe.load(written(tmp_path, brought)).stages["fusion"].outputs == {}
    with pytest.raises(ConfigError, match=r"unknown tensor 'fuse\.state'"):
        Recipe.load(written(tmp_path, brought.replace('"fusion.state"', '"fuse.state"')))


LATIN = RECIPE.encode() + "# café\n".encode("latin-1")
# Name -> content (None: that of a bundle), message, what follows the name in "where", fix.
NO_RECIPES: dict[str, tuple[bytes | None, str, str, str]] = {
    "a.mmedge": (None, "a bundle", "", "`mmedge inspect` and `mmedge run`"),
    "renamed.toml": (None, "a bundle", "", "`mmedge inspect` and `mmedge run`"),
    "net.onnx": (b"\x08\x08", "a network", "", "mmedge new DIR --from"),
    "w.safetensors": (b"\x10\0\0\0\0\0\0\0\xff", "a binary file", "", "TOML"),
    "utf16.toml": (RECIPE.encode("utf-16"), "a binary file", "", "UTF-8"),
    "latin.toml": (LATIN, "not UTF-8: byte 0xe9", f":{LATIN.count(10)}", "save the recipe as UTF-8"),
    "text.toml": (b"hello\n", "line 1", ": $", "correct the recipe"),
    "deep.toml": (b"a = " + b"[" * 5000, "recursion", ": $", "correct the recipe"),
}


@pytest.mark.parametrize("name", NO_RECIPES)
@pytest.mark.parametrize("command", ["train", "export"])
def test_what_is_no_recipe_is_told_what_it_is(
    tmp_path: Path, name: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, message, where, fix = NO_RECIPES[name]
    path = tmp_path / name
    path.write_bytes(tiny_bundle(tmp_path / "b").read_bytes() if content is None else content)
    assert run([command, str(path)]) == 2
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    assert told.out == ""
    if (command, name) == ("export", "net.onnx"):  # which takes networks, but not this one
        message, fix = "it has no graph", "torch.onnx.export"
    assert message in told.err
    assert f"where: {path}{where}\n" in told.err
    assert fix in told.err.partition("fix:")[2]
    assert run([command, str(path), "--json"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert document["error"] == "ConfigError"
    assert message in document["message"]


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_task_without_an_output_is_a_users_error(
    tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, RECIPE.replace('output = "fusion.state"', 'output = "fusion.stat"'))
    assert run([command, str(path), "--json"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert document["where"] == f"{path}: $.tasks.state.output"
    assert document["fix"]
