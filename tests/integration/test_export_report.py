"""The report of an export and its bundle: complete, in one file, and silent about machine and user."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from mmedge.bundle import load
from mmedge.cli import run as mmedge
from mmedge.errors import ConfigError
from mmedge.export import Recipe, run_steps
from mmedge.export.run_report import RunReport
from tests.networks import NODE, network

pytestmark = pytest.mark.parallel

RECIPE = """
name = "told"
licence = "MIT"
seed = 7
[inputs.image]
modality = "image"
size = [16, 16]
frame = [16, 16]
color = "gray"
mean = [0.5]
std = [0.25]
[model]
factory = "told_model:make"
pretrained = true
[stages.eye]
inputs = { x = "image" }
outputs = { score = ["batch", 3] }
[tasks.t]
kind = "classification"
output = "eye.score"
labels = ["a", "b", "c"]
[calibration]
recordings = "clips"
frames = 8
max_drop_points = 100
[export]
precisions = ["fp32", "int8"]
targets = ["cpu"]
[sync]
trigger = "image"
"""
MODEL = """
import torch
from torch import nn


class Eye(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))

    def forward(self, x):
        return self.net(x)


def make(recipe):
    model = nn.Module()
    model.eye = Eye()
    return model
"""
SECRET = "zaphod-secret"
SIGNATURE = {"x": [1, 1, 16, 16]}, {"s": [1, 1]}  # of the networks that are brought along


@pytest.fixture
def project(tmp_path, write_clip, monkeypatch) -> Path:
    folder = tmp_path / SECRET / "project"
    (folder / "clips").mkdir(parents=True)
    write_clip("clip.mkv")
    (tmp_path / "clip.mkv").rename(folder / "clips" / "clip.mkv")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "told_model.py").write_text(MODEL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / SECRET / "cache"))
    return folder


def exported(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    secrets = {"USER": SECRET, "LOGNAME": SECRET, "HOSTNAME": SECRET, "HOME": str(folder.parent)}
    command = [sys.executable, "-m", "mmedge", "export", "recipe.toml", *options]
    env = {**os.environ, **secrets}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def test_nothing_that_is_shipped_names_folder_user_or_machine(project):
    done = exported(project, "--json")
    assert done.returncode == 0, done.stderr
    words = [SECRET.encode(), os.uname().nodename.encode(), b"/tmp/", str(Path.cwd()).encode()]
    shipped = {"stdout": done.stdout.encode()}
    shipped |= {name: (project / name).read_bytes() for name in ("told.html", "told.json")}
    with zipfile.ZipFile(project / "told.mmedge") as archive:
        shipped |= {name: archive.read(name) for name in archive.namelist()}
    assert len(shipped) > 5
    for name, raw in shipped.items():
        for word in words:
            assert word not in raw, f"{name} holds {word!r}"


def test_the_page_asks_for_nothing_and_holds_what_was_measured(project):
    assert exported(project).returncode == 0
    page, document = (project / "told.html").read_text(), json.loads((project / "told.json").read_text())
    assert document["schema"] == "mmedge.export/1"
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?(?!data:)(?:https?:|//|\.?/)""", page)
    assert page.count("<img ") == page.count('src="data:image/svg+xml;base64,') >= 3
    for shown in ("told.mmedge", "ONNX against torch", "INT8", "Provenance", document["provenance"]["recipe_sha256"]):
        assert shown in page
    assert document["quantization"]["coverage"] > 0
    assert document["parity"][0]["max_rel"] < 1e-3


def test_the_second_export_does_nothing_and_says_so(project):
    first, second = exported(project, "--json"), exported(project, "--json")
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert one["cached"] == []
    assert two["cached"] == list(two["seconds"])
    assert two["comparison"] == one["comparison"]
    assert two["warnings"] == one["warnings"]


def test_the_bundle_says_where_it_comes_from(project):
    assert exported(project).returncode == 0
    with load(project / "told.mmedge") as bundle:
        origin = bundle.manifest.provenance
        assert bundle.manifest.licence == "MIT"
    assert origin["seed"] == 7
    assert origin["calibration_files"] == 1
    assert re.fullmatch("[0-9a-f]{64}", str(origin["calibration_sha256"]))
    assert {"mmedge", "torch", "onnx", "onnxruntime", "numpy", "python", "opset"} <= origin.keys()


def test_every_precision_that_is_asked_for_is_packed(project):
    assert exported(project).returncode == 0
    with load(project / "told.mmedge") as bundle:
        assert {(v.target, v.precision) for v in bundle.manifest.variants} == {("cpu", "fp32"), ("cpu", "int8")}
        assert len({v.file for v in bundle.manifest.variants}) == 2


