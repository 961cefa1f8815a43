"""An export is done again exactly when the network, its code or its data are others: whatever of them was changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmedge.bundle import load
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export import Recipe, run_steps
from mmedge.export.identity import digest_of
from mmedge.export.steps import TABLE
from mmedge.export.store import Store
from mmedge.export.work import Work
from tests.networks import NODE, network

RECIPE = """
name = "kept"
licence = "Apache-2.0"
[inputs.x]
modality = "tensor"
shape = [1, 4]
[model]
factory = "model:make"
pretrained = true
[stages.net]
inputs = { x = "x" }
outputs = { y = ["batch", 3] }
[stages.rule]
callable = "rules:double"
inputs = { y = "net.y" }
outputs = { z = ["batch", 3] }
[stages.head]
inputs = { z = "rule.z" }
outputs = { score = ["batch", 3] }
[tasks.t]
kind = "classification"
output = "head.score"
labels = ["a", "b", "c"]
[export]
targets = ["cpu"]
precisions = ["fp32"]
[sync]
trigger = "x"
"""
MODEL = """
from pathlib import Path

import torch
from torch import nn

import helper
from parts.block import FACTOR

HERE = Path(__file__).parent
TABLE = [float(line) for line in (HERE / "table.txt").read_text().split()]


class Net(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("kept", torch.zeros(3))
        self.register_buffer("unsaved", torch.zeros(3), persistent=False)
        self.loose = torch.zeros(3)
        self.linear.weight.data, self.linear.bias.data = weights["weight"], weights["bias"]
        self.kept, self.unsaved, self.loose = weights["kept"], weights["unsaved"], weights["loose"]

    def forward(self, x):
        return helper.activate(self.linear(x) + self.kept + self.unsaved + self.loose) * FACTOR * TABLE[0]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net(torch.load(HERE / "weights.pt"))
        self.head = nn.Linear(3, 3)
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)


def make(recipe):
    return Model()
