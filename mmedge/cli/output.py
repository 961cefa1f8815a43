"""Shared by all commands: results go to stdout, everything else to stderr; exit codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmedge.console import err, out, styled
from mmedge.errors import ConfigError
from mmedge.plain import json_text, printable
from mmedge.privacy import Privacy
from mmedge.stdout import abandon_stdout, documents, is_reserved, reserve_stdout

if TYPE_CHECKING:  # most commands show neither
    from rich.progress import Progress
    from rich.table import Table

__all__ = [
    "Allow",
    "AudioSource",
    "Bar",
    "ImageSource",
    "Inputs",
    "Json",
    "JsonLines",
    "PrintableFormatter",
    "PrivacyOption",
    "Sinks",
    "TextSource",
    "ViewOption",
    "abandon_stdout",
    "add_names",
    "bar",
    "documents",
    "err",
    "next_step",
    "out",
    "print_json",
    "printable",
    "reserve_stdout",
    "styled",
    "tell_links",
]

_NAME = 24  # columns that a name gets


class PrintableFormatter(logging.Formatter):
    """Formats log records, whatever is in their messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of a record."""
        return printable(super().format(record))


JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")]
Sinks = Annotated[
    list[str],
    # ``cli`` puts the names in where help is shown: to ask for them reads a file of each installed package.
    typer.Option("--sink", metavar="NAME[:TARGET]", help="Where results go: {sinks}; may be repeated."),
]
Inputs = Annotated[
    list[str],
    typer.Option("--input", metavar="NAME=URI", help="Source of an input; URI may be @FILE, or hold ${VARIABLE}."),
]
ImageSource = Annotated[str | None, typer.Option(help="Source of the only image input.")]
AudioSource = Annotated[str | None, typer.Option(help="Source of the only audio input.")]
TextSource = Annotated[str | None, typer.Option(help="Source of the only text input.")]
Places = Annotated[
    list[str],
    typer.Option(
        "--place",
        metavar="STAGE=PLACE",
        help="Where a stage runs on TensorRT: dla:CORE, or sms:COUNT for multiprocessors of its own; may be repeated.",
    ),
]
Allow = Annotated[
    list[str],
    typer.Option(
        "--allow-callable",
        metavar="MODULE",
        help="A module whose functions the bundle may call, or the mmedge.toml of a project; may be repeated.",
    ),
]
ViewOption = Annotated[
    str | None,
    typer.Option(
        "--view",
        metavar="[HOST:PORT]",
        help="Serve the live page there; without HOST:PORT on this machine alone, port 8750.",
    ),
]
PrivacyOption = Annotated[
    Privacy,
    typer.Option(help="What of pictures and sound page and videos show: none; blur: shapes; picture: all."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def tell_links(links: Sequence[str]) -> None:
    """Print where the page is; on stderr alone: the token stands in no log of ours."""
    err.print("page: " + "  ".join(links), highlight=False, markup=False, soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    text = json_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
    documents().write(text.encode())
    documents().flush()


def next_step(command: str) -> None:
    """Suggest what to type next, to people only."""
    if out.is_terminal and not is_reserved():
        err.print(styled(("next:", "dim"), f" {command}"), highlight=False)


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
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield Bar(progress, progress.add_task(text, total=1.0))


def parse_places(places: list[str]) -> dict[str, str]:
    """Return stage -> place of ``--place STAGE=PLACE``.

    Raises:
        ConfigError: If one has another form, or a stage is named twice.
    """
    found: dict[str, str] = {}
    for text in places:
        stage, equals, place = text.partition("=")
        if not equals or not stage or stage in found:
            what = "names a stage twice" if stage in found else "is not STAGE=PLACE"
            raise ConfigError(f"'{text[:80]}' {what}", where="--place", fix="--place image_encoder=dla:0")
        found[stage] = place
    return found
