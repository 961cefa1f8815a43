"""Where a runtime puts its results."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from mmedge.errors import MmedgeError
from mmedge.types import Frame, Result


class Outlet(Protocol):
    """Where results go: a mailbox between threads, or a ring between processes."""

    @property
    def dropped(self) -> int:
        """Results that were not read in time."""

    def put(self, result: Result, /) -> bool:
        """Take a result; False when no more are wanted."""

    def close(self, error: MmedgeError | None = None) -> None:
        """Take no more; whoever reads learns the error after the last result."""


def keep_pictures(result: Result) -> None:
    """Copy a result's pictures now: their slots may be used again before it is read."""
    frames = vars(result)["frames"]
    frames.update({name: partial(_kept, copy()) for name, copy in frames.items()})


def _kept(frame: Frame) -> Frame:
    return frame.copy()
