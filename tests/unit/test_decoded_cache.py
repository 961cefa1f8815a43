"""Decoded files are kept: whole, bounded, and never those of other content."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")

import msgspec  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from mmedge.export.datasets import folder as folder_module  # noqa: E402
from mmedge.export.datasets.decoded import DecodedCache, decoded_key  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from tests.tiny_training import folder, write_project  # noqa: E402


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_project(tmp_path / "p", (8, 4, 4))


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.npy"))


class Counted:
    """Counts what is decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []
        read = folder_module.read_file

        def counting(path: Path, spec: object, shown: str) -> object:
            self.files.append(path.name)
            return read(path, spec, shown)  # type: ignore[arg-type]

        monkeypatch.setattr(folder_module, "read_file", counting)


def test_arrays_in_use_hold_no_file_open(tmp_path: Path) -> None:
    """A batch of thousands of samples would reach the limit of open files, and decode the rest anew."""
    cache, keys = DecodedCache(10**6, tmp_path), [f"{number:064x}" for number in range(50)]
    cache.plan(dict.fromkeys(keys, 12))
    for number, key in enumerate(keys):
        cache.put(key, np.full((2, 3), number, np.int16))
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [cache.get(key) for key in keys]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for number, array in enumerate(held):
        assert array is not None
        np.testing.assert_array_equal(array, np.full((2, 3), number, np.int16), strict=True)
        array += 1  # stays in this process
    again = [cache.get(key) for key in keys]
    assert [None if array is None else int(array[0, 0]) for array in again] == list(range(50))


def test_a_second_epoch_decodes_nothing_and_gives_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = folder(msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, cache_gb=0)))
    want = [plain.split("train")[number].inputs for number in range(8)]
    assert not kept(tmp_path)
    counted = Counted(monkeypatch)
    data = folder(recipe)
    data.check()
    first = len([name for name in counted.files if not name.endswith(".npy")])
    assert first == len(kept(tmp_path)) > 16
    counted.files.clear()
    for again in (data, folder(recipe)):
        again.check()
        for number in range(8):
            got = again.split("train")[number].inputs
            assert got.keys() == want[number].keys()
            for name, array in got.items():
                np.testing.assert_array_equal(array, want[number][name])
    assert all(name.endswith(".npy") for name in counted.files)  # what is an array already is not kept twice


def test_workers_share_it(recipe: Recipe, tmp_path: Path) -> None:
    data = folder(recipe)
    for _ in range(2):
        loader: DataLoader[object] = DataLoader(
            data.split("train"),
            4,
            num_workers=2,
            collate_fn=data.collate,  # type: ignore[arg-type]
        )
        assert sum(len(batch["present"]) for batch in loader) == 8  # type: ignore[index]
    assert len(kept(tmp_path)) > 16
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_other_content_and_another_seat_are_other_entries(recipe: Recipe, tmp_path: Path) -> None:
    data = folder(recipe)
    before = data.split("train")[0].inputs["front"].copy()
    path = recipe.folder / "data" / "train0.png"
    stat = path.stat()
    cv2.imwrite(str(path), np.full((16, 16), 9, np.uint8))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # neither time nor name tells
    assert (folder(recipe).split("train")[0].inputs["front"] == 9).all()
    spec = recipe.inputs["front"]
    keys = {
        decoded_key("c", ".png", changed, ("v",))
        for changed in (
            spec,
            msgspec.structs.replace(spec, frame=(8, 8)),
            msgspec.structs.replace(spec, color="rgb", mean=(0, 0, 0), std=(1, 1, 1)),
            msgspec.structs.replace(spec, fit="letterbox"),
        )
    }
    assert len(keys) == 4
    assert decoded_key("c", ".png", spec, ("v",)) != decoded_key("c", ".png", spec, ("w",))
    normalised = msgspec.structs.replace(spec, mean=(0.1,), std=(9.0,))
    assert decoded_key("c", ".png", spec, ("v",)) == decoded_key("c", ".png", normalised, ("v",))
    assert not (before == 9).all()


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_what_is_damaged_is_decoded_again(recipe: Recipe, tmp_path: Path, damage: str) -> None:
    want = folder(recipe).split("train")[0].inputs["front"].copy()
    for path in kept(tmp_path):
        raw = path.read_bytes()
        path.write_bytes({"cut": raw[: len(raw) - 7], "empty": b"", "text": b"x" * len(raw)}[damage])
    np.testing.assert_array_equal(folder(recipe).split("train")[0].inputs["front"], want)


def test_what_a_sample_s_user_writes_stays_with_him(recipe: Recipe) -> None:
    data = folder(recipe)
    data.check()
    first = data.split("train")[0].inputs["front"]
    want = first.copy()
    first[...] = 0
    np.testing.assert_array_equal(data.split("train")[0].inputs["front"], want)


def test_an_unwritable_cache_is_said_and_trains_all_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data = folder(recipe)
    data.check()
    assert data.split("train")[0].inputs["front"].shape == (16, 16, 1)
    assert "nothing decoded is kept" in caplog.text


@settings(max_examples=40, deadline=None)
@given(
    rounds=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), min_size=1, max_size=5),
    limit=st.integers(1, 12),
)
def test_it_never_grows_beyond_its_limit(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[int]], limit: int
) -> None:
    """Whatever data sets come one after the other: what is wanted first is kept, and the sum is bounded."""
    home, one = tmp_path_factory.mktemp("c"), 1000 + 256
    now = 1.0
    for wanted in rounds:
        cache = DecodedCache(limit * one, home)
        names = [f"{number:04x}" for number in wanted]
        cache.plan(dict.fromkeys(names, 1000))
        for name in names:
            cache.put(name, np.full(1000, int(name, 16), np.uint8))
        found = sorted(home.rglob("*.npy"))
        assert sum(path.stat().st_size for path in found) <= limit * one
        assert {path.stem for path in found} >= set(names[:limit])
        for name in names[:limit]:
            array = cache.get(name)
            assert array is not None
            assert (array == int(name, 16)).all()
        for path in found:
            os.utime(path, (now, now))
        now += 1


def _fill(args: tuple[str, int]) -> int:
    home, seed = args
    cache = DecodedCache(1 << 20, Path(home))
    names = [f"{number:04x}" for number in range(40)]
    cache.plan(dict.fromkeys(names, 4000))
    wrong = 0
    for number in np.random.default_rng(seed).permutation(40):
        name = names[number]
        array = cache.get(name)
        wrong += array is not None and not (array == number).all()
        cache.put(name, np.full(1000, number, np.float32))
    return wrong


@pytest.mark.timeout(300)  # each imports torch
def test_processes_at_once_see_whole_arrays_only(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert sum(pool.map(_fill, [(str(tmp_path), seed) for seed in range(6)])) == 0
    assert len(list(tmp_path.rglob("*.npy"))) == 40
    assert not list(tmp_path.rglob("*.part"))
