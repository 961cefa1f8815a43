"""CUDA kernels compile for every architecture that nvcc knows, and the build goes on, or says why not, without nvcc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.partners import bare_gpu

ROOT = Path(__file__).parents[2]
ARCHITECTURES = [75, 80, 86, 87, 89, 90, 100, 110, 120, 121]
NVCC = bare_gpu.nvcc()
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="CUDA's compiler (nvcc) is not installed")
KNOWN = set() if NVCC is None else set(subprocess.check_output([NVCC, "--list-gpu-arch"], text=True).split())


def test_the_build_compiles_for_these() -> None:
    listed = ";".join(map(str, ARCHITECTURES))
    assert f'MMEDGE_CUDA_ARCHITECTURES "{listed}"' in (ROOT / "native" / "cuda" / "kernels.cmake").read_text()


@needs_nvcc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile(architecture: int, tmp_path: Path) -> None:
    if f"compute_{architecture}" not in KNOWN:
        pytest.skip("this nvcc does not know it")
    cubin = tmp_path / "kernels.cubin"
    command = [NVCC, "-cubin", "-std=c++17", f"-arch=sm_{architecture}", f"-I{ROOT / 'native'}", "-o", cubin]
    subprocess.run([*command, "-Werror", "all-warnings", ROOT / "native" / "cuda" / "kernels.cu"], check=True)
    code = cubin.read_bytes()
    assert b"mmedge_picture" in code
    assert b"mmedge_dense" in code


@needs_nvcc
def test_the_bare_loop_compiles(tmp_path: Path) -> None:
    assert bare_gpu.build(tmp_path, "sm_87") is not None


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    command = [cmake, "-S", str(ROOT), "-B", str(folder), "-DMMEDGE_TESTS_ONLY=ON", *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_without_nvcc_kernels_are_left_out_or_it_is_an_error(tmp_path: Path) -> None:
    none = "-DMMEDGE_NVCC=/bin/false"
    done = configure(tmp_path / "auto", none)
    assert (done.returncode, "CUDA kernels are left out: nvcc" in done.stdout) == (0, True)
    done = configure(tmp_path / "on", none, "-DMMEDGE_CUDA=ON")
    assert (done.returncode, "MMEDGE_CUDA is ON" in done.stderr) == (1, True)
    done = configure(tmp_path / "off", "-DMMEDGE_CUDA=OFF")
    assert (done.returncode, "CUDA kernels" in done.stdout) == (0, False)
    done = configure(tmp_path / "odd", "-DMMEDGE_CUDA=MAYBE")
    assert (done.returncode, "AUTO, ON or OFF" in done.stderr) == (1, True)


def test_what_is_built_without_kernels_compiles(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    native = ROOT / "native"
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{native}"]
    subprocess.run([compiler, *flags, native / "cuda" / "kernels.cpp"], check=True)
