"""Weights of a large network stay in files while it is worked on, and are mapped where they are needed.

A tensor that was *left* in a file says where by a name that only this process can give, so that no network can name a
file of its own. Whoever changes such a network changes structure alone; whoever needs a value maps it.
"""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mmedge.bundle.onnx_file import Outside, weights_member
from mmedge.bundle.weights import ALIGNMENT, TYPES, Mapped
from mmedge.errors import ConfigError
from mmedge.files import scratch, user_cache
from mmedge.types import AnyArray

from ..store import DRAFT, unwritable
from .graphs import all_nodes, subgraphs

# protobuf counts the bytes of a message in 32 bits with a sign; what the message says beside its weights is left free.
MAX_BYTES = 2**31 - 1 - (1 << 20)
# A network of more bytes than this keeps weights in files that lie there, but for tensors of as many as the second:
# ONNX Runtime looks into sizes and axes before anything else.
LEFT_BYTES, INSIDE_BYTES = 1 << 28, 1 << 16
# A network of more bytes than this is written without its weights, which lie beside it.
MESSAGE_BYTES = MAX_BYTES
_MARK = secrets.token_hex(16) + ":"
_HANDED = "handed over"  # where values lie that ONNX Runtime is given
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


def may_leave(tensor: onnx.TensorProto, size: int) -> bool:
    """Tell whether an initializer of so many bytes may stay in its file."""
    return size > INSIDE_BYTES and tensor.data_type in TYPES


def leave(tensor: onnx.TensorProto, file: Path, offset: int, size: int) -> None:
    """Have a tensor say where its values lie, in place; they are in that file as ONNX writes them."""
    _say(tensor, f"{_MARK}{file}", offset, size)


