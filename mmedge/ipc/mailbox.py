"""A bounded mailbox between two threads: the writer never waits unless asked to, losses are counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """First in, first out, of bounded size.

    Args:
        size: How many items it holds.
        lossless: A full mailbox makes ``put`` wait instead of dropping the oldest item.
        on_drop: Called with each dropped item, to release what it holds.
        droppable: Tells which items may be dropped; while there are none the mailbox holds more than ``size``.

    Attributes:
        dropped: Items that were lost because they were not taken in time.
    """

    def __init__(
        self,
        size: int,
        *,
        lossless: bool = False,
        on_drop: Callable[[T], None] | None = None,
        droppable: Callable[[T], bool] = lambda item: True,
    ) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._lossless = lossless
        self._on_drop = on_drop
        self._droppable = droppable
        self._change = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Add an item; return False when the mailbox is closed and the item was not taken."""
        with self._change:
            while self._lossless and len(self._items) >= self._size and not self._closed:
                self._change.wait()
            if self._closed:
                return False
            old = self._oldest_droppable() if len(self._items) >= self._size else None
            self._items.append(item)
            self.dropped += old is not None
            self._change.notify_all()
        if old is not None and self._on_drop is not None:
            self._on_drop(old)
        return True

    def _oldest_droppable(self) -> T | None:
        for index, item in enumerate(self._items):
            if self._droppable(item):
                del self._items[index]
                return item
        return None

    def take_all(self, timeout_s: float | None) -> list[T]:
        """Return everything that is there, waiting up to ``timeout_s`` for the first item."""
        with self._change:
            if not self._items and not self._closed:
                self._change.wait(timeout_s)
            items = list(self._items)
            self._items.clear()
            self._change.notify_all()
            return items

    def get(self, deadline_s: float | None = None) -> T | None:
        """Return the next item, waiting for it; None when the mailbox is closed and empty.

        Args:
            deadline_s: Until when to wait, on ``time.monotonic``.

        Raises:
            TimeoutError: If no data arrived time.
            BaseException: The error the writer closed the mailbox with, once it is empty.
        """
        with self._change:
            while not self._items and not self._closed:
                left = None if deadline_s is None else deadline_s - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._change.wait(left)
            if self._items:
                item = self._items.popleft()
                self._change.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self, error: BaseException | None = None) -> None:
        """Take no more items; readers get what is there, then None or ``error``. Idempotent."""
        with self._change:
            if not self._closed:
                self._closed = True
                self._error = error
            self._change.notify_all()
