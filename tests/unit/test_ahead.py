"""Items that are made while the one before is used."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.recording.ahead import Ahead


class Made:
    """Counts what a generator has made, and whether it was closed."""

    def __init__(self, end: int, error: Exception | None = None) -> None:
        self.end, self.error = end, error
        self.count, self.closed = 0, False
        self.threads: set[int] = set()

    def __call__(self) -> Generator[int, None, None]:
        try:
            for number in range(self.end):
                self.threads.add(threading.get_ident())
                self.count = number + 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 12), st.integers(1, 4), st.integers(0, 13), st.booleans())
def test_items_come_in_order_and_no_further_than_asked(end: int, count: int, wanted: int, fails: bool) -> None:
    made = Made(end, ValueError("damaged") if fails else None)
    items, got, failed = Ahead(made(), count), [], False
    try:
        for number, item in enumerate(items):
            got.append(item)
            assert made.count <= number + 1 + count
            if len(got) == wanted:
                break
    except ValueError:
        failed = True
    items.close()
    assert got == list(range(end if wanted == 0 else min(end, wanted)))
    assert failed == (fails and not 0 < wanted <= end)
    assert made.closed or not made.threads
    assert len(made.threads) <= 1
    assert threading.get_ident() not in made.threads


def test_an_error_comes_when_its_item_would() -> None:
    with Ahead(Made(2, ValueError("damaged"))(), 4) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(ValueError, match="damaged"):
            next(items)
