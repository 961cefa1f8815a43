"""Recorded system trees of boards, laid out in a folder, and libraries with kernels for a GPU of one's choice."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmedge.doctor.machine import read_machine
from mmedge.doctor.machine_checks import cameras_check, machine_checks, python_check, tensorrt_check
from mmedge.doctor.report import Check, Gpu, TensorRT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "boards"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
NOW_S = 1.8e9  # in 2027
PATH = "/usr/local/bin:/usr/bin:/usr/local/cuda/bin"


def lay_out(name: str, root: Path) -> dict[str, Any]:
    """Write a board's files below ``root`` and return what is expected of them."""
    tree = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    for path, text in tree["files"].items():
        put(root, path, text.encode())
    for path, target in tree["links"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return tree["expected"]


def put(root: Path, path: str, data: bytes) -> None:
    """Write one file of a tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


def diagnose(
    root: Path, *, python: str, path: str = PATH, unix_s: float = NOW_S, cache_writable: bool = True
) -> dict[str, Check]:
    """Return the checks that the doctor makes of a tree, by name; the newest TensorRT there is the one in use."""
    machine = read_machine(root, path=path, python_path=[], unix_s=unix_s)
    gpu = Gpu(usable=False, problem="a recorded tree has none")
    version = max(machine.tensorrt, default=None, key=lambda text: tuple(map(int, text.split("."))))
    trt = TensorRT(module="tensorrt" if version else None, version=version)
    checks = [
        python_check(python, machine.board),
        tensorrt_check(machine, trt, gpu),
        cameras_check(machine),
        *machine_checks(machine, gpu=gpu, cache_writable=cache_writable),
    ]
    return {check.name: check for check in checks}


def is_right(name: str, root: Path) -> list[str]:
    """Lay out a board's tree, diagnose it, and return what the doctor said of it that is wrong."""
    expected = lay_out(name, root)
    checks = diagnose(root, python=f"{expected['python']}.3")
    wrong = [f"{check.name}: {check.status}: {check.detail}" for check in checks.values() if check.status != "ok"]
    for check, text in (
        ("board", expected["board"]),
        ("tensorrt", expected["tensorrt"]),
        ("power mode", expected["power"]),
        ("dla", expected["dla"]),
    ):
        if not checks[check].detail.startswith(text):
            wrong.append(f"{check}: '{checks[check].detail}' instead of '{text}'")
    return wrong


def library(sms: Sequence[int], ptx: Sequence[int] = ()) -> bytes:
    """Return a shared library that holds nothing but fat binaries, one for each architecture."""
    code = b"\0" * 24
    entries = b"".join(
        struct.pack("<HHIQIIIIIIQQQ", kind, 0x101, 64, len(code), 0, 0, 0, arch, 0, 0, 0, 0, 0) + code
        for kind, archs in ((1, ptx), (2, sms))
        for arch in archs
    )
    section = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
    names = b"\0.nv_fatbin\0.shstrtab\0"
    table = 64 + len(section) + len(names)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 0, table, 0, 64, 56, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(section), 0, 0, 8, 0)
    sections += struct.pack("<IIQQQQIIQQ", 12, 3, 0, 0, 64 + len(section), len(names), 0, 0, 1, 0)
    return header + section + names + sections
