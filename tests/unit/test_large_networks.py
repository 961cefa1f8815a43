"""Weights that stay in files go down the export and into the bundle as they are; the answers are those of the network.

What counts as large is lowered here; ``tests/integration/test_two_gigabytes.py`` has more than one message holds.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmedge
from mmedge.bundle.onnx_file import outside_weights, weights_member
from mmedge.errors import BundleError, ConfigError
from mmedge.export import run_steps
from mmedge.export.judge import judge
from mmedge.export.onnx import outside
from mmedge.export.onnx.network_file import load_network
from mmedge.fusion.check import check_variants
from mmedge.fusion.load import load_graph, make_network
from tests import large, tiny

FILE = "net.cpu.fp32.onnx"
WEIGHTS = weights_member(FILE)
X = np.linspace(-1, 1, 6, dtype=np.float32)[None]


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(outside, "LEFT_BYTES", 1 << 16)
    monkeypatch.setattr(outside, "MESSAGE_BYTES", 1 << 16)
    monkeypatch.setattr(outside, "INSIDE_BYTES", 1 << 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    outside._spool.cache_clear()


def exported(folder: Path, *, gap: int = 0, **said: str) -> Path:
    large.place(large.layers(), folder, gap=gap)
    report = run_steps(large.recipe(folder, **said), output=folder / "large.mmedge")
    assert report.path is not None
    return report.path


def answer(path: Path) -> np.ndarray:
    with mmedge.load(path) as bundle, make_network(bundle, bundle.manifest.variants[0], {}, "it") as engine:
        return engine({"x": X})["y"].copy()


@pytest.mark.parametrize("gap", [0, 4, 7])  # 7: no number begins where its type may
def test_both_ways_answer_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: int) -> None:
    streamed = exported(tmp_path, gap=gap)
    with zipfile.ZipFile(streamed) as archive:
        weights, network = archive.getinfo(WEIGHTS), archive.getinfo(FILE)
        assert weights.compress_type == zipfile.ZIP_STORED
        assert network.file_size < 2000 < 262_144 < weights.file_size
        assert [w.name for w in outside_weights(archive.read(FILE))] == ["w1", "w2", "w3"]
    with mmedge.load(streamed) as bundle:
        read = bundle.weights(FILE, bundle.read(FILE))
        assert all(values.ctypes.data % 64 == 0 for values in read.values())
        assert bundle.network_bytes(FILE) > 262_144
    with mmedge.load_engine(tmp_path / "net.onnx", "onnxruntime") as engine:
        want = engine({"x": X})["y"].copy()
    np.testing.assert_allclose(answer(streamed), want, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(outside, "LEFT_BYTES", outside.MAX_BYTES)
    monkeypatch.setattr(outside, "MESSAGE_BYTES", outside.MAX_BYTES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "whole").mkdir()
    whole = exported(tmp_path / "whole", gap=gap)
    with zipfile.ZipFile(whole) as archive:
        assert WEIGHTS not in archive.namelist()
    np.testing.assert_array_equal(answer(whole), answer(streamed))


def test_what_one_message_holds_is_the_same_bundle_wherever_its_weights_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every precision and for every target, byte for byte."""
    monkeypatch.setattr(outside, "MESSAGE_BYTES", outside.MAX_BYTES)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.random.default_rng(0).normal(0, 1, (60, 1, 6)).astype(np.float32))
    large.place(large.layers(), tmp_path, gap=7)
    asked = {"precisions": '["fp32", "fp16", "int8"]', "targets": '["cpu", "tensorrt"]'}
    recipe = large.recipe(tmp_path, **asked, calibration='recordings = "data"')
    left = run_steps(recipe, output=tmp_path / "left.mmedge", smoke=False)
    monkeypatch.setattr(outside, "LEFT_BYTES", outside.MAX_BYTES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run_steps(recipe, output=tmp_path / "whole.mmedge", smoke=False)
    assert (tmp_path / "left.mmedge").read_bytes() == (tmp_path / "whole.mmedge").read_bytes()
    with mmedge.load(tmp_path / "left.mmedge") as bundle:
        assert {v.precision for v in bundle.manifest.variants} == {"fp32", "fp16", "int8"}, left.warnings


def test_a_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with mmedge.load(path) as bundle, closing(load_graph(bundle)) as graph:
        assert [row["fault"] for row in check_variants(bundle)] == [None]
        assert [stage.file for stage in graph.stages] == [FILE]
    again = run_steps(large.recipe(tmp_path), output=path)
    assert "pack" in again.cached
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    np.testing.assert_array_equal(answer(folder), answer(path))


def test_one_changed_weight_is_another_bundle(tmp_path: Path) -> None:
    before = answer(exported(tmp_path))
    shutil.copy(tmp_path / "net.bin", tmp_path / "kept.bin")
    large.place(large.layers(seed=1), tmp_path)
    report = run_steps(large.recipe(tmp_path), output=tmp_path / "large.mmedge")
    assert "onnx" not in report.cached
    assert not np.allclose(answer(tmp_path / "large.mmedge"), before)
    (tmp_path / "kept.bin").replace(tmp_path / "net.bin")
    run_steps(large.recipe(tmp_path), output=tmp_path / "large.mmedge")
    np.testing.assert_array_equal(answer(tmp_path / "large.mmedge"), before)


def test_what_cannot_be_written_of_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.random.default_rng(0).normal(0, 1, (60, 1, 6)).astype(np.float32))
    large.place(large.layers(), tmp_path)
    asked = {"precisions": '["fp32", "fp16", "int8"]', "targets": '["cpu", "tensorrt"]'}
    report = run_steps(large.recipe(tmp_path, **asked, calibration='recordings = "data"'), output=tmp_path / "b.mmedge")
    told = " ".join(report.warnings)
    for what in ("int8", "fp16", "TensorRT"):
        assert f"{what} needs it as one ONNX message" in told
    with mmedge.load(tmp_path / "b.mmedge") as bundle:
        assert [(v.target, v.precision) for v in bundle.manifest.variants] == [("cpu", "fp32")]


