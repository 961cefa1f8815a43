"""Attestations: what one machine measured, as one document to send, which says by its hash whether it was changed."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mmedge.bench.checklist import view
from mmedge.bench.report import SCHEMA as BENCH_SCHEMA
from mmedge.errors import CheckError, ConfigError
from mmedge.files import read_plain
from mmedge.forecast.seal import digest
from mmedge.learn import learn

SCHEMA = "mmedge.attest/1"
# Of every attestation; "board" besides, of one made with --board.
_KEYS = {"schema", "bundle", "doctor", "compile", "golden", "bench", "sweep", "valid", "problem", "sha256"}
_LARGEST = 1 << 24  # bytes of a file that is read


class _Bundle(msgspec.Struct, frozen=True):
    name: str
    manifest_sha256: str = ""


class _Figures(msgspec.Struct, frozen=True):
    p50: float | None
    p99: float | None
    n: int


class _Latency(msgspec.Struct, frozen=True):
    end_to_end: _Figures


class _Conditions(msgspec.Struct, frozen=True):
    machine: str


class _Bench(msgspec.Struct, frozen=True):
    evidence: str
    latency_ms: _Latency
    conditions: _Conditions


class _Shown(msgspec.Struct, frozen=True):
    """What is shown of every attestation, beside its checklist."""

    bundle: _Bundle
    bench: _Bench


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its hash, once nothing in it tells whose machine it is of.

    Raises:
        CheckError: If a text in it holds the name of the host or of the user, or a path of the home folder.
    """
    found = sorted(private(document))
    if found:
        raise CheckError(
            "the attestation would tell whose machine this is",
            where=", ".join(found),
            fix="report it: these texts are to stay out of it",
        )
    return {**document, "sha256": digest(document)}


def private(document: object, where: str = "$") -> set[str]:
    """Return where in a document the host, the user or the home folder is named.

    Example:
        >>> private({"a": [f"{Path.home()}/x"]})
        {'$.a[0]'}
    """
    if isinstance(document, Mapping):
        return {
            at
            for key, value in document.items()
            for at in private(key, f"{where}.{key}") | private(value, f"{where}.{key}")
        }
    if isinstance(document, (list, tuple)):
        return {at for index, value in enumerate(document) for at in private(value, f"{where}[{index}]")}
    if not isinstance(document, str):
        return set()
    home = str(Path.home())
    # Whole words: a host called "vm" is no part of "evm"; a user called "root" is everybody's.
    words = [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 2 and name != "root"]
    named = any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", document) for word in words)
    return {where} if named or (len(home) > 1 and f"{home}/" in document) else set()


def read(path: Path) -> dict[str, Any]:
    """Return an attestation that is what was measured.

    Raises:
        ConfigError: If it cannot be read, or is none.
        CheckError: If it was changed, or what it holds is not valid.
    """
    try:
        document = json.loads(read_plain(path, _LARGEST))
    except OSError as error:
        message = f"cannot read the attestation: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError("the file is not JSON", where=str(path), fix="make one: mmedge attest BUNDLE") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA or set(document) - {"board"} != _KEYS:
        raise ConfigError(
            f"the file is not an attestation of schema '{SCHEMA}'",
            where=str(path),
            fix="make one: mmedge attest BUNDLE",
        )
    try:
        changed = digest(document) != document["sha256"]
    except ValueError as error:  # a number that JSON does not have
        raise ConfigError("the file is not strict JSON", where=str(path), fix="take it as it was sent") from error
    if changed:
        raise CheckError(
            "the attestation was changed after it was made: its hash does not fit", where=str(path), fix="measure again"
        )
    bench = document["bench"]
    if not isinstance(bench, dict) or bench.get("schema") != BENCH_SCHEMA:
        message = f"its report is not of schema '{BENCH_SCHEMA}'"
        raise ConfigError(message, where=str(path), fix="measure again with this version")
    view(document)
    try:
        msgspec.convert(document, learn(_Shown))
    except msgspec.ValidationError as error:
        message = f"a part of the attestation is malformed: {error}"
        raise ConfigError(message, where=str(path), fix="measure again with this version") from None
    if document["valid"] is not True:
        raise CheckError(f"its figures are not valid: {document['problem']}", where=str(path), fix="measure again")
    return dict(document)
