"""Asking the spawner for processes: one spawner for a process and all that come of it, started when it is needed."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import msgspec

from mmedge.address import scrub
from mmedge.errors import MmedgeError
from mmedge.ipc.control import Control, Ended, Fork, Forked, Load

UNKNOWN = 1 << 10  # the exit code of a child that has outlived its spawner
_NOT_THEIRS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # a service's own process speaks for all of them
_PATIENCE_S = 30.0  # for a spawner to import what it is asked to, on a slow disk, and to fork
_LOOK_S = 1.0
_ROOM = " " * 200  # an argument of the spawner, where its children write what they are
_TAIL = 2000  # bytes of what a process has printed that its error shows
_KEPT = (
    *("Umask:", "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"),
    *("NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Cpus_allowed:", "Mems_allowed:"),
)
_lock = threading.Lock()
log = logging.getLogger("mmedge.ipc")


class _Spawner(msgspec.Struct, frozen=True):
    """A spawner of this process, or the one it was forked from.

    Attributes:
        owner: The process that asks.
        settings: What the children inherit from it.
        line: The line to it.
        pid: Its process id.
        process: It, where this process has started it.
        said: What it has printed; -1 where that is not known.
    """

    owner: int
    settings: tuple[object, ...]
    line: Control
    pid: int
    said: int
    process: subprocess.Popen[bytes] | None = None

    def works(self) -> bool:
        """Tell whether it may answer yet: it is there, and not stopped; what traces it lets it go in a moment."""
        state = state_of(self.pid)
        return state[:1] not in ("T", "Z", "X", "g")


_spawner: _Spawner | None = None


class Spawned:
    """A child of the spawner.

    Attributes:
        pid: Process id.
    """

    def __init__(self, pid: int, pidfd: int, status: Control) -> None:
        self.pid = pid
        self._pidfd, self._status = pidfd, status
        self._code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return how it has ended: its exit code, below 0 a signal, or ``UNKNOWN``; None while it runs."""
        with suppress(TimeoutError):
            return self.wait(0)
        return None

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return its exit code, as ``poll`` does.

        Raises:
            TimeoutError: If it has not ended in time.
        """
        with self._lock:
            if self._code is not None:
                return self._code
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(1000 * timeout_s):
                raise TimeoutError
            self._code = UNKNOWN
            with suppress(EOFError):
                received = self._status.receive(5 * _LOOK_S)  # the spawner may be importing
                if received is not None and isinstance(received[0], Ended):
                    self._code = received[0].code
            self._status.close()
            return self._code

    def kill(self) -> None:
        """Kill it; idempotent."""
        with self._lock:
            if self._code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Free what belongs to it, once it has been waited for or given up; idempotent."""
        with self._lock:
            if self._pidfd >= 0:
                self._code = UNKNOWN if self._code is None else self._code
                self._status.close()
                os.close(self._pidfd)
                self._pidfd = -1


def adopt(line: int) -> None:
    """Ask the spawner of this process by this descriptor from now on; a new child calls it."""
    global _spawner
    _spawner = _Spawner(os.getpid(), _settings(), Control(socket.socket(fileno=line)), os.getppid(), -1)


def load_ahead(modules: Sequence[str]) -> None:
    """Have the spawner import what the next children need, while this process does something else."""
    with _lock:
        _current().line.send(Load(tuple(modules), search_path()))


def spawn(name: str, control: int, said: int, *, stdin: bool, modules: Sequence[str] = ()) -> Spawned:
    """Start a child; a spawner that is stopped or has died is replaced, and a warning says so.

    Args:
        name: What it is, for lists of processes.
        control: Descriptor of the child's end of its control line.
        said: Where its output goes.
        stdin: Whether it reads this process's standard input.
        modules: What it needs; children that name the same share the memory of these.

    Raises:
        OSError: If no process can be started.
        MmedgeError: If the spawner dies as soon as it is started.
    """
    order = Fork(f"{name} --for {os.getpid()}", Load(tuple(modules), search_path()))
    for _ in range(2):
        ours, theirs = Control.pair()
        try:
            parent = os.pidfd_open(os.getpid())
            try:
                mine = [0] if stdin and _is_open(0) else []
                with _lock:
                    spawner = _current()
                    spawner.line.send(order, [control, theirs.fileno(), said, spawner.line.fileno(), parent, *mine])
            finally:
                os.close(parent)
                theirs.close()
            forked = _answer(ours, spawner)
        except BaseException:
            ours.close()
            raise
        if forked is not None:
            return forked
        ours.close()
        ended = _dismiss(spawner)
    raise MmedgeError(
        f"no process can be started: the one that starts them ends at once{ended}",
        where="mmedge.ipc.spawner",
        fix="raise the limits (ulimit -a), or report it",
    )