def test_it_is_compared_layer_by_layer(tmp_path: Path) -> None:
    from mmedge.export.compare_files import compare_here

    (tmp_path / "b").mkdir()
    one = large.place(large.layers(), tmp_path)
    changed = large.layers()
    w2 = onnx.numpy_helper.to_array(changed.graph.initializer[1]).copy()
    w2[0] += 1
    changed.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(w2, "w2"))
    other = large.place(changed, tmp_path / "b")
    assert compare_here((one, one, None, {}, 2, 1e-3))["layers"] == []
    found = compare_here((one, other, None, {}, 2, 1e-3))["layers"]
    assert [layer["node"] for layer in found] == ["second"]


# What is changed in a bundle's members (all hashes are right), and what is said.
def moved(key: str, value: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        model = onnx.load_from_string(files[FILE])
        entries = {entry.key: entry for entry in model.graph.initializer[1].external_data}
        entries[key].value = value
        files[FILE] = model.SerializeToString()

    return change


def renamed(files: dict[str, bytes]) -> None:
    model = onnx.load_from_string(files[FILE])
    model.graph.initializer[1].name = "w1"
    files[FILE] = model.SerializeToString()


def held_twice(files: dict[str, bytes]) -> None:
    model = onnx.load_from_string(files[FILE])
    model.graph.initializer[1].raw_data = bytes(4)
    files[FILE] = model.SerializeToString()


def in_a_node(files: dict[str, bytes]) -> None:
    model = onnx.load_from_string(files[FILE])
    node = model.graph.node.add(op_type="Constant", output=["k"])
    node.attribute.append(onnx.helper.make_attribute("value", model.graph.initializer[1]))
    files[FILE] = model.SerializeToString()


def wider(files: dict[str, bytes]) -> None:
    model = onnx.load_from_string(files[FILE])
    model.graph.initializer[1].dims[0] = 1 << 40
    files[FILE] = model.SerializeToString()


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "another file": (moved("location", "/etc/passwd"), "outside the bundle"),
    "above it": (moved("location", f"../{WEIGHTS}"), "outside the bundle"),
    "another member": (moved("location", "manifest.json"), "outside the bundle"),
    "a file of the host's own": (moved("location", "pyproject.toml"), "outside the bundle"),
    "behind the end": (moved("offset", "900000"), "ends at byte"),
    "in front of the begin": (moved("offset", "-64"), "ends at byte"),
    "no number": (moved("offset", "0x40"), "does not say where"),
    "in the middle of a number": (moved("offset", "6145"), "in the middle of a number"),
    "too short": (moved("length", "4"), "4 bytes, its shape"),
    "huge": (wider, "its shape and type take"),
    "of one name": (renamed, "the same name"),
    "with values of its own": (held_twice, "values of its own"),
    "in a node": (in_a_node, "a tensor inside of the network takes"),
    "without the file": (lambda files: files.pop(WEIGHTS), "outside the bundle"),
    "with half of the file": (lambda files: files.update({WEIGHTS: files[WEIGHTS][:5000]}), "ends at byte"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outside, "LEFT_BYTES", 1 << 16)
        patch.setattr(outside, "MESSAGE_BYTES", 1 << 16)
        patch.setattr(outside, "INSIDE_BYTES", 1 << 10)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        path = exported(tmp_path_factory.mktemp("good"))
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """Write members into a folder, with the hashes that they have."""
    from hashlib import sha256

    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"sha256": sha256(raw).hexdigest(), "bytes": len(raw)}
        for name, raw in files.items()
        if name != "manifest.json"
    }
    for name, raw in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_names_no_file_and_no_byte_that_is_not_its_own(
    kind: str, good: dict[str, bytes], tmp_path: Path
) -> None:
    change, said = HOSTILE[kind]
    files = dict(good)
    change(files)
    with pytest.raises(BundleError, match=said):
        answer(written(tmp_path / "b", files))


