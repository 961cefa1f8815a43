"""What is typed for a sink, ``NAME[:TARGET][?OPTION=VALUE&...]``, taken apart in one place for all sinks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec

from mmedge.address import Address, shown_name
from mmedge.errors import ConfigError
from mmedge.learn import learn
from mmedge.sinks.selection import Selection

_QUERY = re.compile(r"[A-Za-z_][\w-]*=[^?]*")
_ALIASES = {"events": "on"}  # ?events=change


class Typed(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed for a sink.

    Attributes:
        name: Of the sink.
        target: Where it writes to; may hold a secret.
        options: As they were typed, with escapes undone.
        shown: All of it, without its secrets.
    """

    name: str
    target: str
    options: dict[str, str]
    shown: str


def read_typed(text: str | Address) -> Typed:
    """Take apart what was typed; a ``?`` that no ``OPTION=`` follows is a part of the target.

    Raises:
        ConfigError: If an option is given twice or is no ``OPTION=VALUE``.

    Example:
        >>> read_typed("jsonl:out.jsonl?on=event&tasks=digit").options
        {'on': 'event', 'tasks': 'digit'}
    """
    address = Address(text)  # before anything is said about it
    typed, shown = address.reveal(), str(address)
    head, mark, query = typed.rpartition("?")
    if not mark or not _QUERY.fullmatch(query):
        head, query = typed, ""
    name, _, target = head.partition(":")
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        option, equals, value = pair.partition("=")
        option = _ALIASES.get(option, option)
        if not equals or option in options:
            what = "is given twice" if equals else "has no value"
            raise ConfigError(
                f"the option '{shown_name(option)}' {what}", where=f"sink '{shown}'", fix="OPTION=VALUE, joined by '&'"
            )
        options[option] = unquote(value)
    return Typed(name=name, target=target, options=options, shown=shown)


def own_options(factory: Callable[..., object]) -> dict[str, Any]:
    """Return option -> type of what a sink takes itself: the keyword-only parameters of its factory.

    What is bound already, by ``functools.partial``, is no option.
    """
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):  # of native code, or of names that only a type checker has
        return {}
    bound = factory.keywords if isinstance(factory, partial) else ()
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in bound]
    return {p.name: str if p.annotation is inspect.Parameter.empty else p.annotation for p in keywords}


def read_options(
    typed: Typed, own: Mapping[str, Any], tasks: Collection[str] | None
) -> tuple[Selection, dict[str, Any]]:
    """Return the options that every sink takes, and a sink's own.

    Args:
        typed: What was typed.
        own: Option -> type, of those that it takes itself.
        tasks: The tasks that there are; None when they are not known.

    Raises:
        ConfigError: If there is no such option or task, or a value does not fit.
    """
    where = f"sink '{typed.shown}'"
    common = get_type_hints(Selection, include_extras=True)
    for name in typed.options:
        if name not in common and name not in own:
            known = sorted({*common, *own})
            fix = f"{meant(name, known)}its options are {', '.join(known)}"
            raise ConfigError(f"unknown option '{shown_name(name)}'", where=where, fix=fix)
    given: dict[str, Any] = {name: value for name, value in typed.options.items() if name in common}
    if "tasks" in given:
        given["tasks"] = tuple(filter(None, given["tasks"].split(",")))
    selection = Selection(**{n: _convert(v, common[n], f"{where}, option '{n}'") for n, v in given.items()})
    for task in selection.tasks:
        if tasks is not None and task not in tasks:
            fix = f"{meant(task, tasks)}the tasks are {list(tasks)}"
            raise ConfigError(f"there is no task '{task}'", where=where, fix=fix)
    values = {
        name: _convert(value, own[name], f"{where}, option '{name}'")
        for name, value in typed.options.items()
        if name in own
    }
    return selection, values


def meant(text: str, known: Collection[str]) -> str:
    """Return a question whether one of ``known`` is meant, for the start of a fix; nothing if none is like it.

    Example:
        >>> meant("taks", ["on", "tasks"])
        "did you mean 'tasks'? "
    """
    near = get_close_matches(text, known, 1)
    return f"did you mean '{near[0]}'? " if near else ""


def _convert(value: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, learn(kind), strict=False)
    except msgspec.ValidationError as error:
        if get_origin(kind) is Literal:
            fix = f"{meant(str(value), get_args(kind))}use one of {', '.join(get_args(kind))}"
            raise ConfigError("an option does not fit: it has no such value", where=where, fix=fix) from error
        raise ConfigError(f"an option does not fit: {error}", where=where, fix="see docs/sinks.md") from error