def left(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the initializers whose values are in files."""
    return [tensor for tensor in model.graph.initializer if is_left(tensor)]


def is_left(tensor: onnx.TensorProto) -> bool:
    """Tell whether the values of a tensor are in a file that this process has looked at."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return False
    return any(entry.key == "location" and entry.value.startswith(_MARK) for entry in tensor.external_data)


def left_bytes(model: onnx.ModelProto) -> int:
    """Return how many bytes of a network's weights are in files."""
    return sum(_place(tensor)[2] for tensor in left(model))


def why_not(model: onnx.ModelProto, what: str) -> str | None:
    """Say why what rewrites weights, or needs one message, cannot take a network; None where it can.

    Args:
        model: The network.
        what: What was asked for: "int8".
    """
    if fits(model):
        return None
    size = left_bytes(model)
    return f"its weights have {size / 1e9:.2g} GB, and {what} needs it as one ONNX message, which holds 2 GB at most"


def fits(model: onnx.ModelProto) -> bool:
    """Tell whether one message holds a network with the weights that are in files."""
    size = left_bytes(model)
    return not size or size + model.ByteSize() <= MESSAGE_BYTES


def whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network that one message holds with all its weights: for what rewrites them."""
    if not left(model):
        return model
    copied = _copy(model)
    for tensor in left(copied):
        tensor.raw_data = value_of(tensor).tobytes()
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return copied


def value_of(tensor: onnx.TensorProto) -> AnyArray:
    """Return the values of a tensor, [its shape] in its dtype: mapped and read-only where they are in a file.

    Raises:
        ConfigError: If the file is not what it was.
    """
    if not is_left(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    path, offset, size = _place(tensor)
    dtype: Any = TYPES[tensor.data_type]
    if offset % np.dtype(dtype).itemsize:  # a file that packs numbers without gaps
        with path.open("rb") as file:
            read: AnyArray = np.fromfile(file, dtype, size // np.dtype(dtype).itemsize, offset=offset)
        shaped: AnyArray = read.reshape(tuple(tensor.dims))
        return shaped
    try:
        part = Mapped(path, offset, size)
        try:
            return part.array(Outside(tensor.name, tensor.data_type, tuple(tensor.dims), "", 0, size))
        finally:
            part.close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the weights of '{tensor.name}' cannot be read: {error}",
            where=str(path),
            fix="leave the file of weights alone while it is exported",
        ) from error


def handed(model: onnx.ModelProto) -> tuple[bytes, dict[str, AnyArray]]:
    """Return a network for ONNX Runtime: its bytes, and initializer -> values of those that are not in them.

    Arrays are [its shape] in the initializer's dtype.
    """
    if not left(model):
        return model.SerializeToString(), {}
    copied = _copy(model)
    values = {}
    for tensor in left(copied):
        values[tensor.name] = value_of(tensor)
        _say(tensor, _HANDED, 0, values[tensor.name].nbytes)
    return copied.SerializeToString(), values


def without_left(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with inputs in place of weights that are in files, for what looks at structure alone."""
    if not left(model):
        return model
    copied = _copy(model)
    given = {value.name for value in copied.graph.input}
    for index in reversed(range(len(copied.graph.initializer))):
        tensor = copied.graph.initializer[index]
        if is_left(tensor):
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            copied.graph.input.extend([value] if tensor.name not in given else [])
            del copied.graph.initializer[index]
    return copied


def write_network(model: onnx.ModelProto, file: Path) -> Path | None:
    """Write a network; weights that are in files go into one file beside it, whose name follows from its own.

    Equal networks give equal bytes.

    Args:
        model: The network.
        file: Where to.

    Returns:
        The file of weights; None where there is none.

    Raises:
        OSError: If one cannot be written.
    """
    content, parts = _written(model, file.name)
    weights = file.with_name(weights_member(file.name))
    is_there = weights.exists() and any(path.samefile(weights) for path in {part.path for part in parts})
    if is_there and not _is_made_of(weights, parts):
        raise OSError(errno.EEXIST, "its weights are read from the file that would be written anew", str(weights))
    file.write_bytes(content)
    if not parts or is_there:
        return weights if parts else None
    weights.unlink(missing_ok=True)  # what is there may have another name, in the cache
    if (source := _kept(parts)) is not None:
        link_or_copy(source, weights)
        return weights
    with weights.open("wb") as target:
        for part in parts:
            target.seek(part.at)
            with part.path.open("rb") as opened:
                opened.seek(part.offset)
                _copy_bytes(opened, target, part.size)
        target.truncate(parts[-1].at + parts[-1].size)
    return weights


class _Part(NamedTuple):
    """Where the values of a tensor lie, and where they go in the file of weights beside a network."""

    path: Path
    offset: int
    size: int
    at: int


def _written(model: onnx.ModelProto, name: str) -> tuple[bytes, list[_Part]]:
    """Return a network as it is written under a name, and what its file of weights is made of."""
    copied, parts = _copy(model) if left(model) else model, list[_Part]()
    end = 0
    for tensor in left(copied):
        part = _Part(*_place(tensor), at=end + -end % ALIGNMENT)
        parts.append(part)
        end = part.at + part.size
        _say(tensor, weights_member(name), part.at, part.size)
    return copied.SerializeToString(deterministic=True), parts


def _kept(parts: list[_Part]) -> Path | None:
    """Return the file that is what these parts make, if it is there already where nobody changes it: in the cache."""
    if not parts:
        return None
    source = parts[0].path
    return source if _is_made_of(source, parts) and source.is_relative_to(user_cache("export").resolve()) else None


def _is_made_of(file: Path, parts: list[_Part]) -> bool:
    is_same = all(path.samefile(file) for path in {part.path for part in parts})
    is_same = is_same and all(part.offset == part.at for part in parts)
    return is_same and file.stat().st_size == parts[-1].at + parts[-1].size


def spooled(model: onnx.ModelProto, name: str) -> tuple[bytes, Path | None]:
    """Return a network as a bundle has it: its bytes, and its file of weights, in the cache, where it does not fit.

    Args:
        model: The network.
        name: What it will be called.

    Raises:
        ConfigError: If the file cannot be written.
    """
    if fits(model):
        return whole(model).SerializeToString(deterministic=True), None
    content, parts = _written(model, name)
    try:
        return content, _kept(parts) or write_network(model, Path(tempfile.mkdtemp(dir=_spool()), name))
    except OSError as error:
        raise unwritable(user_cache("export"), error) from error


@lru_cache(maxsize=1)
def _spool() -> Path:
    """Return a folder for as long as this process lives; the cache's own sweep finds that of one that was killed."""
    folder = user_cache("export")
    folder.mkdir(parents=True, exist_ok=True)
    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(scratch(folder, DRAFT))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file of weights that nobody changes a second name, or copy it where that cannot be."""
    if Path(target).exists() and Path(target).samefile(source):
        return
    Path(target).unlink(missing_ok=True)  # what is there may have another name, too
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with Path(source).open("rb") as opened, Path(target).open("wb") as made:
            size = Path(source).stat().st_size
            _copy_bytes(opened, made, size)
            made.truncate(size)
        shutil.copymode(source, target)


def _copy_bytes(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy so many bytes; zeros become a hole, which takes no room on the disk."""
    while size:
        piece = source.read(min(size, _PIECE))
        if not piece:
            raise OSError("a file of weights became shorter while it was read")
        if piece == _ZEROS[: len(piece)]:
            target.seek(len(piece), os.SEEK_CUR)
        else:
            target.write(piece)
        size -= len(piece)


def _place(tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return Path(entries["location"].removeprefix(_MARK)), int(entries["offset"]), int(entries["length"])


def _say(tensor: onnx.TensorProto, location: str, offset: int, size: int) -> None:
    for field in ("raw_data", "external_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy, without weights in files that nothing reads: ONNX Runtime refuses values of what it drops."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = list(all_nodes(copied.graph))
    graphs = [copied.graph, *(inner for node in nodes for inner in subgraphs(node))]
    read = {name for node in nodes for name in node.input} | {value.name for value in copied.graph.input}
    read |= {value.name for graph in graphs for value in graph.output}
    for index in reversed(range(len(copied.graph.initializer))):
        tensor = copied.graph.initializer[index]
        if is_left(tensor) and tensor.name not in read:
            del copied.graph.initializer[index]
    return copied
