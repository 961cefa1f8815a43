"""Giving back what a process has read of its files and will hardly read again."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_DONTNEED = 4  # of madvise
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) [0-9a-f]+ \S+ (\d+)")
_PRIVATE = "r--p", "r-xp"
_LAST = "VmFlags:"  # of what is said of a mapping


def unmap_clean() -> int:
    """Give back the pages of code and constants of this process; return the size of what they lay in, in bytes.

    The kernel keeps them as long as nothing else needs their room, and they come back when they are used: for who has
    started, and waits.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int
    with Path("/proc/self/smaps").open() as smaps:
        return sum(end - begin for begin, end in clean_mappings(smaps) if madvise(begin, end - begin, _DONTNEED) == 0)


def clean_mappings(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each private mapping of a file that its file has all of.

    A page that was written to, as the linker does before it forbids that, is anonymous: it would be lost.

    Args:
        smaps: Lines of ``/proc/PID/smaps``.

    Example:
        >>> lines = ["7f00-8f00 r-xp 0 08:01 9 /lib/a.so", "Anonymous:  0 kB", "Swap:  0 kB", "VmFlags: rd"]
        >>> list(clean_mappings(lines)), list(clean_mappings(["7f00-8f00 r-xp 0 08:01 9", "Swap: 4 kB", "VmFlags:"]))
        ([(32512, 36608)], [])
    """
    begin, end, written = 0, 0, 0
    for line in smaps:
        if (mapping := _MAPPING.match(line)) is not None:
            begin, end = int(mapping[1], 16), int(mapping[2], 16)
            written = 0 if mapping[3] in _PRIVATE and mapping[4] != "0" else 1
        elif line.startswith(("Anonymous:", "Swap:")):
            written += int(line.split()[1])
        elif line.startswith(_LAST) and not written:
            yield begin, end
