"""The examples in C and C++, built as a user builds them, and with sanitizers; run beside `mmedge run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmedge.clients import prefix
from tests.processes import until
from tests.tiny import imu_bundle, tiny_bundle

pytestmark = pytest.mark.parallel

ROOT = Path(__file__).parents[2]
EXAMPLES, NATIVE = ROOT / "examples", ROOT / "native"
CAMERA = "test://?width=160&height=120&fps=30"
CMAKE = Path(sys.executable).with_name("cmake")


def done(*command: object, **options: str) -> None:
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, env={**os.environ, **options})
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as docs/attach.md says, with CMake."""
    folder = tmp_path_factory.mktemp("built")
    done(CMAKE, "-S", EXAMPLES, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix()}", "-DCMAKE_BUILD_TYPE=Release")
    done(CMAKE, "--build", folder)
    return folder


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build library and examples in one, where any wrong access ends the program."""
    folder = tmp_path_factory.mktemp("sanitized")
    watched = [
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-I",
        NATIVE,
        "-I",
        NATIVE / "include",
    ]
    sources = [*sorted((NATIVE / "attach").glob("*.cpp")), NATIVE / "slot_ring.cpp", NATIVE / "shared_memory.cpp"]
    done("gcc", "-std=c11", *watched, "-c", EXAMPLES / "attach.c", "-o", folder / "attach.o")
    done("g++", "-std=c++17", *watched, folder / "attach.o", *sources, "-o", folder / "attach")
    done("g++", "-std=c++17", *watched, EXAMPLES / "attach_push.cpp", *sources, "-o", folder / "attach_push")
    return folder


@pytest.fixture(params=["built", "sanitized"])
def programs(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@contextmanager
def run(bundle: Path, door: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", "mmedge", "run", str(bundle), "--attach", str(door), "--json", *options]
    with (door.parent / "said").open("w") as said, (door.parent / "lines").open("w") as lines:
        process = subprocess.Popen(line, stdout=lines, stderr=said, text=True, cwd=ROOT)
        try:
            assert until(lambda: door.exists() or process.poll() is not None, 60)
            assert process.poll() is None, (door.parent / "said").read_text()
            yield process
        finally:
            process.kill()
            process.wait()


def answer(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)


def test_answers_and_brightness(programs: Path, tmp_path: Path) -> None:
    door = tmp_path / "door"
    with run(tiny_bundle(tmp_path / "tiny.mmedge"), door, "--image", CAMERA) as pipeline:
        seen = answer(programs / "attach", door, "scene", "image", 30)
        assert seen.returncode == 0, seen.stderr
        said = seen.stdout.splitlines()
        assert len(said) == 30
        pipeline.terminate()
        assert pipeline.wait(60) == 0
    told = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    labels = {f"{line['t_ns'] / 1e9:.3f} s": line["tasks"]["scene"]["label"] for line in told}
    known = [line.split(" scene ") for line in said if line.split(" scene ")[0] in labels]
    assert known
    assert all(rest.split()[0].rstrip(",") == (labels[when] or "?") for when, rest in known)
    assert sum("image " in line for line in said) > 15  # a stalled machine may be too late for some
    assert not door.exists()


def test_a_sensor_in_cpp(programs: Path, tmp_path: Path) -> None:
    door = tmp_path / "door"
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="tests.entries:shaken")
    options = ["--input", f"image={CAMERA}", "--input", "imu=push://", "--allow-callable", "tests.entries"]
    with run(bundle, door, *options):
        seen = answer(programs / "attach_push", door, "imu", "1x6", 100, 30)
        assert seen.returncode == 0, seen.stderr
        told = [json.loads(line) for line in seen.stdout.splitlines()]
        assert len(told) == 30
        assert any(line["present"]["imu"] for line in told)
        refused = answer(programs / "attach_push", door, "imu", "1x5", 100, 3000)
        assert refused.returncode == 1
        assert "does not fit this input" in refused.stderr


def test_how_they_are_used(programs: Path, tmp_path: Path) -> None:
    for name in ("attach", "attach_push"):
        usage = answer(programs / name)
        assert usage.returncode == 2
        assert "usage: " in usage.stderr
    for command in (["attach", "scene"], ["attach_push", "imu", "6", "1", "1"]):
        nobody = answer(programs / command[0], tmp_path / "door", *command[1:])
        assert nobody.returncode == 1
        assert str(tmp_path / "door") in nobody.stderr


def test_pkg_config_knows_the_library(tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config")
    env = {**os.environ, "PKG_CONFIG_PATH": str(prefix() / "lib" / "pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "mmedge"], env=env, capture_output=True, text=True, check=True
    )
    done("gcc", EXAMPLES / "attach.c", "-o", tmp_path / "attach", *flags.stdout.split())
    found = subprocess.run(
        [tmp_path / "attach"], env={**os.environ, "LD_LIBRARY_PATH": str(prefix() / "lib")}, capture_output=True
    )
    assert found.returncode == 2
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", prefix() / "lib" / "libmmedge.so"], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1].partition("@")[0] for line in exported.stdout.splitlines()]
    assert {name for name in names if not name.startswith("mmedge_")} <= {"MMEDGE_1"}
    header = (NATIVE / "include" / "mmedge.h").read_text()
    assert all(f"{name}(" in header for name in names if name.startswith("mmedge_"))
