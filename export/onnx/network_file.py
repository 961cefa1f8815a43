"""One way into an ONNX file: the network with all its weights, which may lie beside it, and what it is as a hash.

An ONNX file is one protobuf message, which holds 2 GB at most. Larger networks keep their weights in other files,
where they stay (``outside``).
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from mmedge.bundle import onnx_file
from mmedge.bundle.onnx_file import weight_path
from mmedge.engine.shapes import is_name
from mmedge.errors import ConfigError

from . import outside
from .outside import MAX_BYTES, is_left, leave, may_leave

_GB = 1e9
_FIX = "give the file that torch.onnx.export wrote"
_PIECE = 1 << 20  # bytes read at once while hashing
_MOST_DIMS = 64  # of an array in numpy
_BITS: dict[int, int] = {
    **dict.fromkeys((TensorProto.INT2, TensorProto.UINT2), 2),
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1), 4),
}


def load_network(
    source: str | Path | bytes, *, largest_bytes: int | None = None, streamed: bool = False
) -> onnx.ModelProto:
    """Return the network of an ONNX file, with the weights that lie in files beside it or in folders below.

    Args:
        source: The file, or what it holds; weights beside it are found by the file alone.
        largest_bytes: Leave tensors that lie outside and are larger there: for whoever reads structure alone. None
            takes all in.
        streamed: Of a large network leave the weights in their files (``outside`` reads them), also of one that one
            message cannot hold.

    Returns:
        The network; no tensor is outside unless ``largest_bytes`` or ``streamed`` left it there.

    Raises:
        ConfigError: If the file cannot be read or is not ONNX; if weights are missing, too short, or outside of its
            folder; or if the network is larger than 2 GB, which one ONNX message cannot hold.

    Example:
        >>> load_network("model.onnx").graph.name  # doctest: +SKIP
        'main_graph'
    """
    path = None if isinstance(source, bytes) else Path(source)
    where = "the network's bytes" if path is None else str(path)
    model = _parsed(source if isinstance(source, bytes) else _read(Path(source)), where)
    _drop_no_names(model)
    there = [tensor for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]
    pieces = [(tensor, _Piece(path, tensor)) for tensor in there]
    if streamed and sum(piece.size for _, piece in pieces) + model.ByteSize() > outside.LEFT_BYTES:
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                piece = _Piece(path, tensor)
                if may_leave(tensor, piece.size):
                    leave(tensor, piece.file, piece.offset, piece.size)
        pieces = [(tensor, piece) for tensor, piece in pieces if not is_left(tensor)]
    taken = [(tensor, piece) for tensor, piece in pieces if largest_bytes is None or piece.size <= largest_bytes]
    total = sum(piece.size for _, piece in taken) + model.ByteSize()
    if total > MAX_BYTES:
        raise ConfigError(
            f"the network has {total / _GB:.1f} GB, and one ONNX message holds 2 GB at most",
            where=where,
            fix="split it into stages, or export it with its weights as initializers in a file beside it",
        )
    for tensor, piece in taken:
        tensor.raw_data = piece.read()
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return model


def _drop_no_names(model: onnx.ModelProto) -> None:
    """Take away what is no name of a dimension (``?``): ONNX Runtime takes two of one name for equal."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            if dim.HasField("dim_param") and not is_name(dim.dim_param):
                dim.ClearField("dim_param")


