"""Text, one value a line, from the standard input or a file."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path

from mmedge.capture.base import Emit, ThreadSource
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, SourceError
from mmedge.types import Text

MAX_LINE = 64 * 1024


class TextSource(ThreadSource):
    """Reads lines of strict UTF-8, at most 64 KiB each; a line is valid from its arrival.

    Args:
        stream: Name of the input.
        target: ``stdin`` or the path of a file (or named pipe).

    Raises:
        ConfigError: If there is no such file.
    """

    def __init__(self, stream: str, target: str) -> None:
        super().__init__((stream,), name=f"text://{target}", live=target == "stdin")
        self._target = target
        if target != "stdin" and (not Path(target).exists() or Path(target).is_dir()):
            raise ConfigError(f"there is no text file '{target}'", where=self.name, fix="check the path")

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        own = self._target != "stdin"
        # Opened without blocking: a named pipe may have no writer yet.
        fd = os.open(self._target, os.O_RDONLY | os.O_NONBLOCK) if own else sys.stdin.fileno()
        number, rest = 0, b""
        try:
            while not stop.is_set():
                if not select.select([fd], [], [], 0.2)[0]:
                    continue
                chunk = os.read(fd, MAX_LINE)
                *lines, rest = (rest + chunk).split(b"\n")
                if not chunk and rest:
                    lines, rest = [rest], b""
                for line in lines:
                    number += 1
                    self._emit_line(emit, line, number)
                if len(rest) > MAX_LINE:
                    self._emit_line(emit, rest, number + 1)
                if not chunk:
                    return
        finally:
            if own:
                os.close(fd)

    def _emit_line(self, emit: Emit, line: bytes, number: int) -> None:
        where = f"{self.name}:{number}"
        if len(line) > MAX_LINE:
            raise SourceError(f"line {number} is longer than {MAX_LINE} bytes", where=where, fix="split the line")
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(
                f"line {number} is not UTF-8: {error.reason}", where=where, fix="save as UTF-8"
            ) from error
        (name,) = self.streams
        now = now_ns()
        emit(Text(stream=name, seq=self.next_seq(name), capture_ns=now, arrive_ns=now, text=text))
