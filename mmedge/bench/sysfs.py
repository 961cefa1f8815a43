"""What the kernel's files say of a machine; a file that is not there says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def text(path: Path) -> str | None:
    """Return a file's text without blanks around it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Return the number that a file begins with; None if it cannot be read or holds none."""
    found = text(path)
    try:
        return None if not found else int(found.split()[0])
    except ValueError:
        return None


def each(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the files and folders of a pattern, in order of their names."""
    try:
        yield from sorted(root.glob(pattern))
    except OSError:
        return
