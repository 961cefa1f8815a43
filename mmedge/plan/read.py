"""A plan that was written down, as ``mmedge inspect --plan --json`` does, is read back or refused."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from mmedge.errors import ConfigError
from mmedge.files import read_document
from mmedge.learn import learn
from mmedge.plan.parts import Plan

_SCHEMA = "mmedge.plan/1"
_FIX = "make it anew: mmedge inspect BUNDLE --plan --json"


class _Version(msgspec.Struct):
    schema: str


def read_plan(raw: bytes, where: str = "plan") -> Plan:
    """Return the plan that JSON holds.

    Args:
        raw: The document.
        where: Its file, for messages.

    Raises:
        ConfigError: If it is no plan, or one of another version.

    Example:
        >>> read_plan(b'{"schema": "mmedge.plan/2"}')
        Traceback (most recent call last):
        ...
        mmedge.errors.ConfigError: the plan is of another version: 'mmedge.plan/2', expected 'mmedge.plan/1'
          where: plan: $.schema
          fix: make it anew: mmedge inspect BUNDLE --plan --json
    """
    try:
        schema = msgspec.json.decode(raw, type=learn(_Version)).schema
        if schema == _SCHEMA:
            return msgspec.json.decode(raw, type=learn(Plan))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ConfigError(f"the file does not hold a plan: {error}", where=where, fix=_FIX) from error
    other = re.fullmatch(r"mmedge\.plan/\d{1,9}", schema)
    what = "of another version" if other else "of another kind"
    raise ConfigError(
        f"the plan is {what}: {schema[:40]!r}, expected '{_SCHEMA}'", where=f"{where}: $.schema", fix=_FIX
    )


def load_plan(path: Path) -> Plan:
    """Return the plan that a file holds.

    Raises:
        ConfigError: If it cannot be read, or as ``read_plan``.
    """
    return read_plan(read_document(path, "the plan"), str(path))
