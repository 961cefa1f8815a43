"""What the processes of a run take: CPU time, waits for a core, memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ASK_S = 5.0  # for the driver to answer
_ROLES = (("mmedge.pipeline.worker", "runtime"), ("mmedge.capture.worker", "source"), ("mmedge.ipc.spawner", "spawner"))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took since it began, or between two looks.

    Attributes:
        name: What it is: ``runtime``, ``source``, or what it calls itself.
        cpu_s: Time on a core, all threads.
        waited_s: Time that its threads were ready and had no core.
    """

    name: str
    cpu_s: float
    waited_s: float


def family(root: int | None = None) -> list[int]:
    """Return a process and all that descend from it; this one by default."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [os.getpid() if root is None else root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def usage(pid: int) -> Usage | None:
    """Return what a process has taken since it began; None if it has ended."""
    fields = _stat(pid)
    if fields is None:
        return None
    waited_ns = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            waited_ns += int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError):
        pass  # a thread has ended, or the kernel does not count
    return Usage(_name(pid), (int(fields[11]) + int(fields[12])) * _TICK_S, waited_ns / 1e9)


def took(before: dict[int, Usage], after: dict[int, Usage]) -> dict[int, Usage]:
    """Return what each process took between two looks."""
    zero = Usage("", 0.0, 0.0)
    return {
        pid: Usage(
            now.name,
            now.cpu_s - before.get(pid, zero).cpu_s,
            max(0.0, now.waited_s - before.get(pid, zero).waited_s),
        )
        for pid, now in after.items()
    }


def look() -> dict[int, Usage]:
    """Return what each process of this family has taken."""
    return {pid: found for pid in family() if (found := usage(pid)) is not None}


def pss_mib(pid: int) -> float | None:
    """Return its memory, each shared page divided by its users; None where the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), None)


def gpu_mib() -> dict[int, float]:
    """Return the memory of a GPU that each process holds, by process; empty where the driver does not tell.

    A Jetson's GPU has no memory of its own: what it holds is in the process's own.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    asked = [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[int, float] = {}
    for line in told.splitlines():
        pid, _, mib = (field.strip() for field in line.partition(","))
        if pid.isdigit() and mib.isdigit():  # not "[N/A]"
            found[int(pid)] = found.get(int(pid), 0.0) + float(mib)  # one line a GPU
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the name, the state first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _name(pid: int) -> str:
    if pid == os.getpid():
        return "user"
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        comm = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
    return next((role for module, role in _ROLES if module in arguments), comm)
