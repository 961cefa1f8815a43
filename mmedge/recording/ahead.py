"""Make the next items of an iterator while the one before is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class _End:
    pass


_END = _End()


class Ahead(Iterator[T]):
    """Yields what a generator yields, in order; a thread of its own has made up to ``count`` items before they are due.

    It begins at once. The generator's errors come when their item would; ``close`` closes it, as its end does.

    Args:
        items: What is made.
        count: How many of them may wait.

    Example:
        >>> with Ahead((n * n for n in range(4)), 2) as squares:
        ...     list(squares)
        [0, 1, 4, 9]
    """

    def __init__(self, items: Generator[T, None, None], count: int) -> None:
        self._items, self._closed = items, False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mmedge-ahead")
        self._waiting: deque[Future[T | _End]] = deque(self._pool.submit(self._make) for _ in range(count))

    def _make(self) -> T | _End:
        return next(self._items, _END)

    def __next__(self) -> T:
        if not self._waiting:
            raise StopIteration
        item = self._waiting.popleft().result()
        if isinstance(item, _End):
            self.close()
            raise StopIteration
        self._waiting.append(self._pool.submit(self._make))
        return item

    def close(self) -> None:
        """Make no more, and close the generator; idempotent."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            self._waiting.pop().cancel()
        self._pool.submit(self._items.close).result()
        self._pool.shutdown()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
