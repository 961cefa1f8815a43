"""Sinks by name: any installed package can bring one, through the entry points ``mmedge.sinks``.

The entry point ``NAME = "package.module:factory"`` makes ``NAME`` and ``NAME:TARGET`` sinks. ``factory(target)`` gets
what stands after the colon, ``""`` without one, and returns an object with ``write`` and ``close``. Its keyword-only
parameters are options of the sink, ``NAME:TARGET?OPTION=VALUE``, beside those that every sink takes (``Selection``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from mmedge.address import Address
from mmedge.errors import ConfigError, MmedgeError
from mmedge.sinks.base import Sink
from mmedge.sinks.options import Typed, meant, own_options, read_options, read_typed
from mmedge.sinks.queue import SinkQueue
from mmedge.sinks.selection import Selection

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "mmedge.sinks"
_OWN = "console"


def _entries() -> dict[str, list[EntryPoint]]:
    from importlib.metadata import entry_points  # it reads a file of each package: only where a name is asked for

    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def sink_names() -> list[str]:
    """Return the names of the sinks that are installed, sorted.

    Example:
        >>> "jsonl" in sink_names()
        True
    """
    return sorted(_entries())


def open_sink(
    sink: str | Address | Sink,
    *,
    tasks: Collection[str] | None = None,
    latest: bool = False,
    lossless: bool = False,
    note: Callable[[int, int], None] | None = None,
) -> SinkQueue:
    """Return a sink behind its queue.

    Args:
        sink: What ``make_sink`` takes, or an object with ``write`` and ``close``.
        tasks: Those of the bundle, to check ``?tasks=``; None when they are not known.
        latest: Whether a slow sink gets the latest result by default, instead of all that wait.
        lossless: Wait for a slow sink, as long as it goes on writing.
        note: Called with the age of each result that is taken, and how long it took to write, in ns.

    Raises:
        ConfigError: As ``make_sink``.
    """
    if not isinstance(sink, (str, Address)):
        return SinkQueue(sink, type(sink).__name__, latest=latest, lossless=lossless, note=note)
    typed = read_typed(sink)
    made, selection = _make(typed, tasks)
    return SinkQueue(made, typed.shown, selection, latest=latest, lossless=lossless, note=note)


def make_sink(text: str | Address) -> Sink:
    """Return the sink that ``text`` names, without its queue: it gets whatever is written to it.

    Args:
        text: ``NAME[:TARGET][?OPTION=VALUE&...]``; ``sink_names`` lists the names, docs/sinks.md the options.

    Raises:
        ConfigError: If there is no such sink or option, if it cannot be loaded, or if it refuses its target.

    Example:
        >>> make_sink("jsonl:-").close()
    """
    return _make(read_typed(text), None)[0]


def check_sink(text: str | Address, tasks: Collection[str] | None = None) -> None:
    """Check what is typed for a sink, without opening it.

    Args:
        text: As ``make_sink`` takes it.
        tasks: Those of the bundle; None when they are not known.

    Raises:
        ConfigError: If there is no such sink, option or task, or if the sink cannot be loaded.
    """
    typed = read_typed(text)
    read_options(typed, options_of(typed), tasks)


def options_of(typed: Typed) -> dict[str, Any]:
    """Return option -> type of what the sink that is typed takes itself; it is loaded, not opened.

    Raises:
        ConfigError: If there is no such sink, or it cannot be loaded.
    """
    entry = _entry(typed)
    with _blamed(typed, entry):
        return own_options(entry.load())


def _entry(typed: Typed) -> EntryPoint:
    matches = _entries().get(typed.name, [])
    if not matches:
        raise ConfigError(f"unknown sink '{typed.shown}'", where="sinks", fix=sink_forms(typed.name))
    if len(matches) > 1:
        brought = " and ".join(sorted(f"'{_package(entry)}'" for entry in matches))
        raise ConfigError(
            f"several packages bring a sink '{typed.name}': {brought}",
            where="sinks",
            fix="uninstall all of them but one",
        )
    return matches[0]


@contextmanager
def _blamed(typed: Typed, entry: EntryPoint) -> Iterator[None]:
    """Say whose code has failed: that of a sink is code of others, and may raise anything."""
    try:
        yield
    except MmedgeError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the sink '{typed.shown}' of the package '{_package(entry)}' failed: {type(error).__name__}: {error}",
            where=f"{GROUP}: {entry.value}",
            fix="check its target; otherwise correct, update or uninstall the package",
        ) from error


def _make(typed: Typed, tasks: Collection[str] | None) -> tuple[Sink, Selection]:
    entry = _entry(typed)
    with _blamed(typed, entry):
        factory = entry.load()
        selection, options = read_options(typed, own_options(factory), tasks)
        sink = factory(typed.target, **options)
    if not is_sink(sink):
        raise ConfigError(
            f"the sink '{typed.shown}' of the package '{_package(entry)}' has no write and close",
            where=f"{GROUP}: {entry.value}",
            fix=f"its factory must return an object with both, got {type(sink).__name__}",
        )
    made = cast(Sink, sink)
    if selection.on == "event" and getattr(made, "wants_pictures", False):
        made.close()
        raise ConfigError(
            "this sink writes pictures, and events have none",
            where=f"sink '{typed.shown}'",
            fix="leave out on=event, or use on=change",
        )
    return made, selection


def is_sink(sink: object) -> bool:
    """Return whether ``sink`` is an object that takes results."""
    return callable(getattr(sink, "write", None)) and callable(getattr(sink, "close", None))


def sink_forms(typed: str = "") -> str:
    """Return what can be typed for a sink, for the ``fix`` of an error; ``typed`` is the name that was."""
    names = sink_names()
    if _OWN not in names:  # the metadata is older than the source
        return "install mmedge again (pip install): its own sinks are not registered"
    return f"{meant(typed, names)}use NAME or NAME:TARGET, with one of: {', '.join(names)}"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
