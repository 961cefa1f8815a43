"""Text, one value a line, from the standard input, a named pipe, or a file that is followed as it grows."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from mmedge.capture.base import Emit, ThreadSource
from mmedge.capture.followed import FollowedFile
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, SourceError
from mmedge.types import Text

log = logging.getLogger("mmedge.capture")
MAX_LINE = 64 * 1024  # bytes, as ipc.limits.MAX_TEXT
_CHUNK = 64 * 1024
_LOOK_S = 0.05  # between two looks at a file that is followed
_WAKE_MS = 200  # how long a stop may have to wait
# A thousand lines a second at most: a writer that floods waits, and does not take the run's time.
_BURST, _BURST_S = 16, 0.016
# What has no line break for so long is no text: a device that never ends must not be read for ever.
MAX_UNBROKEN = 64 * 1024 * 1024
_QUIET_NS = 5_000_000_000  # between two messages about lines that were refused
_CAUSES = {
    "too_long": (f"it is longer than {MAX_LINE} bytes", "split the line"),
    "not_utf8": ("it is not UTF-8", "save the text as UTF-8"),
    "nul": ("it has a NUL byte", "write plain text"),
    "unfinished": ("its file was replaced before it had an end", "end every line with a line break"),
}


class Lines:
    """Cuts bytes into numbered lines of bounded length, which wait for their ends.

    Attributes:
        number: Of the newest line.
        unbroken: Bytes since the last line break.
    """

    def __init__(self) -> None:
        self.number = self.unbroken = 0
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield number and bytes of the lines that end in ``chunk``; None, as soon as it is known, for one too long."""
        *lines, rest = chunk.split(b"\n")
        self.unbroken = len(rest) + (0 if lines else self.unbroken)
        for line in lines:
            yield from self._end(line)
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > MAX_LINE:
                self._rest, self._skipping = b"", True
                self.number += 1
                yield self.number, None

    def _end(self, line: bytes) -> Iterator[tuple[int, bytes | None]]:
        whole, self._rest = self._rest + line, b""
        skipped, self._skipping = self._skipping, False
        if not skipped:
            self.number += 1
            yield self.number, whole if len(whole) <= MAX_LINE else None

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line if it has no end, which will not come."""
        if self._rest:
            yield from self._end(b"")


class TextSource(ThreadSource):
    """Reads lines of strict UTF-8, at most 64 KiB each; a line is valid from its arrival.

    A file is followed: the last whole line that is there at the start is the first value, then each line that is
    appended; of a file that was cut off, written anew or replaced, each line in it. The standard input ends, a named
    pipe does not, whoever writes to it. A line that cannot be taken is counted, by cause, and passed over; a pipe or
    device that gives 64 MiB without a line break is an error.

    Args:
        stream: Name of the input.
        target: ``stdin`` or the path of a file or named pipe.

    Raises:
        ConfigError: If there is no such file, or no standard input.
    """

    def __init__(self, stream: str, target: str) -> None:
        super().__init__((stream,), name=f"text://{target}", live=True)
        self._taken = self._unsaid = self._quiet_until_ns = 0
        self._lines = Lines()
        self._file: FollowedFile | None = None
        self._path: Path | None = None
        if target == "stdin":
            self._fd = _stdin()
            return
        self._path = path = Path(target)
        try:
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                self._file = FollowedFile(path)
            elif stat.S_ISDIR(mode):
                raise ConfigError(
                    f"there is no text file '{target}', it is a folder", where=self.name, fix="name a file"
                )
            else:
                # A named pipe is opened for writing too: it then does not end with its last writer.
                self._fd = os.open(path, (os.O_RDWR if stat.S_ISFIFO(mode) else os.O_RDONLY) | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigError(
                f"there is no text file '{target}': {error.strerror}", where=self.name, fix="check the path"
            ) from error

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        self.set_state("OK", "no text has come yet")
        try:
            if self._file is None:
                self._read_stream(emit, stop)
            else:
                self._read_file(emit, stop, self._file)
        finally:
            self._free()

    def _close_impl(self) -> None:
        if self._thread is None:  # otherwise it is the reader's to close, who looks at ``stop`` five times a second
            self._free()

    def _free(self) -> None:
        path, self._path = self._path, None
        if self._file is not None and path is not None:
            self._file.close()
        elif path is not None:
            os.close(self._fd)

    def _read_stream(self, emit: Emit, stop: threading.Event) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not stop.is_set():
            if not poll.poll(_WAKE_MS):
                continue
            try:
                chunk = os.read(self._fd, _CHUNK)
            except BlockingIOError:  # another process has read it
                continue
            self._take(emit, stop, self._lines.feed(chunk))
            if self._lines.unbroken > MAX_UNBROKEN:
                raise SourceError(
                    f"{MAX_UNBROKEN >> 20} MiB arrived without a line break",
                    where=self.name,
                    fix="name a source that writes lines of text",
                )
            if not chunk:
                self._take(emit, stop, self._lines.finish())
                return

    def _read_file(self, emit: Emit, stop: threading.Event, file: FollowedFile) -> None:
        self._take_last(emit, stop, file)
        while not stop.wait(_LOOK_S):
            self._read_on(emit, stop, file)
            if file.repeated():
                self._anew(file)
                self._take_last(emit, stop, file)
            try:
                replaced = file.replaced()
                if replaced:
                    self._read_on(emit, stop, file)
                    file.reopen()
            except OSError as error:  # between two files there may be none
                self.set_state("RECONNECTING", f"{self.name}: {error.strerror}; the next file is waited for")
                continue
            if self._state == "RECONNECTING":
                self.set_state("OK")
            if replaced:
                self._anew(file)
                self._read_on(emit, stop, file)

    def _read_on(self, emit: Emit, stop: threading.Event, file: FollowedFile) -> None:
        while not stop.is_set() and (chunk := file.read()) != b"":
            if chunk is None:
                self._anew(file)
            else:
                self._take(emit, stop, self._lines.feed(chunk))

    def _take_last(self, emit: Emit, stop: threading.Event, file: FollowedFile) -> None:
        """Take the last whole line; what is before it was said before."""
        last: list[tuple[int, bytes | None]] = []
        while not stop.is_set() and (chunk := file.read()):
            last = list(self._lines.feed(chunk))[-1:] or last
        self._take(emit, stop, iter(last))

    def _anew(self, file: FollowedFile) -> None:
        """Begin with the first line of the file."""
        for number, _ in self._lines.finish():
            self._refuse(number, "unfinished")
        self._lines = Lines()
        file.rewind()

    def _take(self, emit: Emit, stop: threading.Event, lines: Iterator[tuple[int, bytes | None]]) -> None:
        (stream,) = self.streams
        for number, line in lines:
            if stop.is_set():
                return
            self._taken += 1
            if self._taken % _BURST == 0:
                stop.wait(_BURST_S)
            try:
                text = None if line is None else line.removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError:
                self._refuse(number, "not_utf8")
                continue
            if text is None or "\0" in text:
                self._refuse(number, "too_long" if text is None else "nul")
                continue
            self._reason = None
            now = now_ns()
            emit(Text(stream=stream, seq=self.next_seq(stream), capture_ns=now, arrive_ns=now, text=text))

    def _refuse(self, number: int, cause: str) -> None:
        why, fix = _CAUSES[cause]
        error = SourceError(
            f"line {number} of input '{self.streams[0]}' was refused: {why}", where=f"{self.name}:{number}", fix=fix
        )
        self.refused, self._reason = error, error.message
        self.counters["refused_lines"] += 1
        self.counters[f"refused_{cause}"] += 1
        now = now_ns()
        if now < self._quiet_until_ns:
            self._unsaid += 1
            return
        more = f"\n  lines refused since the last such message: {self._unsaid}" if self._unsaid else ""
        log.warning("%s%s", error, more)
        self._quiet_until_ns, self._unsaid = now + _QUIET_NS, 0


def _stdin() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:
        raise ConfigError(
            "this process has no standard input", where="text://stdin", fix="name a file, or use push://"
        ) from error
