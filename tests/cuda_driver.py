"""A stand-in for CUDA's driver in place of libcuda.so.1: it checks calls and computes nothing. No GPU takes part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAD = """
import ctypes
import numpy as np
import mmedge
driver = ctypes.CDLL("libcuda.so.1")
driver.stand_in_live.restype = ctypes.c_size_t
"""


def build(folder: Path, *, green: bool = True) -> Path:
    """Compile it into a folder, by the name that the real one has; a driver without green contexts is an older one."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    native = ROOT / "native"
    library = folder / "libcuda.so.1"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f"-I{native}"]
    sources = [native / "tests" / f"cuda_stand_in{part}.cpp" for part in ("", "_green")[: 1 + green]]
    subprocess.run([compiler, *flags, "-o", library, *sources], check=True)
    return folder


def run(folder: Path, code: str) -> str:
    """Run Python code in a process that finds the stand-in; return what it prints."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
