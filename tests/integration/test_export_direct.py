"""`mmedge export MODEL.onnx`: what `mmedge new` would ask and hint is told, and its options are taken."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mmedge.bundle import load
from mmedge.bundle.manifest import TextInput
from mmedge.cli import run
from tests.networks import FLOAT, NODE, network
from tests.texts import tokenizer_json

pytestmark = pytest.mark.parallel


@pytest.fixture
def exported(tmp_path, monkeypatch, capfd):
    """Return what exports a network: its report, or what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def export(model: onnx.ModelProto, *options: str):
        onnx.save(model, "net.onnx")
        code = run(["export", "net.onnx", "--licence", "MIT", "--no-smoke", "--json", *options])
        told = capfd.readouterr()
        return json.loads(told.out) if code == 0 else told.out

    return export


def seeing(nodes=(), last: str = "x") -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32)
    names = [last, "c", "g", "f", "y"]
    steps = ["Conv", "GlobalAveragePool", "Flatten", "Softmax"]
    chain = [
        NODE(op, [a, "w"] if op == "Conv" else [a], [b]) for op, a, b in zip(steps, names[:-1], names[1:], strict=True)
    ]
    return network([*nodes, *chain], {"x": (FLOAT, [1, 3, 16, 16])}, {"y": (FLOAT, [1, 3])}, w=weight)


def test_what_the_file_does_not_tell_is_a_warning_of_every_call(exported):
    first, second = exported(seeing()), exported(seeing())
    for words in ("--scale imagenet", "--color bgr"):
        assert any(words in text for text in first["warnings"]), first["warnings"]
    assert second["warnings"] == first["warnings"]
    assert second["cached"] == list(second["seconds"])


def test_options_of_new_are_taken_each_time_they_change(exported, tmp_path):
    exported(seeing())
    (tmp_path / "names.txt").write_text("cup\nbowl\njug\n")
    options = ("--scale", "-1..1", "--color", "bgr", "--classes", "names.txt")
    told = exported(seeing(), *options)
    assert not any("does not tell" in text for text in told["warnings"])
    with load(tmp_path / "net.mmedge") as bundle:
        seat = bundle.inputs["image"]
        assert (seat.mean, seat.std, seat.color) == ((0.5,) * 3, (0.5,) * 3, "bgr")
        assert bundle.labels("net") == ("cup", "bowl", "jug")
    (tmp_path / "names.txt").write_text("mug\nbowl\njug\n")
    exported(seeing(), *options)
    with load(tmp_path / "net.mmedge") as bundle:
        assert bundle.labels("net") == ("mug", "bowl", "jug")


def test_a_network_that_reads_takes_its_tokenizer(exported, tmp_path):
    nodes = [NODE("Gather", ["w", "input_ids"], ["e"]), NODE("ReduceMean", ["e", "one"], ["m"], keepdims=0)]
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    ids = {"input_ids": (TensorProto.INT64, [1, 8])}
    model = network([*nodes, NODE("Softmax", ["m"], ["y"])], ids, {"y": (FLOAT, [1, 3])}, w=weight, one=[1])
    assert any("with --tokenizer tokenizer.json" in text for text in exported(model)["warnings"])
    assert "cannot read the tokenizer" in exported(model, "--tokenizer", "nowhere.json")
    (tmp_path / "words.json").write_bytes(tokenizer_json())
    exported(model, "--tokenizer", "words.json")
    with load(tmp_path / "net.mmedge") as bundle:
        assert isinstance(bundle.inputs["text"], TextInput)
    kept = {file.name for file in (tmp_path / "cache").rglob("*") if "network" in str(file)}
    assert {"recipe.toml", "tokenizer.json"} <= kept
    assert not {"mmedge-net.service", "said.txt", "net.mmedge", "mmedge.toml"} & kept  # nothing runs there


def test_what_failed_once_fails_again(exported):
    model = seeing([NODE("Sub", ["x", "x"], ["zero"]), NODE("Div", ["x", "zero"], ["n"])], "n")
    for _ in range(2):
        told = exported(model)
        assert "is NaN or infinite on noise" in told
        assert "mmedge new DIR --from net.onnx" in told


def test_no_folder_of_the_cache_is_noted_as_the_users_project(exported, tmp_path):
    assert exported(seeing())["bundle"]
    assert not (tmp_path / "config" / "mmedge" / "projects.json").exists()


@pytest.mark.parametrize(
    "option", ["--scale", "--size", "--classes", "--layout", "--color", "--licence", "--tokenizer"]
)
def test_a_recipe_says_it_itself(option, capsys):
    assert run(["export", "recipes/digits_image.toml", option, "x"]) == 2
    assert f"{option}" in capsys.readouterr().err