@pytest.mark.long
def test_fp8_and_int4_go_down_the_whole_path(project):
    pytest.importorskip("tensorrt_rtx")
    text = RECIPE.replace('["fp32", "int8"]', '["fp32", "int8", "fp8", "int4"]')
    (project / "recipe.toml").write_text(text.replace('["cpu"]', '["cpu", "tensorrt"]'))
    (project / "told_model.py").write_text(
        MODEL.replace("Conv2d(1, 4, 3)", "Conv2d(1, 4, 3, padding=1)").replace("784", "1024")
    )
    done = exported(project, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["comparison"]["b"] == "int8"
    assert [part["b"].split()[0] for part in document["more_comparisons"]] == ["int8", "fp8", "int4"]
    assert [part["precision"] for part in document["more_quantizations"]] == ["fp8", "int4"]
    built = {row["precision"]: row for row in document["smoke"]["rows"]}
    assert {kind: row["problem"] for kind, row in built.items()} == dict.fromkeys(("fp32", "int8", "fp8", "int4"))
    assert {built[kind]["int8_coverage"] for kind in ("int8", "fp8", "int4")} == {1.0}
    assert any("float in int4: Conv does not sum" in warning for warning in document["warnings"])
    page = (project / "told.html").read_text()
    for shown in ("Quantised operations that TensorRT computes in FP8", "INT4: signal to quantisation noise"):
        assert shown in page
    with load(project / "told.mmedge") as bundle:
        found = {(v.target, v.precision): v.quantization for v in bundle.manifest.variants}
    assert {p for t, p in found if t == "cpu"} == {"fp32", "int8"}
    assert {found["tensorrt", kind].rest for kind in ("int8", "fp8", "int4")} == {"fp16"}
    again = json.loads(exported(project, "--json").stdout)
    assert again["cached"] == list(again["seconds"])
    assert again["warnings"] == document["warnings"]
    told = subprocess.run(
        [sys.executable, "-m", "mmedge", "inspect", "told.mmedge"],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert told.stdout.count("the rest in fp16") == 3


def averaging(folder: Path) -> None:
    nodes = [
        NODE("Flatten", ["x"], ["f"], name="f"),
        NODE("ReduceMean", ["f"], ["s"], name="m", axes=[1]),
    ]
    onnx.save(network(nodes, *SIGNATURE, opset=17), folder / "net.onnx")


def with_network(text: str) -> str:
    text = text.replace('[model]\nfactory = "told_model:make"\npretrained = true\n', "")
    return (
        text.replace('outputs = { score = ["batch", 3] }', 'onnx = "net.onnx"')
        .replace('output = "eye.score"\nlabels = ["a", "b", "c"]', 'output = "eye.s"\nlabels = ["no", "yes"]')
        .replace('"classification"', '"verification"')
    )


def test_a_stage_that_stays_float_is_a_warning_in_both_reports(project):
    averaging(project)
    (project / "recipe.toml").write_text(with_network(RECIPE))
    report = run_steps(Recipe.load(project / "recipe.toml"), output=project / "t.mmedge", progress=lambda *_: None)
    assert any("'eye' is left as it is" in text for text in report.warnings), report.warnings
    assert report.comparison is None, "there is nothing to compare"
    page, _ = report.save(project / "t.html")
    assert "is left as it is" in page.read_text()
    again = run_steps(Recipe.load(project / "recipe.toml"), output=project / "t.mmedge", progress=lambda *_: None)
    assert again.warnings == report.warnings, "what is cached is told again"


def spectrum(folder: Path) -> None:
    nodes = [
        NODE("Reshape", ["x", "line"], ["l"], name="line"),
        NODE("DFT", ["l"], ["d"], name="spectrum", axis=1),
        NODE("ReduceMean", ["d"], ["m"], name="mean", axes=[1, 2], keepdims=0),
        NODE("Reshape", ["m", "one"], ["s"], name="last"),
    ]
    model = network(nodes, *SIGNATURE, opset=17, line=np.array([1, 256, 1]), one=np.array([1, 1]))
    onnx.save(model, folder / "net.onnx")


def test_what_tensorrt_refuses_is_a_warning_or_an_error_that_names_it(project):
    spectrum(project)
    text = with_network(RECIPE).replace('["fp32", "int8"]', '["fp32"]')
    (project / "recipe.toml").write_text(text.replace('["cpu"]', '["cpu", "tensorrt"]'))
    report = run_steps(Recipe.load(project / "recipe.toml"), output=project / "t.mmedge", progress=lambda *_: None)
    assert any("'eye' gets no TensorRT variant" in warning and "DFT" in warning for warning in report.warnings)
    document = report.to_dict()
    assert document["warnings"] == report.warnings
    (project / "recipe.toml").write_text(text.replace('["cpu"]', '["tensorrt"]'))
    with pytest.raises(ConfigError, match="TensorRT cannot run this stage") as caught:
        run_steps(Recipe.load(project / "recipe.toml"), output=project / "u.mmedge", progress=lambda *_: None)
    assert caught.value.where == "stages.eye"
    assert not (project / "u.mmedge").exists()


def test_a_report_that_cannot_be_written_is_an_error(project, capsys):
    assert (
        mmedge(["export", str(project / "recipe.toml"), "--output", str(project / "t.mmedge"), "--report", "x.pdf"])
        == 2
    )
    assert "let its name end in .html" in capsys.readouterr().err


def test_a_page_that_does_not_fit_on_the_disk_leaves_both_files_as_they_were(tmp_path):
    """A limit on the size of a file stands for the full disk: the document is below it, the page is not."""
    report = RunReport(folder=tmp_path, name="told")
    html, data = report.save(tmp_path / "r.html")
    old = html.read_bytes(), data.read_bytes()
    assert len(old[0]) > len(old[1]) + 64
    report.warnings.append("another")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old[1]) + 64, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot write the report"):
            report.save(html)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (html.read_bytes(), data.read_bytes()) == old
    assert not list(tmp_path.glob(".new-*"))
