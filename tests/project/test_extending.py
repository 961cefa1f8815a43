"""The examples of docs/extending.md run as they stand there, in processes of their own."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge import _core
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.types import Snapshot
from tests.conftest import WriteClip
from tests.tiny import WINDOW, networks, tiny_bundle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
# An editable install finds mmedge before PYTHONPATH is looked at.
SITE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
"""


def examples(heading: str) -> dict[str, str]:
    """Return the code of a section: first comment -> text."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```(?:python|toml)\n# (.*?)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return dict(blocks)


def run(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmedge", *map(str, arguments)],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def install_sink(site: Path) -> None:
    """Do what ``pip install`` does with the example of a sink: modules, and a folder of metadata."""
    code = examples("A sink")
    project = tomllib.loads(code["pyproject.toml"])["project"]
    entries = project["entry-points"]["mmedge.sinks"]
    (site / "mmedge_csv.py").write_text(code["mmedge_csv.py"])
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[mmedge.sinks]\n{lines}")


@pytest.mark.parametrize("heading", re.findall(r"^## (A .*)$", PAGE, re.MULTILINE))
def test_examples_are_short(heading: str) -> None:
    assert f"[{heading}](#{heading.lower().replace(' ', '-')})" in PAGE
    assert examples(heading)
    for name, code in examples(heading).items():
        assert sum(1 for line in code.splitlines() if line) < 30, name


def test_a_sink_of_another_package(tmp_path: Path, write_clip: WriteClip) -> None:
    install_sink(tmp_path)
    bundle, clip = tiny_bundle(tmp_path / "tiny.mmedge"), write_clip()
    source = f"image={clip}"
    done = run(tmp_path, "run", bundle, "--input", source, "--latency", "offline", "--sink", "csv:out.csv")
    assert done.returncode == 0, done.stderr
    rows = [row.split(",") for row in (tmp_path / "out.csv").read_text().splitlines()]
    assert len(rows) == 2 * 25  # tasks, frames
    assert {row[1] for row in rows} == {"scene", "same"}
    refused = run(tmp_path, "run", bundle, "--input", source, "--sink", "csv")
    assert refused.returncode == 2
    assert "fix: csv:PATH" in refused.stderr
    assert "console, csv, jsonl, metrics" in run(tmp_path, "run", "--help").stdout
    assert "console, csv, jsonl, metrics" in run(tmp_path, "replay", "--help").stdout
    again = run(
        tmp_path, "run", bundle, "--input", source, "--latency", "offline", "--sink", "csv:e.csv?on=event&tasks=scene"
    )
    assert again.returncode == 0, again.stderr
    assert 1 <= len((tmp_path / "e.csv").read_text().splitlines()) < 25
    unknown = run(tmp_path, "run", bundle, "--input", source, "--sink", "csv:e.csv?delimeter=x")
    assert "did you mean 'delimiter'?" in unknown.stderr


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Copy mmedge and make the two edits of the example of a source."""
    package = tmp_path / "mmedge"
    shutil.copytree(Path(mmedge.__file__).parent, package, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copy(_core.__file__, package)
    (tmp_path / "sitecustomize.py").write_text(SITE)
    code = examples("A source")
    (package / "capture" / "noise.py").write_text(code["mmedge/capture/noise.py"])
    kinds = package / "capture" / "kinds.py"
    text = kinds.read_text()
    for before, name in (("\n\nKINDS: ", "above KINDS"), ('\n}\n"""Name -> kind', "at the end of KINDS")):
        assert text.count(before) == 1
        text = text.replace(before, f"\n{code[f'mmedge/capture/kinds.py, {name}'].rstrip()}{before}")
    kinds.write_text(text)
    code = examples("A command")
    (package / "cli" / "size.py").write_text(code["mmedge/cli/size.py"])
    commands, end = package / "cli" / "__init__.py", "\n}\nINTERRUPTED"
    text = commands.read_text()
    assert text.count(end) == 1
    commands.write_text(text.replace(end, f"\n{code['mmedge/cli/__init__.py, at the end of COMMANDS'].rstrip()}{end}"))
    return tmp_path


def test_a_command_in_one_file_and_one_line(house: Path) -> None:
    bundle = tiny_bundle(house / "tiny.mmedge")
    done = run(house, "size", bundle, "--json")
    assert done.returncode == 0, done.stderr
    with mmedge.load(bundle) as opened:
        sizes = {name: file.bytes for name, file in opened.manifest.files.items()}
    assert json.loads(done.stdout) == {"schema": "mmedge.size/1", "bytes": sizes}
    assert "eye.onnx" in run(house, "size", bundle).stdout
    assert "How many bytes" in run(house, "--help").stdout
    assert run(house, "size", "nothing.mmedge").returncode in (2, 4)


def test_a_task_reads_and_tells() -> None:
    names: dict[str, Any] = {}
    code = examples("A task")
    exec(code["mmedge/bundle/tasks.py"] + code["mmedge/interpret/kinds.py"], names)
    refused: list[str] = []
    names["OrdinalKind"]().check_output(None, (1, 2), 3, lambda text, key: refused.append(text))
    assert refused == ["has 2 steps"]
    reader = names["Ordinal"]("mood", None, ("low", "middle", "high"))
    told = reader(np.array([[0.0, 3.0, 3.0]], np.float32), Snapshot(t_ns=0, seq=0, present={"image": True}))
    assert (told.label, told.value) == ("middle", pytest.approx(1.464, abs=1e-3))


def test_a_back_end_computes_what_onnx_runtime_does(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(examples("A back end")["mmedge/engine/opencv.py"], names)
    network = networks()["ear"]
    sound = np.random.default_rng(0).normal(0, 1, (1, WINDOW)).astype(np.float32)
    with names["OpenCvEngine"](network, {"x": sound.shape}) as engine, OnnxRuntimeEngine(network) as peer:
        assert engine({"x": sound})["y"] == pytest.approx(peer({"x": sound})["y"], rel=1e-5)


def test_the_walk_names_functions_that_exist() -> None:
    walk = (ROOT / "docs/architecture.md").read_text()
    steps = re.findall(r"^\| `((?:mmedge|native)/[\w/]+\.(?:py|cpp)):(\w+)` \|", walk, re.MULTILINE)
    frame = walk[walk.index("## The walk of one frame") : walk.index("## A stage on a GPU")]
    of_frame = [path for path, name in steps if f"`{path}:{name}` |" in frame]
    assert 10 < len(of_frame) <= 18
    assert len(set(of_frame)) <= 15
    for path, name in steps:
        if path.endswith(".cpp"):
            assert re.search(rf"(\w::|[\w>&*] ){name}\(", (ROOT / path).read_text()), f"{path}:{name}"
            continue
        tree = ast.parse((ROOT / path).read_text())
        assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree)), f"{path}:{name}"


def test_a_source_in_two_files(house: Path) -> None:
    """It runs in processes of its own, can be recorded and probed, and errors offer it."""
    bundle = tiny_bundle(house / "tiny.mmedge")
    done = run(house, "run", bundle, "--input", "image=noise://camera?fps=20", "--duration", 4, "--json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results
    assert all(result["present"]["image"] for result in results)
    probed = run(house, "devices", "--probe", "noise://camera?fps=20", "--seconds", 1, "--json")
    (device,) = json.loads(probed.stdout)["probe"]
    assert device["streams"][0]["picture"] == "320x240 bgr24", probed.stderr
    recorded = run(house, "record", "lab", "--input", "front=noise://camera", "--duration", 3, "--json")
    assert recorded.returncode == 0, recorded.stderr
    assert (house / "lab" / "front.0.mkv").stat().st_size > 0
    refused = run(house, "run", bundle, "--input", "image=noise://camera?zoom=2")
    assert refused.returncode == 2
    assert "noise takes width, height, fps" in refused.stderr
    assert "noise://camera?fps=30 (noise)" in refused.stderr
