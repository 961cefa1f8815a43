"""What a back end has made of a network is kept: the same answers from it, and nothing in the cache is trusted."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

import mmedge
from mmedge.engine.prepared import PreparedKey
from mmedge.files import file_hash
from mmedge.fusion import StageGraph, load_graph

DIGITS = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"
BACKENDS = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is missing")),
]
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep networks of any size, in a cache of the test's own."""
    monkeypatch.setattr("mmedge.fusion.load.LEAST_BYTES", 0)
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def graph(backend: str, precision: str = "fp32") -> StageGraph:
    with mmedge.load(DIGITS) as bundle:
        return load_graph(bundle, backend=backend, precision=precision)


def answers(backend: str, precision: str = "fp32") -> tuple[dict[str, bytes], set[bool]]:
    """Return the outputs of every network for inputs drawn at random, and which were taken from the cache."""
    made = graph(backend, precision)
    found: dict[str, bytes] = {}
    taken = set()
    for stage in made.stages:
        if stage.engine.backend != backend:
            continue
        rng = np.random.default_rng(0)
        for value in stage.engine.inputs.values():
            value[...] = rng.integers(0, 2, value.shape) if value.dtype.kind == "i" else rng.normal(size=value.shape)
        stage.engine.run()
        found |= {f"{stage.name}.{name}": value.tobytes() for name, value in stage.engine.outputs.items()}
        taken.add(stage.engine.prepared is not None)  # type: ignore[attr-defined]
    made.close()
    return found, taken


def entries(cache: Path) -> Iterator[Path]:
    return (path for path in sorted(cache.iterdir()) if path.is_dir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_second_load_takes_what_the_first_has_made_and_answers_the_same(
    cache: Path, backend: str, precision: str
) -> None:
    if (backend, precision) == ("openvino", "int8"):
        pytest.skip("whether its INT8 kernels are near enough to ONNX Runtime's hangs on the CPU")
    first, taken = answers(backend, precision)
    assert taken == {False}
    kept = {path.name for path in entries(cache)}
    assert len(kept) == (4 if precision == "fp32" else 8)  # what INT8 costs here is held against FP32
    assert all(name.startswith(backend) for name in kept)
    assert answers(backend, precision) == (first, {True})
    assert {path.name for path in entries(cache)} == kept


def test_what_is_damaged_is_made_again(cache: Path, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    first, _ = answers(backend)
    damaged = list(entries(cache))
    for how, folder in enumerate(damaged):
        file = next(path for path in folder.iterdir() if path.name != "entry.json")
        raw = bytearray(file.read_bytes())
        if how == 0:
            raw[len(raw) // 2] ^= 1
        elif how == 1:
            del raw[-10:]
        elif how == 2:
            file.unlink()
            (folder / "entry.json").write_text("{}")
            continue
        else:
            file.unlink()
            continue
        file.write_bytes(raw)
    assert answers(backend) == (first, {False})
    assert caplog.text.count("is damaged") == 4
    assert answers(backend) == (first, {True})


def test_what_nobody_has_hashed_is_not_taken(cache: Path, backend: str) -> None:
    first, _ = answers(backend)
    names = [folder.name for folder in entries(cache)]
    for how, name in enumerate(names):
        folder = cache / name
        file = next(path for path in folder.iterdir() if path.name != "entry.json")
        entry = json.loads((folder / "entry.json").read_text())
        if how == 0:
            entry["files"] = {}
        elif how == 1:
            entry["files"]["a\0b"] = "0" * 64
        elif how == 2:
            file.unlink()
            os.mkfifo(file)  # it is not waited for
        else:
            folder.rename(cache / "elsewhere")
            folder.symlink_to("elsewhere")
            continue
        (folder / "entry.json").write_text(json.dumps(entry))
    assert answers(backend) == (first, {False})
    assert answers(backend) == (first, {True})
    assert not any((cache / name).is_symlink() for name in names)


def put_others(cache: Path) -> None:
    own, *others = entries(cache)
    for other in others:  # files of another network, with hashes that are right
        entry = json.loads((other / "entry.json").read_text())
        for file in list(other.iterdir()):
            file.unlink()
        for file in own.iterdir():
            if file.name != "entry.json":
                shutil.copy(file, other)
        entry["files"] = {path.name: file_hash(path) for path in other.iterdir()}
        (other / "entry.json").write_text(json.dumps(entry))


def test_another_network_under_its_name_fails_its_self_test_and_is_made_again(
    cache: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = answers(backend)
    put_others(cache)
    got, taken = answers(backend)
    assert got == first
    assert taken == {False, True}
    assert caplog.text.count("it is made again") == 3
    assert answers(backend) == (first, {True})


def test_what_is_wrong_and_cannot_be_removed_is_passed_over(
    cache: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = answers(backend)
    put_others(cache)
    monkeypatch.setattr("mmedge.engine.prepared._remove", lambda folder: None)  # a cache of root's, read by others
    assert answers(backend) == (first, {False, True})


@pytest.mark.parametrize("how", ["a file", "open to others"])
def test_a_cache_that_cannot_be_used_costs_time_alone(
    cache: Path, backend: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "a file":
        cache.touch()
    else:
        cache.mkdir()
        cache.chmod(0o777)
    with caplog.at_level(logging.INFO):
        assert answers(backend)[1] == {False}
        assert answers(backend)[1] == {False}
    assert "nothing prepared is kept" in caplog.text


def test_a_disk_that_is_full_costs_time_alone(cache: Path, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    first, _ = answers(backend)
    shutil.rmtree(cache)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))  # of an entry there is room for a part
    try:
        with caplog.at_level(logging.INFO):
            assert answers(backend) == (first, {False})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "nothing prepared is kept" in caplog.text
    caplog.clear()
    assert answers(backend)[0] == first
    assert "made again" not in caplog.text  # no part was taken for a whole
    assert answers(backend) == (first, {True})


def test_what_an_older_library_has_prepared_goes(cache: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("mmedge.engine.cpu_backends.library_version", lambda backend: "1.0")
        answers(backend)
    before = set(entries(cache))
    assert answers(backend)[1] == {False}
    assert len(before) == len(set(entries(cache))) == 4
    assert not before & set(entries(cache))


def test_another_machine_or_library_is_another_entry(backend: str) -> None:
    key = PreparedKey(sha256="0" * 64, backend=backend, version="1")
    changes = (
        {"version": "2"},
        {"cpu": "other"},
        {"instructions": ()},
        {"shapes": {"x": (1,)}},
        {"sha256": "1" * 64},
        {"mmedge": "9"},
    )
    assert len({key.stem, *(msgspec.structs.replace(key, **change).stem for change in changes)}) == 7