"""
FILES = {
    "recipe.toml": RECIPE,
    "model.py": MODEL,
    "helper.py": "import torch\n\n\ndef activate(x):\n    return torch.relu(x) + 1.0\n",
    "parts/__init__.py": "",
    "parts/block.py": "from .deeper import BASE\n\nFACTOR = BASE * 2.0\n",
    "parts/deeper.py": "BASE = 1.0\n",
    "rules.py": "import lore\n\n\ndef double(y):\n    return (y * lore.TIMES).astype('float32')\n",
    "lore.py": "TIMES = 2.0\n",
    "table.txt": "1.0\n",
}


def weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    own = {"weight": torch.ones(3, 4), "bias": torch.zeros(3)}
    own |= {name: torch.zeros(3) for name in ("kept", "unsaved", "loose")}
    return {**own, **changes}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    torch.save(weights(), folder / "weights.pt")
    return folder


def export(folder: Path):
    return run_steps(Recipe.load(folder / "recipe.toml"), output=folder / "kept.mmedge", progress=lambda *_: None)


def answer(folder: Path) -> np.ndarray:
    x = np.full((1, 4), 0.5, np.float32)
    with load(folder / "kept.mmedge") as bundle:
        file = next(v.file for v in bundle.manifest.variants if v.stage == "net")
        return OnnxRuntimeEngine(bundle.read(file))({"x": x})["y"]


EDITS = {
    "a parameter": lambda f: torch.save(weights(weight=torch.full((3, 4), 2.0)), f / "weights.pt"),
    "a saved buffer": lambda f: torch.save(weights(kept=torch.ones(3)), f / "weights.pt"),
    "an unsaved buffer": lambda f: torch.save(weights(unsaved=torch.ones(3)), f / "weights.pt"),
    "a tensor of no kind": lambda f: torch.save(weights(loose=torch.ones(3)), f / "weights.pt"),
    "the model's module": lambda f: (f / "model.py").write_text(MODEL.replace("* FACTOR", "* FACTOR * 3.0")),
    "an imported module": lambda f: (f / "helper.py").write_text(FILES["helper.py"].replace("1.0", "2.0")),
    "a module behind it": lambda f: (f / "parts/deeper.py").write_text("BASE = 4.0\n"),
    "a table read on import": lambda f: (f / "table.txt").write_text("5.0\n"),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_changed_network_is_exported_again(project, what):
    first = export(project)
    assert first.cached == []
    before = answer(project)
    assert export(project).cached == ["onnx", "parity", "golden", "pack"]
    EDITS[what](project)
    again = export(project)
    assert "onnx" not in again.cached
    assert "pack" not in again.cached
    assert not np.allclose(answer(project), before), "the old network was packed"


@pytest.mark.parametrize("file", ["rules.py", "lore.py"])
def test_a_changed_rule_is_exported_again(project, file):
    export(project)
    (project / file).write_text(FILES[file].replace("2.0", "3.0").replace("* lore", "* 2 * lore"))
    assert "golden" not in export(project).cached


@pytest.mark.long
def test_an_edit_within_the_same_second_and_size_is_seen_by_another_process(project):
    code = (
        "import sys; from pathlib import Path; from mmedge.export import Recipe, run_steps\n"
        "f = Path(sys.argv[1]); r = run_steps(Recipe.load(f / 'recipe.toml'), output=f / 'kept.mmedge')\n"
        "print(*r.cached)"
    )

    def done() -> list[str]:
        run = [sys.executable, "-c", code, str(project)]
        return subprocess.run(run, capture_output=True, text=True, check=True, cwd=project).stdout.split()

    assert done() == []
    assert done() == ["onnx", "parity", "golden", "pack"]
    stamp = (project / "parts/deeper.py").stat()
    (project / "parts/deeper.py").write_text("BASE = 7.0\n")
    os.utime(project / "parts/deeper.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "onnx" not in done()
    assert answer(project)[0, 0] == pytest.approx((2.0 + 1.0) * 7.0 * 2.0)


def judged_otherwise(recipe: Recipe, what: str) -> Recipe:
    """Return a recipe that judges otherwise, though its file has the same bytes."""
    change = msgspec.structs.replace
    if what == "outputs":
        return change(recipe, outputs=("net.y",))
    if what == "max_drop_points":
        return change(recipe, calibration=change(recipe.calibration, max_drop_points=7.0))
    value = {"labels": ("a", "b", "d"), "threshold": 0.75}[what]
    return change(recipe, tasks={"t": change(recipe.tasks["t"], **{what: value})})


@pytest.mark.parametrize("what", ["outputs", "labels", "threshold", "max_drop_points"])
def test_a_network_is_quantised_and_compared_again_where_it_is_judged_otherwise(project, what):
    recipe = Recipe.load(project / "recipe.toml")
    other = judged_otherwise(recipe, what)
    # What may be lost is no part of the comparison's result: it is held against it each time.
    for step in ("quantize",) if what == "max_drop_points" else ("quantize", "compare"):
        key = next(spec.key for spec in TABLE if spec.name == step)
        one, again, changed = (digest_of(key(Work(recipe=r, show=print))) for r in (recipe, recipe, other))
        assert one == again
        assert one != changed, step


def test_other_outputs_are_packed_again(project):
    export(project)
    other = judged_otherwise(Recipe.load(project / "recipe.toml"), "outputs")
    report = run_steps(other, output=project / "kept.mmedge", progress=lambda *_: None)
    assert "pack" not in report.cached
    with load(project / "kept.mmedge") as bundle:
        assert bundle.manifest.outputs == ("net.y",)


def touched(folder: Path) -> Path:
    for file in folder.rglob("*"):
        os.utime(file, (1, 1))
    return folder


def commented(folder: Path) -> Path:
    (folder / "recipe.toml").write_text("# a remark\n" + RECIPE)
    return folder


def moved(folder: Path) -> Path:
    return Path(shutil.move(folder, folder.with_name("elsewhere")))


def beside(folder: Path) -> Path:
    (folder / "notes.txt").write_text("nothing imports this")
    (folder / "unused.py").write_text("raise SystemExit\n")
    return folder


@pytest.mark.parametrize("change", [touched, commented, moved, beside])
def test_what_is_no_part_of_the_network_changes_nothing(project, change):
    export(project)
    assert {"onnx", "parity", "golden"} <= set(export(change(project)).cached)


def test_a_bundle_that_was_removed_or_damaged_is_written_again(project):
    export(project)
    raw = (project / "kept.mmedge").read_bytes()
    (project / "kept.mmedge").write_bytes(raw[:-1])
    assert "pack" not in export(project).cached
    assert (project / "kept.mmedge").read_bytes() == raw
    (project / "kept.mmedge").unlink()
    assert "pack" not in export(project).cached
    assert (project / "kept.mmedge").read_bytes() == raw


def test_a_damaged_result_in_the_cache_is_made_again(project, caplog):
    first = export(project)
    for file in first.folder.parent.glob("onnx-*/*.onnx"):
        file.write_bytes(file.read_bytes()[:-7])
    assert "onnx" not in export(project).cached
    assert "damaged" in caplog.text


def test_a_network_file_counts_with_the_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(value: float) -> None:
        node, w = NODE("MatMul", ["x", "w"], ["y"], name="mm"), np.full((4, 3), value, np.float32)
        model = network([node], {"x": [1, 4]}, {"y": [1, 3]}, w=w)
        onnx.save(model, tmp_path / "n.onnx", save_as_external_data=True, location="n.data", size_threshold=0)

    text = RECIPE.replace('factory = "model:make"\npretrained = true', "").replace("[model]\n", "")
    text = text[: text.index("[stages.rule]")] + text[text.index("[tasks.t]") :]
    text = text.replace('outputs = { y = ["batch", 3] }', 'onnx = "n.onnx"').replace("head.score", "net.y")
    (tmp_path / "recipe.toml").write_text(text)
    write(1.0)
    export(tmp_path)
    before = (tmp_path / "n.onnx").read_bytes()
    (tmp_path / "n.data").unlink()
    write(2.0)
    assert (tmp_path / "n.onnx").read_bytes() == before, "only the file beside it is another"
    assert "onnx" not in export(tmp_path).cached


def test_a_step_that_was_interrupted_is_done_again(tmp_path):
    store = Store(tmp_path / "cache")

    def half(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put("s", "k", half)
    assert store.get("s", "k") is None
    assert list(store.folder.iterdir()) == []
    store.put("s", "k", lambda folder: (folder / "one").write_text("1") and None)
    found = store.get("s", "k")
    assert found is not None
    assert store.put("s", "k", lambda folder: (folder / "one").write_text("1") and None).digest == found.digest


def test_a_full_disk_leaves_nothing_half_written(project):
    """A limit on the size of files stands for the disk: what is larger than it cannot be written."""
    export(project)
    before = (project / "kept.mmedge").read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; from mmedge.export import Recipe, run_steps\n"
        "f = Path(sys.argv[1]); r = Recipe.load(f / 'recipe.toml')\n"
        "import mmedge.export.run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "from mmedge.errors import MmedgeError\n"
        "try: run_steps(r, output=f / 'kept.mmedge')\n"
        "except MmedgeError as error: print(error); sys.exit(error.exit_code)\n"
    )
    (project / "recipe.toml").write_text(RECIPE.replace('"a", "b", "c"', '"d", "e", "f"'))  # another bundle
    for limit in ("300", "600"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(project), limit], capture_output=True, text=True, cwd=project
        )
        assert done.returncode == 2, done.stderr
        assert "cannot write" in done.stdout
        assert "fix:" in done.stdout
    assert (project / "kept.mmedge").read_bytes() == before
    assert [p.name for p in project.glob(".new-*")] == []


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(one=plain_values, other=plain_values)
def test_hashes_differ_exactly_when_values_do(one, other):
    assert (digest_of(one) == digest_of(other)) == (repr(one) == repr(other))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30), data=st.data())
def test_every_number_of_a_module_counts(seed, data):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.GRU(3, 2, batch_first=True))
    before = digest_of(module)
    assert before == digest_of(module)
    name, tensor = data.draw(st.sampled_from([*module.named_parameters(), *module.named_buffers()]))
    flat = tensor.data.reshape(-1) if tensor.ndim else tensor.data.reshape(1)
    at = data.draw(st.integers(0, flat.numel() - 1))
    flat[at] += 1
    assert digest_of(module) != before, name
    flat[at] -= 1
