"""ONNX files of others are read, changed and first run within bounds, whichever command is given them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.media_hostile import PEAK_MB, measure
from mmedge.errors import ConfigError
from mmedge.fusion.consent import Consent, project_text, remember
from mmedge.plain import unsafe
from tests.hostile import NETWORKS, network

pytestmark = pytest.mark.parallel

RECIPE = """\
name = "theirs"
licence = "none"
[inputs.x]
modality = "tensor"
shape = [1, 2]
dtype = "float32"
rate_hz = 30
[stages.s]
onnx = "theirs.onnx"
inputs = {x = "x"}
[tasks.t]
kind = "classification"
output = "s.y"
labels = ["a", "b"]
[sync]
trigger = "x"
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize(
    "command", ["new", *(pytest.param(name, marks=pytest.mark.long) for name in ("export", "inspect"))]
)
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in ("loop", "nested functions")),
        *("growing loop", "expand", "strings", "many nodes"),
    ],
)
def test_a_network_breaks_no_bounds(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / "theirs.onnx").write_bytes(NETWORKS[name]())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = {"new": ["new", "made", "--from", "theirs.onnx"], "export": ["export", "recipe.toml"]}
    line = [sys.executable, "-m", "mmedge", *words.get(command, ["inspect", "theirs.onnx"])]
    code, _, peak_mb, said = measure(line, tmp_path, given_up_s=240)  # killed by then, or ended by itself
    assert code >= 0
    if command != "inspect":  # that runs nothing, and shows what a network is as long as it may
        assert code == 2, said
        assert "the network" in said
        assert "theirs.onnx" in said
        assert "fix: " in said
    assert "Traceback" not in said
    assert peak_mb < PEAK_MB
    assert not (tmp_path / "made").exists()
    assert not list(tmp_path.glob("*.mmedge"))


@pytest.mark.parametrize("command", ["new", "inspect"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    line = ["new", "made", "--from", "pipe.onnx"] if command == "new" else ["inspect", "pipe.onnx"]
    done = subprocess.run(
        [sys.executable, "-m", "mmedge", *line], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "not a file" in done.stderr


@pytest.mark.long
def test_a_good_network_of_100_mb_is_within_the_bounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.001, (3 * 64 * 64, 2034)).astype(np.float32)
    last = rng.normal(0, 0.01, (2034, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"]),
        helper.make_node("MatMul", ["f", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probs"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(weights, "a"), numpy_helper.from_array(last, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "large.onnx").write_bytes(made.SerializeToString())
    line = [sys.executable, "-m", "mmedge", "new", "made", "--from", "large.onnx"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "made.mmedge").exists()


@pytest.mark.parametrize("name", [b"\xff", b"\x1b]0;x", "\u202e".encode()])
@pytest.mark.parametrize("source", [[], ["--from", "theirs.onnx"]])
def test_a_project_has_a_name_that_can_be_shown(tmp_path: Path, name: bytes, source: list[str]) -> None:
    (tmp_path / "theirs.onnx").write_bytes(NETWORKS["expand"]())
    line = [sys.executable, "-m", "mmedge", "new", os.fsdecode(name), *source]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "character" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.onnx"]


def test_a_project_in_a_path_that_is_not_utf_8_is_not_noted(tmp_path: Path) -> None:
    outer = tmp_path / os.fsdecode(b"\xff")
    outer.mkdir()
    with pytest.raises(ConfigError, match="character"):
        remember(outer)


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_network_in_a_file_of_any_name_is_inspected(tmp_path: Path, json: list[str]) -> None:
    name = os.fsdecode(b"\x1b]0;x\xe2\x80\xae\xff.onnx")
    (tmp_path / name).write_bytes(NETWORKS["expand"]())
    line = [sys.executable, "-m", "mmedge", "inspect", name, *json]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert unsafe(done.stdout, lines=True) is None


@pytest.mark.parametrize("allowed", ["evil", None])
def test_an_export_counts_as_consent_to_what_it_has_run_alone(tmp_path: Path, allowed: str | None) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "mmedge.toml").write_text(project_text([allowed] if allowed else []))
    (tmp_path / "theirs.onnx").write_bytes(network([helper.make_node("Neg", ["x"], ["y"])]))
    line = [sys.executable, "-m", "mmedge", "export", "recipe.toml"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "config" / "mmedge" / "projects.json").exists() == (allowed is None)
    assert not Consent(bundle=tmp_path / "theirs.mmedge").covers("evil:f")
