"""Results as JSON Lines: a file that grows and rotates, or the standard output."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import stat
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from mmedge.errors import ConfigError, MmedgeError
from mmedge.plain import json_text
from mmedge.sinks.base import Event, Run
from mmedge.stdout import documents
from mmedge.types import Result

log = logging.getLogger("mmedge.sinks")
_MB = 1_000_000  # bytes


class JsonlSink:
    """One JSON object a line, in the operating system's hands when ``write`` returns.

    A file is appended to. When it is full it becomes ``FILE.1``, what was ``FILE.1`` becomes ``FILE.2``, and so on. A
    line that finds no room is taken back whole, so that every line of the file is one document. Where the run did not
    begin, as its source is wrong, a file that was made for it does not stay.

    Args:
        target: A file, or ``-`` for stdout.
        max_bytes: Of one file; 0 lets it grow.
        keep: How many full files stay.

    Attributes:
        essential: Whether nothing is left to run for when it cannot write: standard output.

    Raises:
        ConfigError: If the file cannot be written, or another sink writes to it.
    """

    def __init__(self, target: str, *, max_bytes: int = 0, keep: int = 5) -> None:
        self.essential, self._target = target == "-", target
        self._max_bytes, self._keep = max_bytes, keep
        self._torn, self._bytes = False, 0
        self._made = not self.essential and not os.path.lexists(target)  # and nothing has happened since
        try:
            if self.essential:
                self._file = _unbuffered(documents())
            else:
                self._open()
        except OSError as error:
            raise ConfigError(
                f"cannot write results: {error.strerror}", where=target, fix="choose another path"
            ) from error

    def _open(self) -> None:
        file = Path(self._target).open("a+b", buffering=0)
        self._file, self._plain = file, stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        if self._plain:  # two that rotate one file, or take back half a line, destroy what the other has written
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                what = "another sink, or another run, writes to this file"
                raise ConfigError(what, where=self._target, fix="choose another path") from error
            except OSError as error:
                log.debug("'%s' cannot be locked: %s", self._target, error.strerror)  # a file system without locks
        self._bytes = os.fstat(file.fileno()).st_size if self._plain else 0
        if self._bytes:  # what was killed may have left half a line
            file.seek(-1, os.SEEK_END)
            self._torn = file.read(1) != b"\n"

    def begin(self, run: Run) -> None:
        """From now on the file stays, though no result may come."""
        self._made = False

    def write(self, result: Result | Event) -> None:
        """Append one line.

        Raises:
            MmedgeError: If it cannot be written; the next one may be.
            BrokenPipeError: If the reader of standard output has left.
        """
        line = result.to_json()
        if not line.isascii():  # of JSON in ASCII nothing can steer a terminal but DEL, which shows nothing
            line = json_text(line.decode()).encode()
        try:
            if self._file.closed:  # the last rotation could not open the next one
                self._open()
            if self._max_bytes and self._bytes and self._bytes + len(line) >= self._max_bytes:
                self._rotate()
            self._append((b"\n" if self._torn else b"") + line + b"\n")
        except BrokenPipeError:
            if self.essential:
                raise  # the reader of our stdout has left: not an error
            raise MmedgeError("the reader of the pipe has left", where=self._target, fix="start it again") from None
        except OSError as error:
            raise MmedgeError(
                f"cannot write results: {error.strerror}", where=self._target, fix="free space or choose another path"
            ) from error

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written: int | None = self._file.write(rest)
                if written is None:  # a pipe that was opened without waiting
                    select.select([], [self._file], [])
                else:
                    rest = rest[written:]
        except OSError:
            if not self.essential and self._plain and len(rest) < len(data):  # a full disk takes half a line
                os.ftruncate(self._file.fileno(), self._bytes)
            raise
        self._bytes += len(data)
        self._torn = False

    def _rotate(self) -> None:
        path = Path(self._target)
        for number in range(self._keep - 1, 0, -1):
            older = Path(f"{path}.{number}")
            if older.exists():
                older.replace(f"{path}.{number + 1}")
        if self._keep:
            path.replace(f"{path}.1")
        else:
            path.unlink()
        self._file.close()
        self._open()

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self.essential:
            return
        if self._made and not self._bytes and not self._file.closed:
            Path(self._target).unlink(missing_ok=True)
        self._file.close()


def _unbuffered(stream: BinaryIO) -> BinaryIO:
    """Return what is beneath a buffer: a thread that waits there for a reader does not hold the process's end."""
    stream.flush()
    raw: BinaryIO = getattr(stream, "raw", stream)
    return raw


def make(
    target: str,
    *,
    max_mb: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0,
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5,
) -> JsonlSink:
    """Return the sink of ``jsonl:PATH``; ``jsonl:-`` is the standard output.

    Args:
        target: The path.
        max_mb: Size at which a file is full; 0 lets it grow.
        keep: How many full files stay beside the one that is written.

    Raises:
        ConfigError: If there is no path, or the file cannot be written.
    """
    if not target:
        raise ConfigError("the sink 'jsonl' needs a file", where="sinks", fix="jsonl:PATH, or jsonl:- for stdout")
    return JsonlSink(target, max_bytes=round(max_mb * _MB), keep=keep)
