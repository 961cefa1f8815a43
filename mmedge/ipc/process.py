"""A child process: started, heard, ended. It never outlives this process, and its death is never silent."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import Any

from mmedge import errors
from mmedge.errors import ChildTraceback, MmedgeError
from mmedge.ipc import spawned
from mmedge.ipc.control import Control, Failed, Log, Message, Start, Stop

_MAX_SAID = 1 << 20  # bytes of a child's stderr that are kept
_MAX_LOGS = 100  # log records taken at one turn
_KILL_S = 5.0  # for a killed process to be gone; a driver may hold it in the kernel
_ERRORS = {cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, MmedgeError)}
_logged: deque[str] = deque(maxlen=16)  # tracebacks: a worker that is started again fails as before


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
        modules: What it imports; children that name the same share their memory, and start without delay.

    Attributes:
        control: The line to it.
        error: What it said before it ended, None if it has said nothing.
    """

    def __init__(
        self,
        entry: str,
        payload: bytes,
        *,
        name: str,
        fds: Sequence[int] = (),
        stdin: bool = False,
        modules: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.error: MmedgeError | None = None
        self._log = logging.getLogger("mmedge.ipc")
        # In memory: a device may have no disk to write to. Appended to, so that it can be cut.
        self._said = os.memfd_create("mmedge-said", os.MFD_CLOEXEC)
        fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)
        self.control, theirs = Control.pair()
        try:
            self._process = spawned.spawn(entry, theirs.fileno(), self._said, stdin=stdin, modules=modules)
            self.control.send(Start(entry, payload, spawned.search_path(), os.fsencode(spawned.here())), fds)
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
        return spawned.state_of(self.pid)

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
        except TimeoutError:
            return "its process has closed the line and does not end"
        if self.error is not None:
            return self.error.message
        names = {number.value: number.name for number in signal.Signals}
        if code == spawned.UNKNOWN:
            how = "has ended, and so has the process that could say how"
        elif code < 0:
            how = f"was ended by {names.get(-code, f'signal {-code}')}"
        else:
            how = f"ended with exit code {code}"
        said = spawned.tail(self._said)
        return f"its process {how}" + (f": {said}" if said else "")

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
            except TimeoutError:
                level = logging.DEBUG if deaf else logging.WARNING
                self._log.log(level, "%s did not end within %g s and was killed", self.name, grace_s)
        self.kill()

    def kill(self) -> None:
        """End it at once; idempotent."""
        self._process.kill()
        try:
            self._process.wait(_KILL_S)
        except TimeoutError:  # in the kernel, in a driver that does not come back
            self._log.warning("%s cannot be killed: its driver holds it in the kernel", self.name)

    def close(self) -> None:
        """Kill it if it still runs and free what belongs to it; idempotent."""
        if self._said >= 0:
            self.kill()
            self._process.close()
            self.control.close()
            os.close(self._said)
            self._said = -1
