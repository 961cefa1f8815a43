"""An ONNX file inside a bundle: its weights lie inside as well, where its SHA-256 vouches for them.

Those of a network that one ONNX message cannot hold lie in one more member, which is the network's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
_MOST_DIMS = 64  # of an array in numpy
_MOST_TEXTS = 16  # fields of an entry, which has two
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5  # of a model, of a graph
_METADATA = 14  # of a model
_DIMS, _ELEM, _NAME, _RAW, _ENTRIES, _LOCATION = 1, 2, 8, 9, 13, 14  # of a tensor
_OUTSIDE = 1  # what `data_location` says of values in another file
_WEIGHTS = ".weights"
PAIRS_FIT = "mmedge.pairs_fit"
"""Key of a network's metadata: CPUs without VNNI may add its 8-bit products in pairs of 16 bits, which is exact."""


class Outside(NamedTuple):
    """A weight of a network whose values lie in another file.

    Attributes:
        name: Of the initializer.
        elem: Its type, as ONNX numbers them.
        dims: Its shape.
        location: The file, as it is written there.
        offset: Where its values begin, in bytes.
        length: How many bytes they take.
    """

    name: str
    elem: int
    dims: tuple[int, ...]
    location: str
    offset: int
    length: int


def weights_member(network: str) -> str:
    """Return the one member of a bundle that may hold weights of a network beside it.

    Example:
        >>> weights_member("detector.cpu.fp32.onnx")
        'detector.cpu.fp32.onnx.weights'
    """
    return network + _WEIGHTS


def is_weights(member: str) -> bool:
    """Tell whether a member of a bundle holds nothing but weights of a network."""
    return member.endswith(_WEIGHTS)


def outside_weights(raw: bytes) -> tuple[Outside, ...]:
    """Return the weights of an ONNX file that lie in other files, in their order.

    Only initializers of the outermost graph may: these an engine takes from whoever loads it, and of no other tensor
    does it look for a file.

    Raises:
        ValueError: If that cannot be read, or another tensor takes its values from a file.

    Example:
        >>> outside_weights(b"")
        ()
    """
    entries = sum(1 for _ in _external_data(raw))
    if not entries:
        return ()
    found: list[Outside] = []
    read = 0
    for graph in _held(memoryview(raw), _GRAPH):
        for tensor in _held(graph, _INITIALIZER):
            own = list(_held(tensor, _ENTRIES))
            if own:
                found.append(_outside(tensor, own))
                read += len(own)
    if read != entries:
        raise ValueError("a tensor inside of the network takes its values from another file")
    if len({weight.name for weight in found}) != len(found):
        raise ValueError("two weights have the same name")
    return tuple(found)


def pairs_fit(raw: bytes) -> bool:
    """Tell whether a network says that its 8-bit products fit into 16 bits in pairs.

    Raises:
        ValueError: If that cannot be read.

    Example:
        >>> pairs_fit(b"")
        False
    """
    notes = (dict(_texts(entry)) for entry in _held(memoryview(raw), _METADATA))
    return any(note.get(1) == PAIRS_FIT.encode() for note in notes)


def _outside(tensor: memoryview, entries: list[memoryview]) -> Outside:
    name, elem, location, dims = b"", 0, 0, list[int]()
    for number, value, held in _fields(tensor):
        if number == _DIMS:
            dims += [value] if held is None else _packed(held)
            if len(dims) > _MOST_DIMS:
                raise ValueError(f"a weight has more than {_MOST_DIMS} dimensions")
        elif number == _ELEM:
            elem = value
        elif number == _NAME and held is not None:
            name = bytes(held)
        elif number == _LOCATION:
            location = value
        elif number == _RAW:
            raise ValueError("a weight has values of its own and takes others from a file")
    texts = [dict(_texts(entry)) for entry in entries]
    said = {text.get(1, b""): text.get(2, b"") for text in texts}
    if len(said) != len(texts) or location != _OUTSIDE or not name:
        raise ValueError("a weight is written in a way in which no exporter does")
    try:
        offset, length = int(said.get(b"offset") or 0), int(said[b"length"])
        place = said[MARK].decode()
    except (KeyError, ValueError) as error:
        raise ValueError(f"a weight does not say where its values lie: {error}") from error
    return Outside(name.decode(), elem, tuple(dims), place, offset, length)


def _held(data: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the messages that a message has in one of its fields."""
    return (held for own, _, held in _fields(data) if own == number and held is not None)


def _packed(data: memoryview) -> list[int]:
    numbers, at = list[int](), 0
    while at < len(data) and len(numbers) <= _MOST_DIMS:
        value, at = _varint(data, at)
        numbers.append(value)
    return numbers


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
        for number, _, inner in _fields(data):
            steps += 1
            if steps > _MOST_FIELDS:
                raise ValueError(f"it has more than {_MOST_FIELDS} fields")
            held = HOLDS[message].get(number)
            if inner is None or held is None:
                continue
            if held == "external_data":
                yield inner
            else:
                waiting.append((inner, held))


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | None]]:
    """Yield the fields of a message: number, value of a whole number, and bytes of what has a length."""
    at = 0
    while at < len(data):
        tag, after = _varint(data, at)
        # Parsers drop the upper bits of a long tag, so that it is another one: none of ONNX has three bytes.
        if after - at > 2 or tag & 7 not in (_VARINT, _EIGHT, _BYTES, _FOUR):
            raise ValueError(f"tag {tag} is not one of ONNX")
        at, value, held = after, 0, None
        if tag & 7 == _VARINT:
            value, at = _varint(data, at)
        elif tag & 7 == _BYTES:
            size, at = _varint(data, at)
            held = data[at : at + size]
            at += size
        else:
            at += 8 if tag & 7 == _EIGHT else 4
        yield tag >> 3, value, held
    if at > len(data):
        raise ValueError("it is cut off")


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, place of the tag, begin and end of the value of each field of the message in ``data[start:end]``.

    Of a field with a length the value is what follows it.

    Raises:
        ValueError: If it cannot be read.
    """
    at = start
    while at < end:
        tag_at = at
        tag, at = _varint(data, at)
        if tag & 7 == _VARINT:
            after = _varint(data, at)[1]
        elif tag & 7 == _BYTES:
            size, at = _varint(data, at)
            after = at + size
        else:
            after = at + (8 if tag & 7 == _EIGHT else 4)
        if after > end:
            raise ValueError("it is cut off")
        yield tag >> 3, tag_at, at, after
        at = after


def _texts(entry: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the fields of a ``StringStringEntryProto``; of one that is repeated the last counts."""
    at = count = 0
    while at < len(entry):
        count += 1
        if count > _MOST_TEXTS:
            raise ValueError("it names a file in a way in which no exporter does")
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
