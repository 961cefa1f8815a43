"""What is known of an engine file without a GPU: what the cache has written beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from mmedge.engine.cache import Sidecar
from mmedge.engine.layers import parse_layers
from mmedge.errors import ConfigError
from mmedge.files import engine_cache
from mmedge.learn import learn

SUFFIXES = (".plan", ".engine", ".trt")
_PIECE = 1 << 20  # bytes that are hashed at once
_MAX_TEXT = 1 << 26  # bytes of a builder's log


def describe_plan(path: Path) -> dict[str, Any]:
    """Return what is known of an engine file: its origin, what it was built from and for, its layers.

    Args:
        path: The file; one of the engine cache has a ``.json`` and a ``.log`` beside it.

    Returns:
        A JSON document; ``origin`` is ``cache``, ``changed`` (it is not what the cache has built) or ``unknown``. What
        lies beside a file outside of the cache may be anyone's: it is under ``claimed`` alone.

    Raises:
        ConfigError: If it cannot be read.

    Example:
        >>> describe_plan(Path("engine.plan"))["origin"]  # doctest: +SKIP
        'unknown'
    """
    digest, size = hashlib.sha256(), 0
    try:
        if not path.is_file():
            raise ConfigError("there is no such file", where=str(path), fix="name an engine file")
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise ConfigError(f"cannot read the engine: {error.strerror}", where=str(path), fix="check the path") from error
    document: dict[str, Any] = {
        "schema": "mmedge.inspect/1",
        "file": str(path),
        "kind": "engine",
        "bytes": size,
        "sha256": digest.hexdigest(),
        "origin": "unknown",
    }
    sidecar = _sidecar(path.with_suffix(".json"))
    if sidecar is None:
        return document
    build = msgspec.to_builtins(sidecar.build)
    del build["log_path"]
    told = {
        "key": msgspec.to_builtins(sidecar.key),
        "built": sidecar.key.describe(),
        "build": build,
        "verdict": msgspec.to_builtins(sidecar.verdict),
        "layers": _layers(path.with_suffix(".log")),
    }
    if not _is_cached(path):
        return {**document, "claimed": told}
    document["origin"] = "cache" if sidecar.plan_sha256 == document["sha256"] else "changed"
    return {**document, **told}


def _is_cached(path: Path) -> bool:
    """Tell whether a file lies in the folder of the engine cache, where nobody else may write."""
    try:
        folder = engine_cache().resolve()
        own = path.resolve().parent == folder and not folder.stat().st_mode & 0o022
    except (ConfigError, OSError, RuntimeError):  # there is no home folder, no cache, or a ring of links
        return False
    return own


def _sidecar(path: Path) -> Sidecar | None:
    try:
        if path.stat().st_size > _MAX_TEXT:
            return None
        return msgspec.json.decode(path.read_bytes(), type=learn(Sidecar))
    except (OSError, msgspec.MsgspecError):
        return None


def _layers(log: Path) -> list[dict[str, Any]]:
    """Return the layers that the builder's log lists; none where it lists none."""
    try:
        if log.stat().st_size > _MAX_TEXT:
            return []
        text = log.read_text(errors="replace")
    except OSError:
        return []
    listed = text.rpartition("] Layers:")[2] if "] Layers:" in text else ""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "nodes": sorted(layer.nodes),
            "int8": layer.int8,
            "reads": list(layer.reads),
            "writes": list(layer.writes),
        }
        for layer in parse_layers(listed)
    ]
