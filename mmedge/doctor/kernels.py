"""Which GPUs a library has kernels for, read from the file itself: CUDA's fat binaries name an architecture each."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

_CONTAINER = struct.Struct("<IHHQ")  # magic, version, size of this header, bytes of entries that follow
_ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, size of this header, bytes of code, ..., architecture
_MAGIC = 0xBA55ED50
_PTX, _MACHINE_CODE = 1, 2
_ELF_MAGIC = int.from_bytes(b"\x7fELF", "little")
_ELF64 = struct.Struct("<IBB10xHHI8xQQ4xHHHHHH")
_SECTION = struct.Struct("<II8x8xQQ")  # name, type, ..., offset, size
_MAX_SECTIONS = 4096
_PADDING = 1 << 16  # between two containers
_MAX_ENTRIES = 200_000  # cuBLAS, the largest there is, has 6,000
_ARCHITECTURES = range(30, 1000)


class Kernels(msgspec.Struct, frozen=True, kw_only=True):
    """What a library can run on.

    Attributes:
        library: Its file, below the folder it was found in.
        sms: Compute capabilities it has machine code for, ``("SM87",)``.
        ptx: Those it has portable code for, which the driver translates for newer GPUs.
    """

    library: str
    sms: tuple[str, ...]
    ptx: tuple[str, ...] = ()


def run_on(kernels: Kernels, sm: str, *, integrated: bool) -> bool:
    """Tell whether a library's kernels run on a GPU.

    Machine code runs within its major family on a desktop, on Tegra only where it was made for exactly this chip
    (CUDA C++ Programming Guide, "Binary Compatibility"); portable code runs on anything as new.

    Args:
        kernels: Of the library.
        sm: The GPU's compute capability, ``"SM87"``.
        integrated: Whether the GPU is that of a Jetson.

    Example:
        >>> run_on(Kernels(library="x.so", sms=("SM80",)), "SM87", integrated=True)
        False
    """
    here = _number(sm)
    if any(_number(ptx) <= here for ptx in kernels.ptx):
        return True
    if integrated:
        return sm in kernels.sms
    return any(_number(made) // 10 == here // 10 and _number(made) <= here for made in kernels.sms)


def _number(sm: str) -> int:
    return int(sm.removeprefix("SM"))


def read_kernels(path: Path, name: str) -> Kernels | None:
    """Read the architectures that a shared library has kernels for.

    Only headers are read, so a library of a gigabyte takes milliseconds.

    Args:
        path: The library.
        name: What to call it.

    Returns:
        What it has; None if it is no 64-bit ELF file, holds no fat binary, or is damaged.

    Example:
        >>> read_kernels(Path("/bin/sh"), "sh") is None
        True
    """
    try:
        with path.open("rb") as file:
            found = [kind for section in _fat_sections(file) for kind in _entries(file, *section)]
    except (OSError, struct.error, ValueError):
        return None
    sms = sorted({arch for kind, arch in found if kind == _MACHINE_CODE})
    ptx = sorted({arch for kind, arch in found if kind == _PTX})
    if not found:
        return None
    return Kernels(library=name, sms=tuple(f"SM{arch}" for arch in sms), ptx=tuple(f"SM{arch}" for arch in ptx))


def _unpack(file: BinaryIO, form: struct.Struct, offset: int) -> tuple[int, ...]:
    file.seek(offset)
    return form.unpack(file.read(form.size))


def _fat_sections(file: BinaryIO) -> list[tuple[int, int]]:
    """Return where the sections with fat binaries lie: offset and size."""
    magic, bits, order, *_, table, _, _, _, size, count, names = _unpack(file, _ELF64, 0)
    if magic != _ELF_MAGIC or (bits, order) != (2, 1) or size < _SECTION.size or not 0 < count <= _MAX_SECTIONS:
        return []
    sections = [_unpack(file, _SECTION, table + size * index) for index in range(count)]
    if names >= count:
        return []
    file.seek(sections[names][2])
    text = file.read(min(sections[names][3], 1 << 20))
    wanted = (b".nv_fatbin", b"__nv_relfatbin")
    return [(offset, size) for name, _, offset, size in sections if text[name:].split(b"\0", 1)[0] in wanted]


def _entries(file: BinaryIO, offset: int, size: int) -> list[tuple[int, int]]:
    """Return the kind and architecture of each entry between ``offset`` and ``offset + size``."""
    found: list[tuple[int, int]] = []
    end = min(offset + size, file.seek(0, os.SEEK_END))
    while offset + _CONTAINER.size <= end and len(found) < _MAX_ENTRIES:
        magic, _, header, length = _unpack(file, _CONTAINER, offset)
        if magic != _MAGIC or header < _CONTAINER.size:
            file.seek(offset)
            ahead = file.read(min(_PADDING, end - offset)).find(_MAGIC.to_bytes(4, "little"), 1)
            if ahead < 0:
                break
            offset += ahead
            continue
        offset, last = offset + header, min(offset + header + length, end)
        while offset + _ENTRY.size <= last and len(found) < _MAX_ENTRIES:
            kind, _, header, length, arch = _unpack(file, _ENTRY, offset)
            if header < _ENTRY.size:
                raise ValueError("a fat binary's entry is shorter than its header")
            if kind in (_PTX, _MACHINE_CODE) and arch in _ARCHITECTURES:
                found.append((kind, arch))
            offset += header + length
        offset = last
    return found
