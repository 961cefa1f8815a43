"""Shapes of inputs that a network leaves open: as given, with one rule for what is not given.

The rule, wherever a network is loaded or compiled: a dimension that is a batch is 1. It is one if its name says so
(``batch``, ``batch_size``), or if it is the first of several and is called ``N`` or ``B`` or has no name of its own
(``s77`` of torch, ``unk__1``, none). An open dimension that has a
name has the size that was given to that name elsewhere; what only says that it is open (``?``) is not a name. Every
other one must be given.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from operator import index
from typing import TypeAlias

from mmedge.errors import ConfigError

Shape: TypeAlias = tuple[int, ...]
Dims: TypeAlias = Sequence["int | str | None"]  # a name or None where it is open
Range: TypeAlias = tuple[Shape, Shape, Shape]  # least, usual, most
Given: TypeAlias = Mapping[str, "Shape | Range"]

_BATCH = re.compile(r".*batch.*", re.IGNORECASE)
# A batch where it comes first: short names of one, and what exporters write where the author gave none.
_FIRST = re.compile(
    r"|\?|-1|n|b|bs|none|[sud]\d+|unk\w*|(dim|axis)_?\d+|.*(dynamic_axes|DynamicDimension|_dim|\.shape)[\W_]*\d+\]?",
    re.IGNORECASE,
)
# What exporters write where there is no name: two such dimensions have nothing in common.
_NO_NAME = re.compile(r"[\s?*.-]*|-1|none|null|unk(nown)?", re.IGNORECASE)
_MOST = 1 << 31  # of one dimension


def is_name(dim: object) -> bool:
    """Tell whether an open dimension has a name, under which another one has the same size.

    Example:
        >>> [is_name(dim) for dim in ("height", "s77", "?", "", None, 3)]
        [True, True, False, False, False, False]
    """
    return isinstance(dim, str) and _NO_NAME.fullmatch(dim) is None


def as_range(shape: Shape | Range) -> Range:
    """Return least, usual and most of a shape; all three are the same where one was given."""
    if shape and isinstance(shape[0], Sequence):
        least, usual, most = (tuple(index(d) for d in part) for part in shape if isinstance(part, Sequence))
        return least, usual, most
    fixed = tuple(index(d) for d in shape if not isinstance(d, Sequence))
    return fixed, fixed, fixed


def check_ranges(given: Given | None) -> dict[str, Range]:
    """Return input -> least, usual, most.

    Raises:
        ConfigError: If a shape is not one, or of a range the ranks differ or least <= usual <= most does not hold.

    Example:
        >>> check_ranges({"x": (1, 3)})
        {'x': ((1, 3), (1, 3), (1, 3))}
    """
    ranges: dict[str, Range] = {}
    for name, shape in (given or {}).items():
        where = f"shape of input '{name}'"
        try:
            least, usual, most = as_range(shape)
        except (TypeError, ValueError) as error:
            fix = "give (1, 3, 320, 320), or three such shapes: least, usual, most"
            raise ConfigError(f"{shape!r} is not a shape", where=where, fix=fix) from error
        if not len(least) == len(usual) == len(most) or not all(
            0 <= a <= b <= c < _MOST for a, b, c in zip(least, usual, most, strict=True)
        ):
            raise ConfigError(
                f"{shape!r} does not rise from the least to the most, dimension by dimension",
                where=where,
                fix="give the least, the usual and the most, of one rank, for example "
                "--shape x=1x3x160x160:1x3x320x320:1x3x640x640",
            )
        ranges[name] = (least, usual, most)
    return ranges


def parse_shapes(texts: Sequence[str]) -> dict[str, Shape | Range]:
    """Return input -> shape or range from ``NAME=1x3x320x320`` and ``NAME=LEAST:USUAL:MOST``.

    Raises:
        ConfigError: If a text has another form, or a name comes twice.

    Example:
        >>> parse_shapes(["x=1x3", "y=1:2:4"])
        {'x': (1, 3), 'y': ((1,), (2,), (4,))}
    """
    shapes: dict[str, Shape | Range] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = sizes.split(":")
        if not equals or not name or len(parts) not in (1, 3) or not all(re.fullmatch(r"\d+(x\d+)*", p) for p in parts):
            raise ConfigError(
                f"'{text}' is not NAME=SHAPE",
                where="--shape",
                fix="for example --shape x=1x3x320x320, or LEAST:USUAL:MOST",
            )
        if name in shapes:
            raise ConfigError(f"input '{name}' was given twice", where="--shape", fix="give one shape per input")
        found = [tuple(int(size) for size in part.split("x")) for part in parts]
        shapes[name] = found[0] if len(found) == 1 else (found[0], found[1], found[2])
    check_ranges(shapes)
    return shapes


def fix_shapes(inputs: Mapping[str, Dims], given: Mapping[str, Shape], *, where: str) -> dict[str, Shape]:
    """Return the shape of every input: its own, as given where that is open, 1 where that is a batch.

    Args:
        inputs: The network's inputs.
        given: Shapes of some of them.
        where: The network, for messages.

    Raises:
        ConfigError: Names the open dimension that was not given and the line to write, or the given shape that the
            network cannot take.

    Example:
        >>> fix_shapes({"x": ("batch", 3, "h", "w"), "mask": ("batch", "h")}, {"x": (1, 3, 8, 9)}, where="net")
        {'x': (1, 3, 8, 9), 'mask': (1, 8)}
    """
    check_names(inputs, given, where)
    named: dict[str, int | None] = {}
    for name, shape in given.items():
        dims = inputs[name]
        if len(dims) != len(shape) or any(isinstance(d, int) and d != s for d, s in zip(dims, shape, strict=True)):
            raise ConfigError(
                f"input '{name}' is {described(dims)}, it cannot be {list(shape)}",
                where=where,
                fix=f"give it a shape that fits: --shape {name}={'x'.join(_written(dims, dims))}",
            )
        for dim, size in zip(dims, shape, strict=True):
            if isinstance(dim, str) and is_name(dim) and named.setdefault(dim, size) != size:
                named[dim] = None  # two sizes under one name tell none
    fixed: dict[str, Shape] = {}
    for name, dims in inputs.items():
        if name in given:
            fixed[name] = tuple(given[name])
            continue
        sizes = [_size(place, dims, named) for place in range(len(dims))]
        if None in sizes:
            raise _open(name, dims, named, where)
        fixed[name] = tuple(size for size in sizes if size is not None)
    return fixed


def check_names(inputs: Collection[str], given: Collection[str], where: str) -> None:
    """Raise ConfigError if a shape was given for an input that the network does not have."""
    unknown = [name for name in given if name not in inputs]
    if unknown:
        raise ConfigError(f"the network has no input '{unknown[0]}'", where=where, fix=f"it has {sorted(inputs)}")


def described(dims: Dims) -> str:
    """Return dimensions for people: ``[1, 3, height, ?]``."""
    return f"[{', '.join(str(d) if isinstance(d, int) or is_name(d) else '?' for d in dims)}]"


def _size(place: int, dims: Dims, named: Mapping[str, int | None]) -> int | None:
    dim = dims[place]
    if isinstance(dim, int):
        return dim
    name = dim or ""
    if name in named:
        return named[name]
    batch = _BATCH.fullmatch(name) or (place == 0 and len(dims) > 1 and _FIRST.fullmatch(name))
    return 1 if batch else None


def _open(name: str, dims: Dims, named: Mapping[str, int | None], where: str) -> ConfigError:
    sizes = [_size(place, dims, named) for place in range(len(dims))]
    away = [
        f"{place} ('{dim}')" if is_name(dim) else str(place) for place, dim in enumerate(dims) if sizes[place] is None
    ]
    written = _written(dims, sizes)
    python = ", ".join(written) + ("," if len(written) == 1 else "")
    return ConfigError(
        f"input '{name}' is {described(dims)}: the size of dimension {', '.join(away)} is not given",
        where=where,
        fix=f'give it: --shape {name}={"x".join(written)}, in Python shapes={{"{name}": ({python})}}',
    )


def _written(dims: Dims, sizes: Sequence[int | str | None]) -> list[str]:
    """Return sizes as the user is to write them: ``<name>``, or ``<place>``, where they are not known."""
    return [
        str(s) if isinstance(s, int) else f"<{dims[place] if is_name(dims[place]) else place}>"
        for place, s in enumerate(sizes)
    ]
