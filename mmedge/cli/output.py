"""What every command shares: result on stdout, everything else on stderr, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

_NAME = 24  # columns that a name gets

err = Console(stderr=True)
out = Console()

JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of a table.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def next_step(command: str) -> None:
    """Suggest what to type next, to people only."""
    if out.is_terminal:
        err.print(f"[dim]next:[/] {command}", highlight=False)


def add_names(table: Table, heading: str, names: Iterable[str]) -> None:
    """Add a column for names: in one piece, or broken where one of them is very long, never cut off."""
    whole = max(map(len, names), default=0) <= _NAME
    table.add_column(heading, no_wrap=whole, overflow="ellipsis" if whole else "fold")


class Bar:
    """A progress bar whose text and share can be set from any thread."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def __call__(self, text: str, share: float | None = None) -> None:
        """Show ``text`` and a share of 0..1."""
        self._progress.update(self._task, description=text)
        if share is not None:
            self._progress.update(self._task, completed=share)


@contextmanager
def bar(text: str) -> Iterator[Bar]:
    """Show a progress bar on stderr while something long goes on; only on a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield Bar(progress, progress.add_task(text, total=1.0))
