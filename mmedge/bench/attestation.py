"""Attestations: what one machine measured, as one document to send, which says by its hash whether it was changed."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mmedge.bench.checklist import view
from mmedge.bench.report import SCHEMA as BENCH_SCHEMA
from mmedge.errors import CheckError, ConfigError
from mmedge.files import read_document
from mmedge.forecast.seal import digest
from mmedge.learn import learn

SCHEMA = "mmedge.attest/1"
# Of every attestation; "board" besides, of one made with --board.
_KEYS = {"schema", "bundle", "doctor", "compile", "golden", "bench", "sweep", "valid", "problem", "sha256"}


class _Figures(msgspec.Struct, frozen=True):
    p50: float | None = None
    p99: float | None = None
    n: int = 0


class _Steps(msgspec.Struct, frozen=True):
    inferred: _Figures | None = None


class _Latency(msgspec.Struct, frozen=True):
    end_to_end: _Figures
    steps: _Steps = _Steps()


class _Stage(msgspec.Struct, frozen=True):
    engine: _Figures


class _Rate(msgspec.Struct, frozen=True):
    asked_hz: Annotated[float, msgspec.Meta(gt=0)] | None


class _Power(msgspec.Struct, frozen=True):
    mj_per_result: float | None = None


class _Conditions(msgspec.Struct, frozen=True):
    machine: str
    backends: dict[str, str]
    power: _Power = _Power()


class _Report(msgspec.Struct, frozen=True):
    evidence: str
    conditions: _Conditions
    latency_ms: _Latency
    stages_ms: dict[str, _Stage]
    rate: _Rate
    runtime_share: _Figures | None


class _Bundle(msgspec.Struct, frozen=True):
    name: str
    manifest_sha256: str


class _Knee(msgspec.Struct, frozen=True):
    knee_hz: float | None


class _Read(msgspec.Struct, frozen=True):
    """What is read of an attestation, besides what its checklist is made of; times in ms."""

    bundle: _Bundle
    bench: _Report
    sweep: _Knee | None
    problem: str | None


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
    content = read_document(path, "the attestation")
    try:
        document = json.loads(content)
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
        msgspec.convert(document, learn(_Read))
    except msgspec.ValidationError as error:
        message = f"a part of the attestation is malformed: {error}"
        raise ConfigError(message, where=str(path), fix="measure again with this version") from None
    if document["valid"] is not True:
        raise CheckError(f"its figures are not valid: {document['problem']}", where=str(path), fix="measure again")
    return dict(document)
