"""An ONNX file inside a bundle: its weights lie inside as well, where its SHA-256 vouches for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmedge.errors import ConfigError

# Messages of onnx.proto: number of a field -> the message it holds, on every way to a tensor's `external_data`.
HOLDS = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "external_data"},
}
MARK = b"location"  # the key under which a file is named, which protobuf keeps in one piece
_MOST_FIELDS = 4_000_000  # some seconds of work
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def names_files(raw: bytes) -> bool:
    """Tell whether an ONNX file takes weights from other files; an engine would read any file of the host.

    The runtime has no onnx, and needs none: protobuf's wire format is followed along ``HOLDS``.

    Raises:
        ValueError: If that cannot be read: the file is damaged, or written as no writer of ONNX does.

    Example:
        >>> names_files(b"")
        False
    """
    return next(_external_data(raw), None) is not None


def weight_files(raw: bytes) -> tuple[str, ...]:
    """Return the locations of the files that an ONNX file takes weights from, sorted, as it writes them.

    Raises:
        ValueError: As ``names_files``.

    Example:
        >>> weight_files(b"")
        ()
    """
    locations = set()
    for entry in _external_data(raw):
        fields = dict(_texts(entry))
        if fields.get(1) == MARK:
            locations.add(fields.get(2, b"").decode("utf-8", "surrogateescape"))
    return tuple(sorted(locations))


def weight_path(network: Path, location: str, tensor: str = "") -> Path:
    """Return the file of weights that a network names: in its own folder or below, and nowhere else.

    Args:
        network: The ONNX file.
        location: As it is written there.
        tensor: Whose weights, for the message.

    Raises:
        ConfigError: If it leads out of the folder, also by a link, or there is no such file.

    Example:
        >>> weight_path(Path("net/model.onnx"), "model.onnx.data")  # doctest: +SKIP
        PosixPath('/home/ada/net/model.onnx.data')
    """
    of = f" (tensor '{tensor}')" if tensor else ""
    folder, place = network.parent, PurePosixPath(location)
    # A cache of downloads links the network and its weights from one folder of its own.
    homes = (folder.resolve(), network.resolve().parent)
    is_inside = bool(location) and "\0" not in location and not place.is_absolute() and ".." not in place.parts
    try:
        file = (folder / location).resolve() if is_inside else folder
        is_inside = is_inside and any(file.is_relative_to(home) for home in homes)
        is_there = is_inside and file.is_file()  # a FIFO would never end
    except (OSError, RuntimeError):  # a name that is too long, a link to itself
        is_there = False
    if not is_inside:
        raise ConfigError(
            f"the network takes weights from '{location}', which is outside its folder{of}",
            where=str(network),
            fix="put the weights beside the network and export it again; of a stranger's network, do not use it",
        )
    if not is_there:
        raise ConfigError(
            f"there is no file '{location}' beside the network{of}, which takes weights from it",
            where=str(network),
            fix="copy its files of weights into its folder under their own names, or export with external_data=False",
        )
    return file


def _external_data(raw: bytes) -> Iterator[memoryview]:
    """Yield each entry of a tensor's ``external_data``."""
    if MARK not in raw:
        return
    waiting = [(memoryview(raw), "ModelProto")]
    steps = 0
    while waiting:
        data, message = waiting.pop()
        at = 0
        while at < len(data):
            steps += 1
            if steps > _MOST_FIELDS:
                raise ValueError(f"it has more than {_MOST_FIELDS} fields")
            tag, after = _varint(data, at)
            # Parsers drop the upper bits of a long tag, so that it is another one: none of ONNX has three bytes.
            if after - at > 2 or tag & 7 not in (_VARINT, _EIGHT, _BYTES, _FOUR):
                raise ValueError(f"tag {tag} is not one of ONNX")
            at = after
            if tag & 7 == _VARINT:
                _, at = _varint(data, at)
            elif tag & 7 == _BYTES:
                size, at = _varint(data, at)
                held = HOLDS[message].get(tag >> 3)
                if held == "external_data":
                    yield data[at : at + size]
                elif held is not None:
                    waiting.append((data[at : at + size], held))
                at += size
            else:
                at += 8 if tag & 7 == _EIGHT else 4
        if at > len(data):
            raise ValueError("it is cut off")


def _texts(entry: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the fields of a ``StringStringEntryProto``; of one that is repeated the last counts."""
    at = 0
    while at < len(entry):
        tag, at = _varint(entry, at)
        if tag & 7 != _BYTES:
            raise ValueError(f"tag {tag} is not one of ONNX")
        size, at = _varint(entry, at)
        yield tag >> 3, bytes(entry[at : at + size])
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise ValueError("it is cut off")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a number has more than ten bytes")
