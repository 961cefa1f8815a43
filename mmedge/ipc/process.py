"""A child process: started, heard, ended. It never outlives this process, and its death is never silent."""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mmedge import errors
from mmedge.address import scrub
from mmedge.errors import ChildTraceback, MmedgeError
from mmedge.ipc.control import Control, Failed, Log, Message, Start, Stop

_T = TypeVar("_T")
_TAIL = 2000  # bytes of a child's stderr that its error shows
_MAX_SAID = 1 << 20  # bytes of a child's stderr that are kept
_MAX_LOGS = 100  # log records taken at one turn
_NOT_THEIRS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # a service's own process speaks for all of them
_KILL_S = 5.0  # for a killed process to be gone; a driver may hold it in the kernel
_ERRORS = {cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, MmedgeError)}
_logged: deque[str] = deque(maxlen=16)  # tracebacks: a worker that is started again fails as before
_lock = threading.Lock()
_spawners: dict[int, queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]] = {}


def _in_spawner(start: Callable[[], _T]) -> _T:
    """Call ``start`` in the thread that starts all children, and return what it returns.

    The kernel's parent-death signal fires when the *thread* that started the child ends, so it must be one that
    lives as long as the process does: a daemon, which not even the end of the main thread ends. It blocks SIGINT, and
    children inherit that: Ctrl-C ends this process, which then ends them in order.
    """
    with _lock:
        if os.getpid() not in _spawners:  # a forked copy of this process needs a thread of its own
            _spawners[os.getpid()] = queue.SimpleQueue()
            threading.Thread(
                target=_spawn_all, args=(_spawners[os.getpid()],), name="mmedge-spawner", daemon=True
            ).start()
    future: Future[Any] = Future()
    _spawners[os.getpid()].put((start, future))
    result: _T = future.result()
    return result


def _spawn_all(orders: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    while True:
        start, future = orders.get()
        try:
            future.set_result(start())
        except BaseException as error:
            future.set_exception(error)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was deleted
        return Path("/")


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
        # In memory: a device may have no disk to write to. Appended to, so that it can be cut.
        self._said = os.memfd_create("mmedge-said", os.MFD_CLOEXEC)
        fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)
        self.control, theirs = Control.pair()
        try:
            self._process = _in_spawner(
                partial(
                    subprocess.Popen,
                    [sys.executable, "-m", "mmedge.ipc.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={name: value for name, value in os.environ.items() if name not in _NOT_THEIRS},
                    cwd="/",  # python -m looks for modules here first: not among the user's files
                    stdin=None if stdin else subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=self._said,
                )
            )
            here = _here()
            # "" is the working directory, as `python -c` has it: whoever fills that must not choose what is imported.
            path = [os.fsencode(here / p) for p in sys.path if isinstance(p, str) and p]
            self.control.send(Start(entry, payload, os.getpid(), path, os.fsencode(here)), fds)
        except BaseException:
            self.control.close()  # which ends the child, if there is one
            os.close(self._said)
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def state(self) -> str:
        """Say what it does, as the kernel sees it: ``T (stopped)``, ``R (running)``, ``S (sleeping)``..."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return "gone"
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("State:")), "unknown")

    def receive(self, timeout_s: float | None) -> tuple[Message, list[int]] | None:
        """Return its next message but for log records, which are logged here, and errors, which are kept.

        Raises:
            EOFError: If it has ended; ``reason`` says why.
        """
        for _ in range(_MAX_LOGS):  # who logs without end must not keep the caller here
            received = self.control.receive(timeout_s)
            if received is None:
                return None
            message, _ = received
            if os.fstat(self._said).st_size > _MAX_SAID:
                os.ftruncate(self._said, 0)
            if isinstance(message, Log):
                logging.getLogger(message.name).log(message.level, "%s", message.text)
            elif isinstance(message, Failed):
                self._take(message)
            else:
                return received
        return None

    def _take(self, failed: Failed) -> None:
        self.error = error_from(failed.error)
        if not failed.traceback:
            return
        self.error.__cause__ = ChildTraceback(failed.traceback)
        if not failed.logged:
            level = logging.DEBUG if failed.traceback in _logged else logging.ERROR
            _logged.append(failed.traceback)
            self._log.log(level, "%s: %s\n%s", self.name, self.error.message, failed.traceback)

    def reason(self) -> str:
        """Say why it has ended, with the end of what it printed; waits for the end."""
        try:
            code = self._process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            return "its process has closed the line and does not end"
        if self.error is not None:
            return self.error.message
        names = {number.value: number.name for number in signal.Signals}
        how = f"was ended by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"
        said = (
            os.pread(self._said, _TAIL, max(0, os.fstat(self._said).st_size - _TAIL)).decode(errors="replace").strip()
        )
        return f"its process {how}" + (f": {scrub(said)}" if said else "")

    def stop(self, grace_s: float, *, deaf: bool = False) -> None:
        """Ask it to end, kill it if it has not after ``grace_s``; idempotent. What it said can still be received.

        Args:
            grace_s: How long it may take.
            deaf: It may be busy with what cannot hear: killing it is nothing to warn of.
        """
        if self._process.poll() is None:
            self.control.send(Stop())
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                level = logging.DEBUG if deaf else logging.WARNING
                self._log.log(level, "%s did not end within %g s and was killed", self.name, grace_s)
        self.kill()

    def kill(self) -> None:
        """End it at once; idempotent."""
        self._process.kill()
        try:
            self._process.wait(_KILL_S)
        except subprocess.TimeoutExpired:  # in the kernel, in a driver that does not come back
            self._log.warning("%s cannot be killed: its driver holds it in the kernel", self.name)

    def close(self) -> None:
        """Kill it if it still runs and free what belongs to it; idempotent."""
        if self._said >= 0:
            self.kill()
            self.control.close()
            os.close(self._said)
            self._said = -1