def test_weights_of_a_network_for_tensorrt_are_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    files = dict(good)
    files["manifest.json"] = files["manifest.json"].replace(b'"target": "cpu"', b'"target": "tensorrt"')
    with pytest.raises(BundleError, match="outside the bundle"):
        mmedge.load(written(tmp_path / "b", files))


def test_what_differs_from_the_manifest_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    folder = written(tmp_path / "b", good)
    with mmedge.load(folder) as bundle:
        raw = bytearray(good[WEIGHTS])
        raw[700] ^= 1
        (folder / WEIGHTS).write_bytes(raw)
        with pytest.raises(BundleError, match="differs from the manifest"):
            bundle.weights(FILE, bundle.read(FILE))
    with pytest.raises(BundleError, match="differs from the manifest"):
        mmedge.load(folder)


def test_weights_that_were_packed_again_are_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.mmedge", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in good.items():
            archive.writestr(name, raw)
    with pytest.raises(BundleError, match="is packed"):
        answer(tmp_path / "b.mmedge")


@settings(deadline=None, max_examples=40)
@given(at=st.integers(0, 1500), value=st.integers(0, 255))
def test_a_damaged_network_never_reads_another_file(good: dict[str, bytes], at: int, value: int) -> None:
    """Whatever one byte says, it is what protobuf reads of it, or an error: no weight is looked for elsewhere."""
    raw = bytearray(good[FILE])
    raw[at % len(raw)] = value
    try:
        found = {weight.name: weight for weight in outside_weights(bytes(raw))}
        model = onnx.load_from_string(bytes(raw))
    except Exception:
        return
    named = {t.name: t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert found.keys() == named.keys()
    for name, tensor in named.items():
        entries: dict[str, Any] = {entry.key: entry.value for entry in tensor.external_data}
        assert (found[name].location, list(found[name].dims)) == (entries["location"], list(tensor.dims))


def test_no_network_leads_to_a_file_by_a_name_of_its_own(tmp_path: Path) -> None:
    """The name by which a process finds a file that it has looked at is that process's own."""
    large.place(large.layers(), tmp_path)
    model = load_network(tmp_path / "net.onnx", streamed=True)
    assert len(outside.left(model)) == 3
    judge(model).close()
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace(outside._MARK, "0" * 32 + ":")
    assert outside.left(model) == []
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match="there is no file"):
        load_network(tmp_path / "other.onnx", streamed=True)


@pytest.mark.parametrize("location", ["../net.bin", "/etc/hostname", "link"])
def test_files_of_others_stay_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    large.place(large.layers(), tmp_path / "in")
    shutil.move(tmp_path / "in" / "net.bin", tmp_path / "net.bin")
    (tmp_path / "in" / "link").symlink_to("../net.bin")
    model = onnx.load(tmp_path / "in" / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    onnx.save(model, tmp_path / "in" / "net.onnx")
    with pytest.raises(ConfigError, match="outside its folder"):
        load_network(tmp_path / "in" / "net.onnx", streamed=True)


def test_a_short_file_is_refused(tmp_path: Path) -> None:
    large.place(large.layers(), tmp_path)
    with (tmp_path / "net.bin").open("r+b") as file:
        file.truncate(200_000)
    with pytest.raises(ConfigError, match="ends before byte"):
        load_network(tmp_path / "net.onnx", streamed=True)


IN_LITTLE_MEMORY = """
import sys
from pathlib import Path
from mmedge.export import bounded, run_steps, steps
from mmedge.export.onnx import outside
from mmedge.fusion.bounded import bound_self
from tests import large, tiny

folder = Path(sys.argv[1])
bounded._is_child = True  # bounds are those of this process
if sys.argv[2] == "streamed":
    outside.LEFT_BYTES = outside.MESSAGE_BYTES = 1 << 16
large.table(folder, 1 << 17)
recipe = large.recipe(folder, dtype='dtype = "int64"')
bound_self(60, 64, 1 << 28)
run_steps(recipe, output=folder / "b.mmedge", smoke=False)
"""


@pytest.mark.long
def test_weights_are_not_held_in_memory(tmp_path: Path) -> None:
    """134 MB of them within 64 MB beside the toolchain; as one message they do not fit."""
    for how, code in (("streamed", 0), ("whole", 1)):
        command = [sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path), how]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize(
    ("at", "members", "said"),
    [(0, 3, "lies in two places"), (None, 1 << 40, "too long"), (None, 3, "truncated")],
)
def test_the_larger_list_of_a_zip_file_is_looked_at(tmp_path: Path, at: int | None, members: int, said: str) -> None:
    """Files of more than 2 GB have one; it is bounded, and lies right in front of what points to it."""
    path = tiny.tiny_bundle(tmp_path / "b.mmedge")
    raw = path.read_bytes()
    end = raw.rindex(b"PK\5\6")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, members, members, 100, 1 << 40)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end if at is None else at, 1)
    path.write_bytes(raw[:end] + record + locator + raw[end:])
    with pytest.raises(BundleError, match=said):
        mmedge.load(path)
