"""Where a runtime puts its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from mmedge.errors import FrameExpiredError, MmedgeError
from mmedge.pipeline.answer import Answer
from mmedge.types import Frame

KEPT = 40  # more than may wait where nothing is lost: for the reader, and for a sink that wants pictures


class Outlet(Protocol):
    """Where results go: a mailbox between threads, or a ring between processes."""

    @property
    def dropped(self) -> int:
        """Results that were not read in time."""

    def put(self, answer: Answer, /) -> bool:
        """Take an answer; False when no more are wanted."""

    def close(self, error: MmedgeError | None = None) -> None:
        """Take no more; whoever reads learns the error after the last result."""


class Pictures:
    """Keeps copies of the pictures of the newest results, whose slots may be used again before these are read.

    Older ones are let go, whoever keeps their results.
    """

    def __init__(self) -> None:
        self._kept: deque[dict[str, Callable[[], Frame]]] = deque()

    def keep(self, answer: Answer) -> None:
        """Copy the pictures of an answer now."""
        answer.kept = {name: copy().copy for name, copy in answer.frames.items()}
        self._kept.append(answer.kept)
        if len(self._kept) > KEPT:
            old = self._kept.popleft()
            old.update({name: partial(_gone, name) for name in old})


def _gone(name: str) -> Frame:
    raise FrameExpiredError("the picture is gone", where=f"input '{name}'", fix="copy it as its result arrives")
