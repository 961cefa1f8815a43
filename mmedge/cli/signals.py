"""Signals that end a command.

Ctrl-C is an interruption, 130. The stop of a service manager is the orderly end of what runs until it is stopped, 0.
What was started with a signal ignored (``nohup``, ``&``) goes on ignoring it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP: end in order, as after Ctrl-C; who runs until it is stopped has then done what it should."""


stops: list[int] = []  # the stops that have come: what catches an interruption may hide which one it was


def _stop(number: int, frame: FrameType | None) -> None:
    stops.append(number)
    raise Stopped


def listen() -> None:
    """Let SIGTERM and SIGHUP end the command in order; Ctrl-C still ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        _set(number, _stop)


def begin() -> None:
    """Let Ctrl-C end the command in order, too: it has been loaded, and now opens things."""
    if signal.getsignal(signal.SIGTERM) is _stop:  # this process is ours, not one that calls ``run``
        _set(signal.SIGINT, signal.default_int_handler)


def finish() -> None:
    """Let nothing change how the command has ended: what follows is the interpreter's own end."""
    if signal.getsignal(signal.SIGTERM) is _stop:
        _set(signal.SIGINT, lambda *_: os._exit(130))
        for number in (signal.SIGTERM, signal.SIGHUP):
            _set(number, signal.SIG_IGN)


def _set(number: signal.Signals, handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, handler)
