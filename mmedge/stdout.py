"""Standard output, which belongs to documents: JSON that another program reads."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from mmedge.errors import ConfigError

_documents: BinaryIO | None = None


def documents() -> BinaryIO:
    """Return where JSON is written to: standard output, or what it was before ``reserve_stdout``.

    Raises:
        ConfigError: If this process has none.
    """
    stream = _documents or getattr(sys.stdout, "buffer", None)
    if stream is None:
        raise ConfigError("there is no standard output", where="standard output", fix="give it one: > FILE")
    return stream


def reserve_stdout() -> Callable[[], None]:
    """Keep standard output for ``documents``; what anybody else prints, native code included, goes to stderr.

    Returns:
        What undoes it. Whoever ends the process leaves it so: there are printers that come last.
    """
    global _documents
    before = sys.stdout
    if _documents is not None or before is None:  # kept already, or nobody ever had one
        return lambda: None
    before.flush()
    kept = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        own: BinaryIO = os.fdopen(fcntl.fcntl(before.fileno(), fcntl.F_DUPFD_CLOEXEC, 3), "wb")
    except OSError:  # it was replaced by something that is no file
        own = before.buffer
    try:
        os.dup2(2, 1)
    except OSError:  # there is no stderr
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _documents, sys.stdout = own, sys.stderr

    def undo() -> None:
        global _documents
        with suppress(OSError):  # its reader may have left
            own.flush()
        if own is not before.buffer:
            with suppress(OSError):
                own.close()
        _documents, sys.stdout = None, before
        os.dup2(kept, 1)
        os.close(kept)

    return undo


def abandon_stdout() -> None:
    """Throw away what is still to be printed: its reader has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), documents().fileno())


def is_reserved() -> bool:
    """Tell whether standard output is kept for documents."""
    return _documents is not None
