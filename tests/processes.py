"""What tests of processes share: whose children there are, and waiting for what should happen."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mmedge
from mmedge.ipc.control import Message
from mmedge.ipc.process import Child
from mmedge.types import Result


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def asked_by(pid: int) -> list[int]:
    """Return the processes that another has asked the spawner for."""
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [one for one in pids if "mmedge.ipc.worker" in (line := command(one)) and f"--for {pid} " in line + " "]


def spawners(pid: int) -> list[int]:
    """Return the spawners that a process has started."""
    return [child for child in children(pid) if "mmedge.ipc.spawner" in command(child)]


def family(pipe: mmedge.Pipeline) -> tuple[int, list[int]]:
    """Return the runtime's process and its workers."""
    (runtime,) = [pid for pid in asked_by(os.getpid()) if "mmedge.pipeline.worker" in command(pid)]
    return runtime, asked_by(runtime)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").rstrip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if "mmedge.ipc." in command(pid)]


def until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def run_until(
    pipe: mmedge.Pipeline, within_s: float, done: Callable[[list[Result]], bool] = lambda results: False
) -> list[Result]:
    results: list[Result] = []
    for result in pipe.results(time.monotonic() + within_s):
        results.append(result)
        if done(results):
            break
    return results


def reopened(results: list[Result]) -> bool:
    return results[-1].epoch.get("image", 0) > 0


@contextmanager
def child(
    entry: str, payload: bytes = b"", fds: tuple[int, ...] = (), modules: tuple[str, ...] = ()
) -> Iterator[Child]:
    started = Child(f"tests.entries:{entry}", payload, name=entry, fds=fds, modules=modules)
    try:
        yield started
    finally:
        started.close()


def hear(started: Child, kind: type[Message]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        received = started.receive(1.0)
        if received is not None and isinstance(received[0], kind):
            return received
    raise AssertionError(f"{kind.__name__} did not come")


def end(started: Child) -> None:
    with suppress(EOFError):
        while True:
            started.receive(60.0)


def gone(pid: int, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether something listens on a TCP port of this machine; nothing connects, which may be taken for a peer."""
    lines = [line for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)
