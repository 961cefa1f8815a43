"""SIGHUP to a run that a service manager has started: the bundle of the same path is put in, without an end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

from mmedge.errors import MmedgeError
from mmedge.pipeline import Pipeline

log = logging.getLogger("mmedge.swap")


class Reload:
    """Lets SIGHUP swap the bundle while the ``with`` block lasts; a swap that fails is logged, and the run goes on.

    Without ``NOTIFY_SOCKET`` in the environment nothing changes: SIGHUP is then the hangup of a terminal, and ends the
    run in order.

    Args:
        pipe: A pipeline that has started.
        path: The bundle, which another one has replaced by the time of the signal.
    """

    def __init__(self, pipe: Pipeline, path: Path) -> None:
        self._pipe, self._path = pipe, path
        self._asked, self._ended = threading.Semaphore(0), False
        self._thread = threading.Thread(target=self._main, name="mmedge-reload", daemon=True)
        self._before: object = None

    def __enter__(self) -> Reload:
        service = bool(os.environ.get("NOTIFY_SOCKET")) and threading.current_thread() is threading.main_thread()
        if service and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._thread.start()
            self._before = signal.signal(signal.SIGHUP, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.release()

    def _main(self) -> None:
        while self._asked.acquire() and not self._ended:
            while self._asked.acquire(blocking=False):  # several at once ask for the same
                pass
            try:
                self._pipe.swap(self._path)
            except MmedgeError as error:  # the run goes on with what it has
                log.error("the bundle was not reloaded: %s", error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)  # type: ignore[arg-type]
            self._ended = True
            self._asked.release()
