"""A network as it lies on the disk: one ONNX file, and the files of its weights in the same folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mmedge.bundle.onnx_file import weight_files, weight_path
from mmedge.errors import ConfigError

_PIECE = 1 << 20  # bytes that are hashed at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """An ONNX network that was read, with what it takes to tell it from every other one.

    Attributes:
        name: For messages.
        model: The bytes of the ONNX file.
        path: The file; None if the bytes were handed over.
        weights: Files that hold weights of it.
        sha256: Hash of the file, and of its weights wherever they lie: what it *is*.
    """

    name: str
    model: bytes
    path: Path | None
    weights: tuple[Path, ...]
    sha256: str


def read_network(source: str | Path | bytes) -> Network:
    """Read a network from its file, or take its bytes.

    Args:
        source: The ONNX file (weights beside it as torch writes them, ``model.onnx.data``, belong to it), or its bytes
            with all weights inside.

    Raises:
        ConfigError: If it cannot be read, is not ONNX, or takes weights from a file that is missing or outside its
            folder.

    Example:
        >>> read_network("model.onnx").sha256  # doctest: +SKIP
        '3f0c...'
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        model, path, name = bytes(source), None, "the bytes"
    else:
        if not isinstance(source, (str, os.PathLike)):
            raise ConfigError(
                f"a network is a path or bytes, not {type(source).__name__}",
                where="path",
                fix="give the file, or model.SerializeToString()",
            )
        path = Path(source)
        name = str(path)
        model = _read(path)
    try:
        locations = weight_files(model)
    except ValueError as error:
        fix = "give the file that torch.onnx.export wrote"
        raise ConfigError(f"not an ONNX file, or a damaged one: {error}", where=name, fix=fix) from error
    if locations and path is None:
        raise ConfigError(
            f"the network takes weights from the file '{locations[0]}', which bytes do not hold",
            where=name,
            fix="give the path of the network, or export it with external_data=False",
        )
    digest = hashlib.sha256(model)
    weights = []
    if path is not None and locations:
        digest = hashlib.sha256(digest.digest())
        for location in locations:
            file = weight_path(path, location)
            digest.update(os.fsencode(location) + b"\0" + _hash_of(file, path))
            weights.append(file)
    return Network(name=name, model=model, path=path, weights=tuple(weights), sha256=digest.hexdigest())


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ConfigError("not a file", where=str(path), fix="name an ONNX file")
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot read the network: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="check the path") from error


def _hash_of(file: Path, model: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise ConfigError(
            f"the network's weights '{file.name}' cannot be read: {error.strerror}",
            where=str(model),
            fix="copy the file of weights beside the network, too, or export it with external_data=False",
        ) from error
    return digest.digest()
