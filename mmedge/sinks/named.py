"""Sinks by name: any installed package can bring one, through the entry points ``mmedge.sinks``.

The entry point ``NAME = "package.module:factory"`` makes ``NAME`` and ``NAME:TARGET`` sinks. ``factory(target)`` gets
what stands after the colon, ``""`` without one, and returns an object with ``write`` and ``close``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mmedge.errors import ConfigError, MmedgeError
from mmedge.sinks.base import Sink

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "mmedge.sinks"
_OWN = "console"


def _entries() -> dict[str, list[EntryPoint]]:
    from importlib.metadata import (
        entry_points,
    )  # reads a file of each installed package: only where a name is asked for

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


def make_sink(text: str) -> Sink:
    """Return the sink that ``text`` names.

    Args:
        text: ``NAME`` or ``NAME:TARGET``; ``sink_names`` lists the names.

    Raises:
        ConfigError: If there is no such sink, if it cannot be loaded, or if it refuses its target.

    Example:
        >>> make_sink("jsonl:-").close()
    """
    name, _, target = text.partition(":")
    matches = _entries().get(name, [])
    if not matches:
        raise ConfigError(f"unknown sink '{text}'", where="sinks", fix=sink_forms())
    brought = " and ".join(sorted(f"'{_package(entry)}'" for entry in matches))
    if len(matches) > 1:
        raise ConfigError(
            f"several packages bring a sink '{name}': {brought}", where="sinks", fix="uninstall all of them but one"
        )
    try:
        sink = matches[0].load()(target)
    except MmedgeError:
        raise
    except Exception as error:  # code of others: whatever it is must say whose it is
        raise ConfigError(
            f"the sink '{text}' of the package {brought} failed: {type(error).__name__}: {error}",
            where=f"{GROUP}: {matches[0].value}",
            fix="check its target; otherwise correct, update or uninstall the package",
        ) from error
    if not is_sink(sink):
        raise ConfigError(
            f"the sink '{text}' of the package {brought} has no write and close",
            where=f"{GROUP}: {matches[0].value}",
            fix=f"its factory must return an object with both, got {type(sink).__name__}",
        )
    return cast(Sink, sink)


def is_sink(sink: object) -> bool:
    """Return whether ``sink`` is an object that takes results."""
    return callable(getattr(sink, "write", None)) and callable(getattr(sink, "close", None))


def sink_forms() -> str:
    """Return what can be typed for a sink, for the ``fix`` of an error."""
    names = sink_names()
    if _OWN not in names:  # the metadata is older than the source
        return "install mmedge again (pip install): its own sinks are not registered"
    return f"use NAME or NAME:TARGET, with one of: {', '.join(names)}"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
