"""A run closes everything that it has opened, though closing some of it fails."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from mmedge.pipeline.runtime import Runtime


def test_what_fails_to_close_leaves_nothing_open() -> None:
    closed: list[str] = []

    def closing(name: str, fails: bool = False) -> Any:
        def close() -> None:
            closed.append(name)
            if fails:
                raise RuntimeError(name)

        return SimpleNamespace(close=close, stop=close)

    run: Any = Runtime.__new__(Runtime)
    run.inbox = SimpleNamespace(close=lambda: None)
    run._intake = SimpleNamespace(take=list, close=lambda: None)
    run._sources = [closing("one", fails=True), closing("two")]
    run._recorder, run._upgrades, run._graph = None, closing("upgrades"), closing("graph")
    run._overruns = Counter()
    run._sync = SimpleNamespace(pending=0, close=closing("sync", fails=True).close)
    with pytest.raises(RuntimeError, match="one"):
        run._close()
    assert closed == ["one", "two", "sync", "upgrades", "graph"]
