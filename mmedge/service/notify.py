"""What systemd is told of a run: that it is ready, how it does, and that it is not stuck (``sd_notify``)."""

from __future__ import annotations

import logging
import os
import socket
import threading
from types import TracebackType

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.pipeline import Pipeline
from mmedge.plain import printable

log = logging.getLogger("mmedge.service")
_ALIVE = ("OK", "LATE")  # states of an input from which results are to be expected
_STATUS_S = 2.0
_SOONEST_S = 0.05
_LONGEST = 2000  # characters of a status


class Notifier:
    """Tells the service manager about a run that has started, while the ``with`` block lasts.

    ``READY=1`` at once, then ``STATUS=`` every two seconds. Where the unit has a ``WatchdogSec``, ``WATCHDOG=1`` is
    sent as long as results are read: a run that is stuck, in a stage, in a driver or in its own loop, is not fed and is
    started again. It is fed, too, while no result can be expected: no camera and no microphone delivers anything
    (they are opened again without that), every trigger is dropped for a reason that is counted, or nothing makes
    triggers but what is typed or pushed. Without ``NOTIFY_SOCKET`` in the environment nothing happens.

    Args:
        pipe: A pipeline that has started.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        inputs, trigger = pipe.bundle.inputs, pipe.bundle.manifest.sync.trigger
        self._pacing = {name for name, spec in inputs.items() if isinstance(spec, (ImageInput, AudioInput))}
        self._timed = trigger not in inputs
        self._paced = self._timed or trigger in self._pacing
        self._address = _address(os.environ.get("NOTIFY_SOCKET", ""))
        watched_s = _watched_s(os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", ""))
        self._watched = watched_s is not None
        # Half of the time is what systemd recommends; a quarter, as a result may come just after a look.
        self._period_s = max(min(_STATUS_S, (watched_s or 60.0) / 4), _SOONEST_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="mmedge-notify", daemon=True)
        self._socket: socket.socket | None = None
        self._failed = False
        self._read = 0
        self._seen = (0, 0, 0)

    def __enter__(self) -> Notifier:
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._send("READY=1", f"STATUS={self._status(self._period_s)}", *self._fed())
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is None:
            return
        self._stop.set()
        self._thread.join()
        self._send("STOPPING=1")
        self._socket.close()
        self._socket = None

    def _tell(self) -> None:
        since_s = 0.0
        while not self._stop.wait(self._period_s):
            since_s += self._period_s
            lines = list(self._fed()) if self._watched and self._lives() else []
            if since_s >= _STATUS_S:
                lines.append(f"STATUS={self._status(since_s)}")
                since_s = 0.0
            if lines:
                self._send(*lines)

    def _fed(self) -> tuple[str, ...]:
        return ("WATCHDOG=1",) if self._watched else ()

    def _lives(self) -> bool:
        """Return whether results were read since the last look, or could not be."""
        statistics = self._pipe.statistics
        now, before = (statistics.received.n, statistics.results, statistics.triggers), self._seen
        self._seen = now
        if now[0] > before[0] or not self._paced:
            return True
        if now[1] == before[1] and now[2] > before[2]:
            return True  # it answers nothing, and counts why
        return not self._timed and not self._delivering()

    def _delivering(self) -> bool:
        health = self._pipe.health()
        return any(health[name].get("state") in _ALIVE for name in self._pacing & health.keys())

    def _status(self, since_s: float) -> str:
        """Return one line for people: results a second, latency, and every input that is not well."""
        statistics = self._pipe.statistics
        read, before = statistics.received.n, self._read
        self._read = read
        parts = [f"{(read - before) / since_s:.1f} results/s"]
        if statistics.end_to_end.n:
            parts.append(f"{statistics.end_to_end.percentile_ms(50):.0f} ms")
        for name, report in self._pipe.health().items():
            if "state" in report and report["state"] != "OK":
                why = f" ({report['reason']})" if report.get("reason") else ""
                parts.append(f"{name} {report['state']}{why}")
        return printable(", ".join(parts)).replace("\n", " ")[:_LONGEST]

    def _send(self, *lines: str) -> None:
        assert self._socket is not None
        assert self._address is not None
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except OSError as error:  # the run matters more than who watches it
            if not self._failed:
                log.warning("the service manager cannot be reached: %s", error.strerror)
            self._failed = True


def _address(text: str) -> str | None:
    """Return the address of the socket; ``@`` begins a name of the abstract namespace. None without one."""
    if not text:
        return None
    if text[0] not in "/@":
        log.warning("NOTIFY_SOCKET is not a socket of this machine: nothing is sent to it")
        return None
    return "\0" + text[1:] if text[0] == "@" else text


def _watched_s(microseconds: str, process: str) -> float | None:
    """Return after how many seconds without a sign of life the run is started again; None if nobody watches."""
    if not microseconds.isdecimal() or not int(microseconds):
        return None
    if process and process != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
