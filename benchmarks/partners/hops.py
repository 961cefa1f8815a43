"""The bare two-hop program in C++ beside it: built by one call of the compiler, then run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("hops.cpp")


def build(folder: Path) -> Path | None:
    """Build the program into a folder; None where there is no C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    program = folder / "hops"
    subprocess.run([compiler, "-O2", "-std=c++17", "-Wall", "-Wextra", "-o", program, SOURCE], check=True)
    return program


def hops_us(program: Path, seconds: float) -> list[float]:
    """Return the times of the frames of a run, from before the copy to the user's process, in us."""
    done = subprocess.run([program, str(seconds)], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]
