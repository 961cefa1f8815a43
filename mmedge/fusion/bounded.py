"""Work on what a stranger has made, in a child with bounds of time, memory and files: its end ends nothing else."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmedge.errors import MmedgeError, shortage
from mmedge.ipc.control import Done, State
from mmedge.ipc.process import Child

_WALL = 10.0  # so many times as long may it take by the clock: other programs may be running, or the disk is slow
_WALL_S = 60.0
_TEXT = 2000  # characters of an error
_FILE_BYTES = 1 << 20  # that it may write into any file; what it prints is one


def run_bounded(
    entry: str,
    payload: bytes,
    *,
    name: str,
    cpu_s: float,
    memory_mb: float,
    take: Callable[[bytes], None],
    over: Callable[[str], MmedgeError],
    fds: Sequence[int] = (),
    modules: Sequence[str] = (),
) -> None:
    """Run ``entry`` in a child, which calls ``bound_self`` first thing after its imports.

    Args:
        entry: ``"pkg.mod:function"``, called with the child's ``Link``.
        payload: Bytes for it.
        name: What it does, for messages.
        cpu_s: Seconds of processor time that it may take.
        memory_mb: Megabytes that it may take beyond its imports.
        take: Called with each report of the child.
        over: Makes the error of work that breaks the bounds, of what it did not do.
        fds: Descriptors for it; the caller keeps its own.
        modules: What it imports, as ``Child`` takes it.

    Raises:
        MmedgeError: As the child raises it, as ``over`` makes it, or if no process can be started.
    """
    try:
        child = Child(entry, payload, name=name, fds=fds, modules=modules)
    except OSError as error:
        what, fix = shortage(error) or (str(error.strerror), "raise the limits (ulimit -a)")
        problem = f"the process of {name} cannot be started: {what}"
        raise MmedgeError(problem, where="limits of this process", fix=fix) from error
    try:
        end_s = time.monotonic() + _WALL_S + _WALL * cpu_s
        while (left_s := end_s - time.monotonic()) > 0:
            received = child.receive(left_s)
            if received is None:
                continue
            message, _ = received
            if isinstance(message, Done):
                return
            if isinstance(message, State):
                take(message.body)
        raise over(f"did not finish {name} within {_WALL_S + _WALL * cpu_s:.0f} s")
    except EOFError:
        reason = child.reason()
        if child.error is not None:
            raise child.error from None
        if "SIGXCPU" in reason:
            what = f"did not finish {name} within {cpu_s:.0f} s of processor time"
        else:  # out of memory is what ends a process, whichever library sees it first
            what = f"did not survive {name} within {memory_mb:.0f} MB of memory: {reason[:_TEXT]}"
        raise over(what) from None
    finally:
        child.close()


def bound_self(cpu_s: float, memory_mb: float, file_bytes: int = _FILE_BYTES) -> None:
    """Set the limits of this process, for good: no more processor time, memory and size of a file than these."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + cpu_s)
    data = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData:")
    )
    # Private memory, which is what is taken: libraries and threads reserve addresses without end.
    limits = {
        resource.RLIMIT_DATA: data + round(memory_mb * 1e6),
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        free = hard == resource.RLIM_INFINITY
        value = limit if free else min(limit, hard)
        # Of time: first SIGXCPU, which says what it was, then SIGKILL.
        resource.setrlimit(kind, (value, value + 1 if kind == resource.RLIMIT_CPU and free else value))