def network_digest(path: str | Path) -> str:
    """Return the SHA-256 of what a network is: the same wherever its weights lie, another when one byte changes.

    Weights are hashed piece by piece, so that a network of any size takes little memory.

    Raises:
        ConfigError: As ``load_network`` raises it.

    Example:
        >>> network_digest("model.onnx")[:8]  # doctest: +SKIP
        '9f86d081'
    """
    path = Path(path)
    model = load_network(path, largest_bytes=0)
    found: dict[tuple[Path, int, int], bytes] = {}  # tied weights are one piece
    hashed: Counter[Path] = Counter()
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            piece = _Piece(path, tensor)
            place = (piece.file, piece.offset, piece.size)
            if place not in found:
                hashed[piece.file] += piece.size
                if hashed[piece.file] > piece.file.stat().st_size:
                    raise ConfigError(f"weights overlap in '{piece.file.name}'", where=str(path), fix=_FIX)
                found[place] = piece.digest()
            digest = found[place]
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
        elif tensor.raw_data:
            digest = hashlib.sha256(tensor.raw_data).digest()
        else:
            continue
        tensor.raw_data = digest
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def weight_files(path: str | Path) -> list[Path]:
    """Return the files beside a network that it names for its weights, without reading it as ONNX.

    Names that lead out of its folder and files that are not there are left out.

    Raises:
        ConfigError: If the file cannot be read.
    """
    path = Path(path)
    found: list[Path] = []
    try:
        for location in onnx_file.weight_files(_read(path)):
            with suppress(ConfigError):
                found.append(weight_path(path, location))
    except ValueError as error:
        raise ConfigError(f"not an ONNX file, or a damaged one: {error}", where=str(path), fix=_FIX) from error
    return list(dict.fromkeys(found))


def tensors_of(message: Any) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a network at any depth: weights, attributes, branches, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from tensors_of(item)


class _Piece:
    """The part of a file where the data of one tensor lies."""

    def __init__(self, network: Path | None, tensor: onnx.TensorProto) -> None:
        self._name = tensor.name or "(a constant)"
        self._where = "the network's bytes" if network is None else str(network)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if network is None:
            raise ConfigError(
                f"the weights of '{self._name}' lie in another file, '{location}', which bytes alone do not lead to",
                where=self._where,
                fix="give the path of the ONNX file, or export it with external_data=False",
            )
        self.file = weight_path(network, location, self._name)
        try:
            self.offset = int(entries.get("offset") or 0)
            length = int(entries["length"]) if entries.get("length") else None
        except ValueError as error:
            raise self._wrong(f"offset or length is not a number: {error}") from error
        self.size = _bytes_of(tensor)
        if length is not None and length != self.size:
            raise self._wrong(f"{length} bytes are named, its shape and type take {self.size}")
        if self.offset < 0 or self.offset + self.size > self.file.stat().st_size:
            raise self._wrong(f"'{location}' ends before byte {self.offset + self.size}")

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(
            f"the weights of '{self._name}' cannot be read: {what}", where=self._where, fix="export the network again"
        )

    def read(self) -> bytes:
        return b"".join(self._pieces())

    def digest(self) -> bytes:
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return digest.digest()

    def _pieces(self) -> Iterator[bytes]:
        left = self.size
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                while left:
                    piece = file.read(min(left, _PIECE))
                    if not piece:
                        raise self._wrong(f"'{self.file.name}' became shorter while it was read")
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise self._wrong(error.strerror or "the file cannot be read") from error


def _bytes_of(tensor: onnx.TensorProto) -> int:
    many = len(tensor.dims) > _MOST_DIMS
    count: int = -1 if many else math.prod(tensor.dims)
    if tensor.data_type in _BITS and not many:
        bits: int = _BITS[tensor.data_type]
        return (count * bits + 7) // 8
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or count < 0:
        raise ConfigError(
            f"tensor '{tensor.name}' cannot lie in another file: it has no size in bytes",
            where=tensor.name,
            fix="export the network again",
        )
    item: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * item


def _read(path: Path) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError("not a file", where=str(path), fix="name an ONNX file")
        if info.st_size > MAX_BYTES:
            raise ConfigError(
                f"a file of {info.st_size / _GB:.1f} GB is not one ONNX message, which holds 2 GB at most",
                where=str(path),
                fix="export it with external_data=True",
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the network: {error.strerror}", where=str(path), fix="check the path"
        ) from error


def _parsed(raw: bytes, where: str) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(raw)
    except DecodeError as error:
        raise ConfigError("not an ONNX file", where=where, fix=_FIX) from error
    if not model.HasField("graph"):
        raise ConfigError("not an ONNX file: it has no graph", where=where, fix=_FIX)
    return model
