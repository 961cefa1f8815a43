"""Ends runs of networks that take too long: one thread for all engines of this process."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

PERIOD_S = 0.2  # between two looks


class Watched(Protocol):
    """What can be looked at."""

    def look(self) -> None:
        """Count a look at the run that is under way, and end it after too many."""


class _Watch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def add(self, engine: Watched) -> None:
        """Look at an engine as long as it lives."""
        with self._lock:
            self._engines.add(engine)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._main, name="mmedge-watch", daemon=True)
                self._thread.start()

    def _main(self) -> None:
        while True:
            time.sleep(PERIOD_S)
            with self._lock:
                engines = list(self._engines)
                if not engines:
                    self._thread = None
                    return
            for engine in engines:
                engine.look()
            del engines


WATCH = _Watch()
