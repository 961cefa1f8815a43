"""What the core asks of newer libraries than wheels may is in native/package/old_libraries.cpp."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmedge._native import core

SOURCE = Path(__file__).parents[2] / "native/package/old_libraries.cpp"
# manylinux_2_28: glibc 2.28 and the libstdc++ of GCC 8.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}
SYMBOL = re.compile(r"\*UND\*\s+\w+\s+\(?(GLIBC|GLIBCXX|CXXABI)_([\d.]+)\)?\s+(\S+)")


def test_every_newer_name_has_an_older_way() -> None:
    if platform.libc_ver() != ("glibc", "2.36"):
        pytest.skip("wheels are built on Debian 12: another system's headers ask for other names")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    shown = subprocess.run(["objdump", "-T", core.__file__], capture_output=True, text=True, check=True).stdout
    found = SYMBOL.findall(shown)
    assert len(found) > 50, "objdump's form has changed"
    newer = {name for kind, version, name in found if tuple(map(int, version.split("."))) > NEWEST[kind]}
    text = SOURCE.read_text()
    assert {name for name in newer if not re.search(rf"\b{re.escape(name)}\b", text)} == set()
