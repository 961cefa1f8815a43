"""Where a runtime puts its results."""

from __future__ import annotations

from typing import Protocol

from mmedge.errors import MmedgeError
from mmedge.types import Result


class Outlet(Protocol):
    """Where results go: a mailbox between threads, or a ring between processes."""

    @property
    def dropped(self) -> int:
        """Results that were not read in time."""

    def put(self, result: Result, /) -> bool:
        """Take a result; False when no more are wanted."""

    def close(self, error: MmedgeError | None = None) -> None:
        """Take no more; whoever reads learns the error after the last result."""