def _answer(ours: Control, spawner: _Spawner) -> Spawned | None:
    """Wait for what comes of an order; None if the spawner is none any more."""
    end_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end_s:
        try:
            received = ours.receive(_LOOK_S)
        except EOFError:
            return None
        if received is None:
            if not spawner.works():
                return None
            continue
        message, fds = received
        assert isinstance(message, Forked)
        if message.errno:
            raise OSError(message.errno, os.strerror(message.errno))
        if message.threads:
            log.warning("an import has started %d threads: processes start slowly and share nothing", message.threads)
        return Spawned(message.pid, fds[0], ours)
    return None


def _current() -> _Spawner:
    """Return the spawner whose children are as this process would start them itself; the caller holds the lock."""
    global _spawner
    settings = _settings()
    if _spawner is None or _spawner.owner != os.getpid() or _spawner.settings != settings:
        # One that has other settings ends with its last child. A forked copy of this process has none yet.
        if _spawner is not None:
            _close(_spawner)
            _spawner = None
        _spawner = _start(settings)
    return _spawner


def _start(settings: tuple[object, ...]) -> _Spawner:
    line, theirs = Control.pair()
    said = os.memfd_create("mmedge-said", os.MFD_CLOEXEC)  # in memory: a device may have no disk to write to
    command = [sys.executable, "-m", "mmedge.ipc.spawner", str(theirs.fileno()), str(os.getpid()), _ROOM]
    started: Future[subprocess.Popen[bytes]] = Future()

    def start() -> None:
        """Start it and wait for its end, in a thread of its own.

        The kernel's parent-death signal fires when the *thread* that started a child ends, so this one lives as long:
        a daemon, which not even the end of the main thread ends. It blocks SIGINT, and children inherit that: Ctrl-C
        ends the user's process, which then ends them in order.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={name: value for name, value in os.environ.items() if name not in _NOT_THEIRS},
                cwd="/",  # python -m looks for modules here first: not among the user's files
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    try:
        threading.Thread(target=start, name="mmedge-spawner", daemon=True).start()
        process = started.result()
        return _Spawner(os.getpid(), settings, line, process.pid, said, process)
    except BaseException:
        line.close()
        os.close(said)
        raise
    finally:
        theirs.close()


def _dismiss(spawner: _Spawner) -> str:
    """Forget a spawner that does not answer, and return its last words."""
    global _spawner
    with _lock:
        if _spawner is not spawner:  # another thread has done so, and closed what it had said
            return ""
        log.warning("the process that starts others (%d) is %s: another is started", spawner.pid, state_of(spawner.pid))
        if spawner.process is not None:
            with suppress(subprocess.TimeoutExpired):  # one that has failed is still writing why
                spawner.process.wait(0.5)
            spawner.process.kill()  # not by its number, which may be another's by now; its children need it no longer
        words = tail(spawner.said) if spawner.said >= 0 else ""
        _close(spawner)
        _spawner = None
        return f": {words}" if words else ""


def _close(spawner: _Spawner) -> None:
    spawner.line.close()
    if spawner.said >= 0:
        os.close(spawner.said)


def _settings() -> tuple[object, ...]:
    """Return what a child inherits from its parent and a parent may change: it comes from the spawner."""
    status = Path("/proc/self/status").read_text().splitlines()
    kept = tuple(line for line in status if line.startswith(_KEPT))
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_THEIRS}
    pid = os.getpid()
    rank = os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority
    return environment, kept, Path("/proc/self/limits").read_text(), rank, Path("/proc/self/oom_score_adj").read_text()


def state_of(pid: int) -> str:
    """Say what a process does, as the kernel sees it: ``T (stopped)``, ``R (running)``, ``gone``..."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "gone"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("State:")), "unknown")


def tail(said: int) -> str:
    """Return the end of what a process has printed."""
    text = os.pread(said, _TAIL, max(0, os.fstat(said).st_size - _TAIL)).decode(errors="replace").strip()
    return scrub(text)


def here() -> Path:
    """Return the working directory; the root if it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def search_path() -> list[bytes]:
    """Return where children are to look for modules.

    "" is the working directory, as `python -c` has it: whoever fills that must not choose what is imported.
    """
    folder = here()
    return [os.fsencode(folder / p) for p in sys.path if isinstance(p, str) and p]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
