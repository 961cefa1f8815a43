"""How much memory there is: for the bounds of a build."""

from __future__ import annotations

from pathlib import Path


def available_bytes() -> int | None:
    """Return the memory that programs may still take, by the system and by this process's control group.

    Returns:
        Bytes; None where the system does not say.

    Example:
        >>> available_bytes() > 0  # doctest: +SKIP
        True
    """
    found = [size for size in (_of_system(), *_of_groups()) if size is not None]
    return min(found, default=None)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds; 0 when it has ended."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS:") or 0


def _of_system() -> int | None:
    return _field(Path("/proc/meminfo"), "MemAvailable:")


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _of_groups() -> list[int | None]:
    """Return what is left in the control group (version 2) of this process and in each above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if own is None:
        return []
    root = Path("/sys/fs/cgroup")
    folder = root / own.lstrip("/")
    return [_left(group) for group in (folder, *folder.parents) if group.is_relative_to(root)]


def _left(group: Path) -> int | None:
    try:
        most, held = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        stat = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None
    # Files that were read stay in memory until it is needed.
    cached = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return max(int(most) - held + cached, 0)
