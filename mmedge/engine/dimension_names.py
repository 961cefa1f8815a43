"""Names of open dimensions that say nothing, taken from an ONNX file: TensorRT takes dimensions of one name for equal.

The runtime has no onnx, and TensorRT lets nobody rename a dimension once it has parsed the file. So one byte is changed
for each: a dimension's ``dim_param`` (field 2) becomes its ``denotation`` (field 3), which has the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mmedge.bundle.onnx_file import fields
from mmedge.engine.shapes import Range, is_name

_GRAPH = 7  # of a model
_INPUT, _OUTPUT, _INNER = 11, 12, 13  # of a graph
_NAME, _TYPE = 1, 2  # of a value
_TENSOR, _SHAPE, _DIM, _PARAM = 1, 2, 1, 2  # of its type, in each other
_DENOTATION_TAG = 3 << 3 | 2


class _Named(NamedTuple):
    is_input: bool
    value: str
    axis: int
    name: str
    at: int  # of the tag of its name


def without_false_names(onnx: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Return a network whose open dimensions have a name only where those of one name can be equal.

    Args:
        onnx: The serialised network.
        ranges: Input -> least, usual and most shape, as far as they were given.

    Returns:
        It; the bytes as they are where nothing is to be done, or where they cannot be read, which a parser says better.
    """
    try:
        found = list(_named(onnx))
    except ValueError:
        return onnx
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for dim in found:
        if dim.is_input and dim.value in ranges and dim.axis < len(ranges[dim.value][0]):
            sizes.setdefault(dim.name, set()).add(tuple(shape[dim.axis] for shape in ranges[dim.value]))
    places = [dim.at for dim in found if not is_name(dim.name) or len(sizes.get(dim.name, ())) > 1]
    if not places:
        return onnx
    changed = bytearray(onnx)
    for place in places:
        changed[place] = _DENOTATION_TAG
    return bytes(changed)


def input_names(onnx: bytes) -> dict[tuple[str, int], str]:
    """Return (input, axis) -> the name of that dimension, of those that have one.

    Raises:
        ValueError: If the network cannot be read.

    Example:
        >>> input_names(b"")
        {}
    """
    return {(dim.value, dim.axis): dim.name for dim in _named(onnx) if dim.is_input}


def _named(onnx: bytes) -> Iterator[_Named]:
    data = memoryview(onnx)
    for graph in _parts(data, (0, len(data)), _GRAPH):
        for number, _, start, end in fields(data, *graph):
            if number not in (_INPUT, _OUTPUT, _INNER):
                continue
            value = start, end
            name = next((bytes(data[a:b]) for a, b in _parts(data, value, _NAME)), b"").decode(errors="replace")
            shapes = (
                shape
                for kind in _parts(data, value, _TYPE)
                for tensor in _parts(data, kind, _TENSOR)
                for shape in _parts(data, tensor, _SHAPE)
            )
            dims = [dim for shape in shapes for dim in _parts(data, shape, _DIM)]
            for axis, dim in enumerate(dims):
                for field, at, first, last in fields(data, *dim):
                    if field == _PARAM:
                        said = bytes(data[first:last]).decode(errors="replace")
                        yield _Named(number == _INPUT, name, axis, said, at)


def _parts(data: memoryview, within: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    for number, _, start, end in fields(data, *within):
        if number == wanted:
            yield start, end
