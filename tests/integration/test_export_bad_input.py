"""What a user gives `mmedge export` that cannot work, line by line: named with what it is, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from benchmarks.media_hostile import PEAK_MB, measure
from mmedge.cli import run
from tests.integration.conftest import need
from tests.networks import FLOAT, NODE, network

pytestmark = pytest.mark.parallel
RECIPE = """
name = "t"
licence = "MIT"
[inputs.{seat}]
{spec}
[stages.net]
onnx = "net.onnx"
inputs = {{ x = "{seat}" }}
outputs = {{ y = [1, 3] }}
[tasks.kind]
kind = "classification"
output = "net.y"
labels = ["a", "b", "c"]
[calibration]
recordings = "data"
[export]
precisions = ["fp32", "int8"]
targets = ["cpu"]
[sync]
trigger = "{seat}"
"""
SEATS = {
    "image": 'modality = "image"\nsize = [8, 8]\nframe = [12, 16]\ncolor = "gray"\nmean = [0.5]\nstd = [0.5]',
    "audio": 'modality = "audio"\nsample_rate_hz = 8000\nwindow_ms = 100',
    "imu": 'modality = "tensor"\nshape = [1, 6]',
}
SHAPES = {"image": [1, 1, 8, 8], "audio": [1, 800], "imu": [1, 6]}
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (9, 12, 16, 1), dtype=np.uint8)
MOVES = RNG.normal(0, 1, (9, 1, 6)).astype(np.float32)


def spoiled(array: np.ndarray, value: float) -> np.ndarray:
    copied = array.copy()
    copied.reshape(len(copied), -1)[4, 2] = value
    return copied


def arrays(seat: str, array: np.ndarray) -> Callable[[Path], object]:
    return lambda data: np.save(data / f"{seat}.npy", array)


# Seat, what lies in the folder, and what is said.
BAD: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "normalised pictures": ("image", arrays("image", PICTURES / np.float32(255)), ("float32", "..1: no raw picture")),
    "planes first": ("image", arrays("image", np.zeros((9, 3, 12, 16), np.uint8)), ("[3, 12, 16]", "no raw picture")),
    "no PCM": ("audio", arrays("audio", np.full((9, 800), 2e4, np.float32)), ("2e+04", "no raw sound")),
    "another shape": ("imu", arrays("imu", MOVES[..., :5]), ("float32 [1, 5]", "give float32 [1, 6]")),
    "another type": ("imu", arrays("imu", MOVES.astype(np.complex64)), ("complex64, not numbers", "imu.npy")),
    "a frame of NaN": ("imu", arrays("imu", spoiled(MOVES, np.nan)), ("not finite", "imu.npy")),
    "an infinite frame": ("imu", arrays("imu", spoiled(MOVES, np.inf)), ("not finite", "imu.npy")),
    "one picture": ("image", lambda data: cv2.imwrite(str(data / "a.png"), PICTURES[0]), ("1 sample is", "3 are")),
    "one array": ("imu", arrays("imu", MOVES[0]), ("1 sample is not enough", "at least 3 files")),
    "nothing": ("imu", lambda data: None, ("no media files, pictures or arrays",)),
}


def project(folder: Path, seat: str) -> Path:
    (folder / "data").mkdir()
    count = int(np.prod(SHAPES[seat]))
    nodes = [NODE("Flatten", ["x"], ["f"]), NODE("MatMul", ["f", "w"], ["y"], name="head")]
    weight = RNG.normal(0, 1, (count, 3)).astype(np.float32)
    onnx.save(network(nodes, {"x": (FLOAT, SHAPES[seat])}, {"y": (FLOAT, [1, 3])}, w=weight), folder / "net.onnx")
    (folder / "recipe.toml").write_text(RECIPE.format(seat=seat, spec=SEATS[seat]))
    return folder / "data"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("what", BAD)
def test_calibration_data_that_cannot_be_used_are_named(what: str, place: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    seat, write, told = BAD[what]
    write(project(place, seat))
    got = run(["export", "recipe.toml", "--no-smoke"])
    err = capfd.readouterr().err
    assert got == 2, err
    for words in (*told, "fix:"):
        assert words in err.partition("error: ")[2], err
    assert not list(place.glob("*.mmedge"))


def test_weights_outside_of_the_folder_are_refused(place: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    home = place / "home"
    home.mkdir()
    project(home, "imu")
    model = onnx.load(home / "net.onnx")
    onnx.save_model(model, place / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(place / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    onnx.save(model, home / "net.onnx")
    for arguments in (["export", "home/recipe.toml"], ["export", "home/net.onnx", "--licence", "MIT"]):
        assert run([*arguments, "--no-smoke"]) == 2
        err = capfd.readouterr().err
        assert "../w.bin" in err
        assert "fix:" in err


@pytest.mark.long
def test_a_network_that_answers_two_gigabytes_is_refused_in_little_memory(place: Path) -> None:
    """Its weights of more than one message holds stay in their file, but what it answers is as large."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[512, 1 << 20], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "big.data"), ("offset", "0"), ("length", str(512 << 22))):
        tensor.external_data.add(key=key, value=value)
    with (place / "big.data").open("wb") as file:
        file.write(np.linspace(-1, 1, 1 << 20, dtype=np.float32).tobytes())
        file.truncate(512 << 22)
    model = network([NODE("Add", ["x", "w"], ["y"])], {"x": (FLOAT, [1])}, {"y": (FLOAT, [512, 1 << 20])})
    model.graph.initializer.append(tensor)
    onnx.save(model, place / "big.onnx")
    command = [sys.executable, "-m", "mmedge", "export", "big.onnx", "--licence", "MIT", "--no-smoke"]
    code, _, peak_mb, err = measure(command, place)
    assert code == 2, err
    assert "MB of memory for its first reading" in err
    assert peak_mb < PEAK_MB, f"{peak_mb} MB of it and of what it started"


def test_a_cache_that_may_not_be_written_is_named(place: Path) -> None:
    """Root may write anywhere, unless this right was taken from it."""
    np.save(project(place, "imu") / "imu.npy", np.concatenate([MOVES] * 9))
    (place / "cache").mkdir(mode=0o555)
    prefix: list[str] = []
    if os.geteuid() == 0:
        need("setpriv")
        prefix = ["setpriv", "--bounding-set", "-dac_override"]
    command = [*prefix, sys.executable, "-m", "mmedge", "export", "recipe.toml", "--no-smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot write the export cache: Permission denied" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert not list(place.glob("*.mmedge"))
    (place / "cache").chmod(0o755)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.glob("*.mmedge")] == ["t.mmedge"]
