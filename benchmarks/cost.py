"""What a tree of processes costs, from /proc: processor time and memory; and how one is started to be measured."""

from __future__ import annotations

import os
from pathlib import Path


def installed(folder: Path) -> dict[str, str]:
    """Return this environment, but for compiled modules being kept in a folder, as they are of an installed package.

    In a checkout that nothing may write to (PYTHONDONTWRITEBYTECODE) every process would compile mmedge's own modules,
    and none of its partner's: it takes longer to start and leaves memory behind. The first process fills the folder.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def _stat(pid: int) -> tuple[int, float]:
    """Return the parent of a process, and its processor time with that of its children that have ended, in s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = _stat(int(entry.name))[0]
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_s(root: int) -> float:
    """Return the processor time of a tree so far: of those that run, and of the children of these that were waited for.

    The kernel counts in ticks of 10 ms a process, so a difference over ten seconds is exact to 1 % of a core or better.
    """
    total = 0.0
    for pid in tree(root):
        try:
            total += _stat(pid)[1]
        except (FileNotFoundError, ProcessLookupError):  # its parent has its time now
            continue
    return total


def pss_mib(root: int) -> float:
    """Return the memory of a tree, what processes share counted once (PSS), in MiB."""
    total = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
