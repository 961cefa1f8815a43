"""What is wrong with a data set, told all at once."""

from __future__ import annotations

from pathlib import Path

from mmedge.errors import ConfigError

TOLD = 20  # lines of one message


class UnusableFileError(Exception):
    """Says of a file why it cannot be a sample."""


class Problems:
    """Collects what is wrong, by the line of a file.

    Args:
        file: Whose lines they are.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: dict[int, str] = {}

    def add(self, line: int, message: str) -> None:
        """Note what is wrong with a line; the first thing counts."""
        self._found.setdefault(line, message)

    def __contains__(self, line: int) -> bool:
        return line in self._found

    def raise_any(self) -> None:
        """Raise if anything was noted.

        Raises:
            ConfigError: Names every line, at most ``TOLD`` of them, and says how many there are.
        """
        if not self._found:
            return
        lines = sorted(self._found)
        message = self._found[lines[0]]
        if len(lines) > 1:
            told = [f"line {line}: {self._found[line]}" for line in lines[:TOLD]]
            more = [f"and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
            message = "\n  ".join([f"{len(lines)} lines cannot be used:", *told, *more])
        fix = "correct this line" if len(lines) == 1 else "correct these lines, or leave them out"
        raise ConfigError(message, where=f"{self.file}:{lines[0]}", fix=fix)
