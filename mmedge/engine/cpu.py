"""Effects of the CPU on a network: its instruction sets, and whether 8-bit sums are exact."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from mmedge._native import core


@cache
def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that kernels choose by, as this process may use them (also where it is emulated).

    Example:
        >>> instruction_sets()  # doctest: +SKIP
        ('avx2', 'fma', 'avx512f', 'avx512_vnni')
    """
    return tuple(core.cpu_features())


@cache
def cpu_name() -> str:
    """Return what the processor, or the board, is called; the architecture where nothing says more.

    Example:
        >>> cpu_name()  # doctest: +SKIP
        'NVIDIA Jetson Orin Nano'
    """
    for path, pattern in (("/proc/device-tree/model", r"(.+)"), ("/proc/cpuinfo", r"model name\s*: (.+)")):
        with suppress(OSError):
            if found := re.search(pattern, Path(path).read_text(encoding="utf-8", errors="replace")):
                return found[1].strip("\0 ")
    return platform.machine()


def saturates_pairs() -> bool:
    """Tell whether products of 8-bit numbers are added in pairs of 16 bits here, which saturate: x86 without VNNI."""
    return platform.machine() == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(instruction_sets())
