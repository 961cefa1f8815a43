"""Make the next items of an iterator while the one before is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    pass


_END = _End()


def ahead(items: Generator[T, None, None], count: int) -> Iterator[T]:
    """Yield what a generator yields, in order; a thread of its own has made up to ``count`` items before they are due.

    Its errors come when their item would. It is closed when the iteration ends, in whatever way.

    Example:
        >>> list(ahead((n * n for n in range(4)), 2))
        [0, 1, 4, 9]
    """

    def make() -> T | _End:
        return next(items, _END)

    with ThreadPoolExecutor(1, thread_name_prefix="mmedge-ahead") as pool:
        waiting: deque[Future[T | _End]] = deque(pool.submit(make) for _ in range(count))
        try:
            while not isinstance(item := waiting.popleft().result(), _End):
                waiting.append(pool.submit(make))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close).result()
