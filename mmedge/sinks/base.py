"""What every sink is."""

from __future__ import annotations

from typing import Protocol

from mmedge.types import Result


class Sink(Protocol):
    """Takes results one by one, in order, in the user's thread."""

    def write(self, result: Result) -> None:
        """Take one result."""

    def close(self) -> None:
        """Flush and close; idempotent."""
