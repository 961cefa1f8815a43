"""The process that starts all others: ``python -m mmedge.ipc.spawner LINE PARENT``, one for each process of a user.

It imports what its children need, once, and forks them: they share its memory and start within milliseconds. It has
one thread and touches no device, and nobody else forks: a process that has threads, or a GPU's context, cannot. Its
children end with the process that asked for them, not with this one, which may be started again beside them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from mmedge.ipc import worker
from mmedge.ipc.control import Control, Ended, Fork, Forked, Load
from mmedge.ipc.unmapping import unmap_clean
from mmedge.lazy import collector_paused

_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_IDLE_MS = 2000


class Spawner:
    """Forks the children that it is asked for, and says how each has ended.

    Args:
        line: On which it is asked, by the process that started it and by all that it has started.
    """

    def __init__(self, line: Control) -> None:
        self._line = line
        self._running: dict[int, tuple[int, Control]] = {}  # pidfd -> process id, and who is told of its end
        self._loaded: set[str] = set()
        self._threads = 0
        self._unmap = False  # what was read to import, once nobody asks for anything

    def serve(self) -> None:
        """Do so until nobody is left who could ask, and every child has ended."""
        heard = True
        while heard or self._running:
            poll = select.poll()
            for fd in (*self._running, *([self._line.fileno()] if heard else [])):
                poll.register(fd, select.POLLIN)
            ready = poll.poll(_IDLE_MS if self._unmap else None)
            if not ready:
                self._unmap = False
                unmap_clean()
            for fd, _ in ready:
                if fd in self._running:
                    self._bury(fd)
                else:
                    heard = self._hear()

    def _hear(self) -> bool:
        try:
            received = self._line.receive()
        except EOFError:
            return False
        except OSError:  # no descriptor is free: who asked sees that its own were closed
            return True
        assert received is not None
        message, fds = received
        try:
            if isinstance(message, Load):
                self._load(message)
            elif isinstance(message, Fork):
                self._load(message.load)
                if _waits(fds[1]):
                    self._fork(message.name, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _load(self, load: Load) -> None:
        if self._loaded.issuperset(load.modules):
            return
        sys.path[:] = map(os.fsdecode, load.path)
        with collector_paused():
            for module in load.modules:
                if module not in self._loaded:
                    with suppress(Exception):  # the child says what is wrong, when it needs it
                        import_module(module)
        self._loaded.update(load.modules)
        self._unmap = True
        # The threads of OpenBLAS end before a fork, and begin again when they are needed. Who else has some stays.
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        self._threads = len(list(Path("/proc/self/task").iterdir())) - 1
        gc.collect()

    def _fork(self, name: str, fds: list[int]) -> None:
        try:
            status = Control(socket.socket(fileno=os.dup(fds[1])))
        except OSError:  # no descriptor is free: who asked finds its own end closed
            return
        gc.freeze()  # the collector would write to every object, and each process would have its own copy
        try:
            pid = os.fork()
        except OSError as error:
            status.send(Forked(errno=error.errno or 0), wait=False)
            status.close()
            return
        if pid == 0:
            self._become(name, fds, status)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor is free
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status.send(Forked(errno=error.errno or 0), wait=False)
            status.close()
        else:
            self._running[pidfd] = pid, status
            status.send(Forked(pid, threads=self._threads), [pidfd], wait=False)

    def _become(self, name: str, fds: list[int], status: Control) -> None:
        """Be the child, for good."""
        try:
            for pidfd, (_, other) in self._running.items():
                os.close(pidfd)
                other.close()
            status.close()
            self._line.close()
            control, spent, said, line, parent, *stdin = fds
            os.close(spent)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.close(said)
            for fd in stdin:
                os.dup2(fd, 0)
                os.close(fd)
            if self._threads:
                for fd in (control, line, parent):
                    os.set_inheritable(fd, True)
                numbers = (str(fd) for fd in (control, line, parent))
                os.execv(sys.executable, [sys.executable, "-m", "mmedge.ipc.worker", *numbers, *name.split()])
            _call(name)
            if (random := sys.modules.get("numpy.random")) is not None:  # Python seeds its own after a fork
                random.seed()
            worker.serve(control, line, parent)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _bury(self, pidfd: int) -> None:
        pid, status = self._running.pop(pidfd)
        _, ended = os.waitpid(pid, 0)
        status.send(Ended(os.waitstatus_to_exitcode(ended)), wait=False)
        status.close()
        os.close(pidfd)


def _waits(status: int) -> bool:
    """Tell whether who asked still waits: it closes its end when it has given up and asked another spawner."""
    poll = select.poll()
    poll.register(status, 0)
    return not poll.poll(0)


def _call(name: str) -> None:
    """Let this process be listed as what it is: ``ps`` shows its arguments, ``top`` its short name."""
    short = "-".join(name.partition(":")[0].split(".")[:2])  # mmedge-capture
    ctypes.CDLL(None).prctl(_PR_SET_NAME, short.encode(), 0, 0, 0)
    line = "\0".join((sys.executable, "-m", "mmedge.ipc.worker", *name.split())).encode() + b"\0"
    # The memory of the arguments; of an emulated process those of its emulator are listed.
    first, last = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    if Path("/proc/self/cmdline").read_bytes() == ctypes.string_at(first, last - first) and len(line) <= last - first:
        ctypes.memmove(first, line.ljust(last - first, b"\0"), last - first)


def main() -> None:
    """Serve the other end of the line in ``sys.argv[1]``; the parent's death is this process's own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):  # it died before the line above
        os._exit(0)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    worker.leave_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # one that is ignored is inherited: nobody could be waited for
    Spawner(Control(end)).serve()


if __name__ == "__main__":
    main()
