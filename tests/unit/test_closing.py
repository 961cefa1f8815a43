"""A run closes everything that it has opened, though closing some of it fails."""

from __future__ import annotations

from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import pytest

from mmedge.pipeline.accounts import Accounts
from mmedge.pipeline.runtime import Runtime
from mmedge.pipeline.serving import Serving
from mmedge.pipeline.statistics import Statistics


def test_what_fails_to_close_leaves_nothing_open() -> None:
    closed: list[str] = []

    def closing(name: str, fails: bool = False) -> Any:
        def close(error: Exception | None = None) -> None:
            closed.append(name)
            if fails:
                raise RuntimeError(name)

        return SimpleNamespace(close=close, stop=close)

    run: Any = Runtime.__new__(Runtime)
    run.inbox = SimpleNamespace(close=lambda: None)
    run._intake = SimpleNamespace(take=list, close=lambda: None)
    run._sources = [closing("one", fails=True), closing("two")]
    serving: Any = Serving.__new__(Serving)
    serving._lock, serving._stop, serving._candidate, serving._thread = Lock(), Event(), None, None
    serving._upgrades, serving.graph = closing("upgrades"), closing("graph")
    run._programs, run._recorder, run._serving = closing("programs", fails=True), None, serving
    run._results = SimpleNamespace(dropped=0)
    run._sync = sync = SimpleNamespace(pending=0, close=closing("sync", fails=True).close)
    run._accounts = Accounts(Statistics(), sync, [], attached={}, pushed=(), trigger="image", started_ns=0)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="programs"):
        run._close()
    assert closed == ["programs", "one", "two", "sync", "upgrades", "graph"]
