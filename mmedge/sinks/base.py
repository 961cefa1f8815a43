"""Where results go: the console, a file."""

from __future__ import annotations

import sys
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mmedge.errors import ConfigError, MmedgeError
from mmedge.types import Result

_MAX_ROWS = 8  # boxes of one task in the live table


class Sink(Protocol):
    """Takes results one by one, in order, in the user's thread."""

    def write(self, result: Result) -> None:
        """Take one result."""

    def close(self) -> None:
        """Flush and close; idempotent."""


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
            self._file.write(result.to_json() + b"\n")
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


class ConsoleSink:
    """A live table on a terminal, otherwise one line a changed answer."""

    def __init__(self) -> None:
        self._console = Console(stderr=False)
        self._live: Live | None = None
        self._last: dict[str, tuple[str, ...]] = {}
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=12)
            self._live.start()

    def write(self, result: Result) -> None:
        """Show one result."""
        if self._live is not None:
            self._live.update(_table(result))
            return
        answers = {name: task.gist for name, task in result.tasks.items()}
        if answers != self._last:
            self._last = answers
            tasks = "  ".join(f"{name} {task}" for name, task in result.tasks.items())
            self._console.print(
                f"{result.t_ns / 1e9:12.3f} s  {tasks}  {_latency(result, '({:.1f} ms)')}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _latency(result: Result, form: str) -> str:
    """Say how long it took; a replay of another run's inputs took no time that means anything."""
    return form.format(result.latency_ms["end_to_end"]) if "end_to_end" in result.latency_ms else ""


def _table(result: Result) -> Table:
    table = Table(show_header=True, header_style="bold")
    for heading in ("task", "answer", "score"):
        table.add_column(heading)
    for name, task in result.tasks.items():
        rows = task.rows
        for answer, score in rows[:_MAX_ROWS]:
            table.add_row(escape(name), escape(answer), _bar(score))
        if len(rows) > _MAX_ROWS:
            table.add_row(escape(name), f"and {len(rows) - _MAX_ROWS} more", "")
    seen = "  ".join(f"{'●' if on else '○'} {escape(name)}" for name, on in result.present.items())
    table.caption = (
        f"{seen}   {_latency(result, '{:.1f} ms')}   "
        f"skew {result.skew_ms:.1f} ± {result.uncertainty_ms:.1f} ms   {result.status}"
    )
    return table


def _bar(score: float | None) -> str:
    return "" if score is None else f"{score:.2f} {'█' * round(20 * score):<20}"


def make_sink(text: str) -> Sink:
    """Return the sink that ``text`` names.

    Args:
        text: ``console`` or ``jsonl:PATH`` (``jsonl:-`` is stdout).

    Raises:
        ConfigError: If there is no such sink.

    Example:
        >>> make_sink("jsonl:-").close()
    """
    kind, _, target = text.partition(":")
    if kind == "console" and not target:
        return ConsoleSink()
    if kind == "jsonl" and target:
        return JsonlSink(target)
    raise ConfigError(f"unknown sink '{text}'", where="sinks", fix="use 'console' or 'jsonl:PATH'")
