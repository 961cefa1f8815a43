"""A child process: started, heard, ended. It never outlives this process, and its death is never silent."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmedge import errors
from mmedge.errors import MmedgeError
from mmedge.ipc.control import Control, Failed, Log, Message, Start, Stop

_TAIL = 2000
_ERRORS = {cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, MmedgeError)}
_spawners: dict[int, ThreadPoolExecutor] = {}


def _spawner() -> ThreadPoolExecutor:
    # The kernel's parent-death signal fires when the *thread* that started the child ends, so one thread that
    # lives as long as the process starts them all. It blocks SIGINT, and children inherit that: Ctrl-C ends
    # this process, which then ends them in order. A forked copy of this process needs a thread of its own.
    if os.getpid() not in _spawners:
        _spawners[os.getpid()] = ThreadPoolExecutor(
            1, "mmedge-spawner", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        )
    return _spawners[os.getpid()]


def error_from(document: dict[str, Any]) -> MmedgeError:
    """Return the error that a child sent as ``MmedgeError.to_dict`` gave it."""
    cls = _ERRORS.get(str(document.get("error")), MmedgeError)
    return cls(str(document["message"]), where=document.get("where"), fix=document.get("fix"))


class Child:
    """A process that runs ``entry`` of this package, or of the user's.

    Args:
        entry: ``"pkg.mod:function"``, called with the child's ``Link``.
        payload: Bytes for it.
        name: What it is, for messages.
        fds: Descriptors for it; the caller keeps its own.
        stdin: Whether it reads this process's standard input.

    Attributes:
        control: The line to it.
        error: What it said before it ended, None if it has said nothing.
    """

    def __init__(self, entry: str, payload: bytes, *, name: str, fds: Sequence[int] = (), stdin: bool = False) -> None:
        self.name = name
        self.error: MmedgeError | None = None
        self._log = logging.getLogger("mmedge.ipc")
        self._said = tempfile.TemporaryFile()
        self.control, theirs = Control.pair()
        try:
            self._process = (
                _spawner()
                .submit(
                    subprocess.Popen,
                    [sys.executable, "-m", "mmedge.ipc.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=None if stdin else subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=self._said,
                )
                .result()
            )
        except BaseException:
            self.control.close()
            self._said.close()
            raise
        finally:
            theirs.close()
        self.control.send(Start(entry, payload, os.getpid(), [p or str(Path.cwd()) for p in sys.path]), fds)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def receive(self, timeout_s: float | None) -> tuple[Message, list[int]] | None:
        """Return its next message but for log records, which are logged here, and errors, which are kept.

        Raises:
            EOFError: If it has ended; ``reason`` says why.
        """
        while (received := self.control.receive(timeout_s)) is not None:
            message, _ = received
            if isinstance(message, Log):
                logging.getLogger(message.name).log(message.level, "%s", message.text)
            elif isinstance(message, Failed):
                self.error = error_from(message.error)
            else:
                return received
        return None

    def reason(self) -> str:
        """Say why it has ended, with the end of what it printed; waits for the end."""
        code = self._process.wait()
        if self.error is not None:
            return self.error.message
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._said.seek(max(0, os.fstat(self._said.fileno()).st_size - _TAIL))
        said = self._said.read().decode(errors="replace").strip()
        return f"its process {how}" + (f": {said}" if said else "")

    def stop(self, grace_s: float) -> None:
        """Ask it to end, kill it if it has not after ``grace_s``; idempotent."""
        if self._process.poll() is None:
            self.control.send(Stop())
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._log.warning("%s did not end within %g s and was killed", self.name, grace_s)
        self.kill()

    def kill(self) -> None:
        """End it at once; idempotent."""
        self._process.kill()
        self._process.wait()
        self.control.close()

    def close(self) -> None:
        """Kill it if it still runs and free what belongs to it; idempotent."""
        self.kill()
        self._said.close()
