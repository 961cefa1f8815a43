"""Results as JSON Lines: a file, or the standard output."""

from __future__ import annotations

import sys
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from mmedge.errors import ConfigError, MmedgeError
from mmedge.plain import json_text
from mmedge.types import Result


class JsonlSink:
    """One JSON object a line, flushed at each.

    Args:
        target: A file, or ``-`` for stdout.
        stdout: What ``-`` is, where ``sys.stdout`` is something else by now.

    Raises:
        ConfigError: If the file cannot be written.
    """

    def __init__(self, target: str, stdout: BinaryIO | None = None) -> None:
        self._own, self._target = target != "-", target
        try:
            self._file: BinaryIO | FileIO = (
                Path(target).open("wb", buffering=0) if self._own else stdout or sys.stdout.buffer
            )
        except OSError as error:
            raise ConfigError(
                f"cannot write results: {error.strerror}", where=target, fix="choose another path"
            ) from error

    def write(self, result: Result) -> None:
        """Append one line."""
        try:
            line = result.to_json()
            if not line.isascii():  # of JSON in ASCII nothing can steer a terminal but DEL, which shows nothing
                line = json_text(line.decode()).encode()
            self._file.write(line + b"\n")
            self._file.flush()
        except BrokenPipeError:
            raise  # the reader of our stdout has left: not an error
        except OSError as error:
            raise MmedgeError(
                f"cannot write results: {error.strerror}", where=self._target, fix="free space or choose another path"
            ) from error

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self._own:
            self._file.close()


def make(target: str) -> JsonlSink:
    """Return the sink of ``jsonl:PATH``; ``jsonl:-`` is the standard output.

    Raises:
        ConfigError: If there is no path, or the file cannot be written.
    """
    if not target:
        raise ConfigError("the sink 'jsonl' needs a file", where="sinks", fix="jsonl:PATH, or jsonl:- for stdout")
    return JsonlSink(target)
