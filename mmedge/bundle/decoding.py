"""Strict decoding: a manifest from its bytes, and where in a document the first error lies."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from mmedge.bundle.manifest import SCHEMA, Manifest
from mmedge.bundle.references import check_references
from mmedge.errors import BundleError
from mmedge.learn import learn
from mmedge.plain import unsafe

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class _Version(msgspec.Struct):
    schema: str


def decode_manifest(raw: bytes) -> Manifest:
    """Decode ``manifest.json`` strictly.

    Args:
        raw: The UTF-8 bytes of the file.

    Returns:
        The manifest, internally consistent.

    Raises:
        BundleError: Names the key path of the first error.

    Example:
        >>> decode_manifest(b'{"schema": "mmedge.bundle/9"}')
        Traceback (most recent call last):
        ...
        mmedge.errors.BundleError: bundle schema 'mmedge.bundle/9' needs mmedge >= 9
          where: manifest.json: $.schema
          fix: pip install -U mmedge
    """
    where = "manifest.json"
    try:
        schema = msgspec.json.decode(raw, type=learn(_Version)).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"not a manifest: {error}", where=where, fix="export the bundle again") from error
    if schema != SCHEMA:
        match = re.fullmatch(r"mmedge\.bundle/(\d{1,9})", schema)
        if match and int(match[1]) > 1:
            raise BundleError(
                f"bundle schema '{schema}' needs mmedge >= {match[1]}",
                where=f"{where}: $.schema",
                fix="pip install -U mmedge",
            )
        raise BundleError(
            f"unknown bundle schema '{schema}', expected '{SCHEMA}'",
            where=f"{where}: $.schema",
            fix="export the bundle again",
        )
    try:
        manifest = msgspec.json.decode(raw, type=learn(Manifest))
    except msgspec.ValidationError as error:
        message, key = locate(error, msgspec.json.decode(raw), Manifest)
        raise BundleError(message, where=f"{where}: {key}", fix="export the bundle again or correct the key") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(str(error), where=f"{where}: $", fix="export the bundle again") from error
    _check_text(msgspec.json.decode(raw), "$", where)
    if not manifest.tasks and not manifest.outputs:
        raise BundleError(
            "the bundle defines no tasks and tells no outputs",
            where=f"{where}: $.tasks",
            fix='export it again with a task, or with outputs = ["STAGE.OUTPUT"]',
        )
    check_references(manifest)
    return manifest


def _check_text(value: Any, path: str, where: str) -> None:
    """Raise BundleError at the first name or text that could steer a terminal or be taken for another one."""
    # A licence may have lines, and so may notes on where a bundle is from.
    lines = path == "$.licence" or path.startswith("$.provenance")
    if isinstance(value, str) and (found := unsafe(value, lines=lines)) is not None:
        raise BundleError(f"the text has the character {found}", where=f"{where}: {path}", fix="do not use this bundle")
    if isinstance(value, dict):
        for key, held in value.items():
            if (found := unsafe(key)) is not None:
                raise BundleError(
                    f"the name '{key}' has the character {found}",
                    where=f"{where}: {path}",
                    fix="do not use this bundle",
                )
            _check_text(held, f"{path}.{key}", where)
    elif isinstance(value, list):
        for index, held in enumerate(value):
            _check_text(held, f"{path}[{index}]", where)


def locate(error: msgspec.ValidationError, document: Any, kind: Any) -> tuple[str, str]:
    """Return the message of ``error`` and its whole key path.

    msgspec writes an entry of a table as ``[...]``; here it has its name, and a field that is unknown is part of
    the path.

    Args:
        error: What the conversion raised.
        document: The tables that were converted; changed.
        kind: The type they were converted to.

    Example:
        >>> kind, tables = dict[str, dict[str, int]], {"a": {"x": 1}, "b": {"y": "no"}}
        >>> try:
        ...     msgspec.convert(tables, kind)
        ... except msgspec.ValidationError as error:
        ...     locate(error, tables, kind)
        ('Expected `int`, got `str`', '$.b.y')
    """
    message, _, path = str(error).partition(" - at ")
    key, table = "$", document
    for part in re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+", path.strip("`"))[1:]:
        name: Any = int(part[1:-1]) if re.fullmatch(r"\[\d+\]", part) else part
        if part == "[...]":
            name = _first_wrong(table, document, kind, str(error))
        key += part if isinstance(name, int) else f".{name}"
        table = table[name]
    if unknown := _UNKNOWN.fullmatch(message):
        key += f".{unknown[1]}"
    return message, key


def _first_wrong(table: dict[str, Any], document: Any, kind: Any, told: str) -> str:
    """Return the entry of ``table`` that the error is about: the last of the shortest beginning that has the error.

    Halving keeps a hostile document with many entries cheap.
    """
    entries = list(table.items())
    low, high = 1, len(entries)
    while low < high:
        middle = (low + high) // 2
        table.clear()
        table.update(entries[:middle])
        low, high = (low, middle) if _message(document, kind) == told else (middle + 1, high)
    table.clear()
    table.update(entries[:high])
    return entries[high - 1][0]


def _message(document: Any, kind: Any) -> str:
    try:
        msgspec.convert(document, learn(kind), str_keys=True)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
