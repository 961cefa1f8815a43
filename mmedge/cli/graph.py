"""A graph as text: boxes in layers from top to bottom, joined by lines; as a tree where it is too wide."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from typing import Literal, TypeAlias

from rich.cells import cell_len
from rich.text import Text
from rich.tree import Tree

Key: TypeAlias = tuple[Literal["input", "stage", "task"], str]
_LOOK = {"input": ("╭─╮│╰╯", "cyan"), "stage": ("┌─┐│└┘", "green"), "task": ("╔═╗║╚╝", "magenta")}
_PLURAL = {"input": "inputs", "stage": "stages", "task": "tasks"}
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = dict(zip((3, 12, 5, 6, 7, 9, 10, 11, 13, 14, 15), "│─┘┐┤└┌├┴┬┼", strict=True))
_GAP, _NARROW = 3, 12
MAX_NODES, MAX_LINES = 100, 1000
_LONGEST = 400  # letters of a line that are shown: breaking one takes the square of its length


@dataclass(eq=False)
class _Item:
    """A box, or where a line passes a layer (no key)."""

    layer: int
    key: Key | None
    above: list[_Item] = field(default_factory=list)
    below: list[_Item] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    left: int = 0
    width: int = 1

    @property
    def port(self) -> int:
        """Column in which its line leaves."""
        return self.left + self.width // 2


class _NoRoomError(Exception):
    """The drawing is wider than the screen."""


def plain(text: str) -> str:
    """Return ``text`` with one column per character: a name must neither move the lines nor the cursor."""
    return "".join(c if c.isprintable() and cell_len(c) == 1 else "?" for c in text)


def draw(nodes: Mapping[Key, Sequence[str]], edges: Iterable[tuple[Key, Key]], width: int) -> Text | None:
    """Draw a graph.

    Args:
        nodes: Key -> lines under its name; a node comes after those that feed it.
        edges: From, to.
        width: Columns there are.

    Returns:
        The drawing, None where it does not fit or has more than ``MAX_NODES`` boxes or ``MAX_LINES`` lines in them.

    Example:
        >>> print(draw({("input", "x"): [], ("stage", "net"): ["y 1x2"]}, [(("input", "x"), ("stage", "net"))], 40))
        ╭────────────╮
        │ x          │
        ╰──────┬─────╯
               ▼
        ┌────────────┐
        │ net        │
        │ y 1x2      │
        └────────────┘
    """
    if not nodes or len(nodes) > MAX_NODES or sum(map(len, nodes.values())) > MAX_LINES:
        return None
    layers = _layered(nodes, list(dict.fromkeys(edges)))
    try:
        for layer in layers:
            _wrap(layer, nodes, width)
        _place(layers, width)
        return _Canvas(width).paint(layers)
    except _NoRoomError:
        return None


def tree(nodes: Mapping[Key, Sequence[str]], edges: Iterable[tuple[Key, Key]], title: str) -> Tree:
    """Return a graph as a tree of its nodes, each with what feeds it."""
    root, feeds = Tree(Text(plain(title))), defaultdict[Key, dict[str, None]](dict)
    for source, key in edges:
        feeds[key][plain(source[1])] = None
    for kind, heading in _PLURAL.items():
        branch = root.add(heading)
        for key, lines in nodes.items():
            if key[0] == kind:
                sources = f"  <- {', '.join(feeds[key])}" if feeds[key] else ""
                about = "; ".join(map(_short, lines)) + sources
                branch.add(Text.assemble((plain(key[1]), _LOOK[kind][1]), "  ", about))
    return root


def _short(line: str) -> str:
    """Return a line in plain letters, its end left out where it is very long."""
    return plain(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")


def _layered(nodes: Mapping[Key, Sequence[str]], edges: list[tuple[Key, Key]]) -> list[list[_Item]]:
    """Return items by depth, with a passing line in each layer that an edge skips, in an order with few crossings."""
    items: dict[Key, _Item] = {}
    highest = 0 if any(kind == "input" for kind, _ in nodes) else -1  # inputs have the first layer to themselves
    for key in nodes:
        above = [items[a].layer for a, b in edges if b == key]
        items[key] = _Item(max(above, default=-1 if key[0] == "input" else highest) + 1, key)
    layers: list[list[_Item]] = [[] for _ in range(1 + max(item.layer for item in items.values()))]
    for item in items.values():
        layers[item.layer].append(item)
    passing: dict[tuple[Key, int], _Item] = {}
    for a, b in edges:
        last = items[a]
        for depth in range(last.layer + 1, items[b].layer):
            if (a, depth) not in passing:
                passing[a, depth] = _Item(depth, None)
                layers[depth].append(passing[a, depth])
                _join(last, passing[a, depth])
            last = passing[a, depth]
        _join(last, items[b])
    for _ in range(4):
        for layer in layers[1:]:
            _sort(layer, {i: k for k, i in enumerate(layers[layer[0].layer - 1])}, up=True)
        for layer in layers[-2::-1]:
            _sort(layer, {i: k for k, i in enumerate(layers[layer[0].layer + 1])}, up=False)
    return layers


def _join(a: _Item, b: _Item) -> None:
    a.below.append(b)
    b.above.append(a)


def _sort(layer: list[_Item], index: Mapping[_Item, int], *, up: bool) -> None:
    def middle(pair: tuple[int, _Item]) -> float:
        near = [index[other] for other in (pair[1].above if up else pair[1].below)]
        return sum(near) / len(near) if near else float(pair[0])

    layer[:] = [item for _, item in sorted(enumerate(layer), key=middle)]


def _wrap(layer: list[_Item], nodes: Mapping[Key, Sequence[str]], width: int) -> None:
    """Choose the widths of a layer's boxes, the widest giving way first, and break their lines."""
    boxes = [(item, [plain(item.key[1]), *map(_short, nodes[item.key])]) for item in layer if item.key]
    least = {item: max(len(text[0]) + 4, _NARROW) for item, text in boxes}
    for item, text in boxes:
        item.width = max(max(map(len, text)) + 4, _NARROW + 2)
    while sum(item.width + _GAP for item in layer) - _GAP > width:
        widest = max((item for item, _ in boxes if item.width > least[item]), key=lambda i: i.width, default=None)
        if widest is None:
            raise _NoRoomError
        widest.width -= 1
    for item, text in boxes:
        item.lines = [part for line in text for part in textwrap.wrap(line, item.width - 4, subsequent_indent=" ")]


def _place(layers: list[list[_Item]], width: int) -> None:
    """Choose columns: each item as near the middle of its neighbours as those beside it let it."""
    for layer in layers:
        for item in layer:
            item.left = (width - item.width) // 2
    for turn in range(7):
        down = turn % 2 == 0
        for layer in layers if down else layers[::-1]:
            wish = []
            for item in layer:
                near = [other.port for other in (item.above if down else item.below)]
                near = near or [other.port for other in (item.below if down else item.above)]
                wish.append((sum(near) / len(near) if near else width / 2) - item.width // 2)
            for item, left in zip(layer, _spread(wish, [item.width for item in layer], width), strict=True):
                item.left = left
    shift = min(item.left for layer in layers for item in layer)
    for layer in layers:
        for item in layer:
            item.left -= shift
    for above, layer in pairwise(layers):
        for item in layer:
            others = {other.port for other in above if other not in item.above and other.below}
            if item.key is None:  # it may not go on where another line ends; there is room for a step aside
                item.left = next((c for c in (item.left, item.left + 1, item.left - 1) if c not in others), item.left)


def _spread(wish: Sequence[float], widths: Sequence[int], width: int) -> list[int]:
    """Return left ends nearest ``wish`` that keep the order, the distance and the screen."""
    before = [0, *accumulate(w + _GAP for w in widths)]
    blocks: list[tuple[float, int]] = []  # mean, size: neighbours that would overlap move as one
    for left, offset in zip(wish, before[:-1], strict=True):
        mean, size = left - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, n = blocks.pop()
            mean, size = (other * n + mean * size) / (n + size), n + size
        blocks.append((mean, size))
    room = width - (before[-1] - _GAP)
    means = [min(max(mean, 0.0), room) for mean, size in blocks for _ in range(size)]
    return [round(mean) + offset for mean, offset in zip(means, before, strict=False)]


class _Canvas:
    """Characters by row and column; lines know to which net they belong, so that crossings are no joints."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}
        self._lines: dict[tuple[int, int], tuple[_Item, int]] = {}

    def paint(self, layers: list[list[_Item]]) -> Text:
        """Draw boxes and lines, layer by layer."""
        row = 0
        for above, layer in zip([[], *layers], layers, strict=False):
            if above:
                row = self._nets(above, layer, row)
            height = max((len(item.lines) + 2 for item in layer if item.key), default=1)
            for item in layer:
                if item.key is not None:
                    self._box(item, item.key, row)
                if item.below:
                    self._vertical(item, item.port, row + (len(item.lines) + 2 if item.key else 0), row + height)
            row += height
        return self._text(row)

    def _box(self, item: _Item, key: Key, row: int) -> None:
        edge, colour = _LOOK[key[0]]
        inner = item.width - 2
        bottom = list(edge[1] * inner)
        if item.below:
            bottom[item.width // 2 - 1] = "┬"
        self._write(row, item.left, edge[0] + edge[1] * inner + edge[2], colour)
        for k, line in enumerate(item.lines, 1):
            self._write(row + k, item.left, f"{edge[3]} {line:<{inner - 2}} {edge[3]}", colour)
            self._write(row + k, item.left + 2, line, f"bold {colour}" if k == 1 else "")
        self._write(row + len(item.lines) + 1, item.left, edge[4] + "".join(bottom) + edge[5], colour)

    def _write(self, row: int, left: int, text: str, style: str) -> None:
        for k, c in enumerate(text):
            self._cells[row, left + k] = c, style

    def _nets(self, above: list[_Item], layer: list[_Item], row: int) -> int:
        """Join two layers; return the row of the lower one."""
        ports = _ports(above, layer)
        nets = [(item, [ports[item, other] for other in item.below]) for item in above if item.below]
        bent = [(item, ends) for item, ends in nets if set(ends) != {item.port}]
        tracks: list[list[tuple[int, int]]] = []
        track: dict[_Item, int] = {}
        # What goes right is turned later the further left it begins, what goes left the other way: fewer crossings.
        for item, ends in sorted(bent, key=lambda net: -net[0].port if max(net[1]) > net[0].port else net[0].port):
            span = min(item.port, *ends) - 1, max(item.port, *ends) + 1
            free = (k for k, used in enumerate(tracks) if all(span[1] <= a or b <= span[0] for a, b in used))
            track[item] = next(free, len(tracks))
            if track[item] == len(tracks):
                tracks.append([])
            tracks[track[item]].append(span)
        bottom = row + len(tracks)
        for item, ends in nets:
            turn = row + track[item] if item in track else row
            self._vertical(item, item.port, row, turn)
            if item in track:
                self._horizontal(item, turn, min(item.port, *ends), max(item.port, *ends), ends)
            for other, end in zip(item.below, ends, strict=True):
                self._vertical(item, end, turn + (item in track), bottom + 1)
                if other.key is not None:
                    self._cells[bottom, end] = "▼", ""
        return bottom + 1

    def _horizontal(self, net: _Item, row: int, first: int, last: int, ends: Sequence[int]) -> None:
        for column in range(first, last + 1):
            mask = (_LEFT if column > first else 0) | (_RIGHT if column < last else 0)
            mask |= (_UP if column == net.port else 0) | (_DOWN if column in ends else 0)
            self._line(net, row, column, mask)

    def _vertical(self, net: _Item, column: int, first: int, end: int) -> None:
        for row in range(first, end):
            self._line(net, row, column, _UP | _DOWN)

    def _line(self, net: _Item, row: int, column: int, mask: int) -> None:
        other, before = self._lines.get((row, column), (net, 0))
        if other is not net:  # they cross: the upright one passes over
            mask, before = _UP | _DOWN, 0
        self._lines[row, column] = net, mask | before

    def _text(self, rows: int) -> Text:
        text = Text(no_wrap=True, overflow="ignore")
        for row in range(rows):
            columns = [c for r, c in (*self._cells, *self._lines) if r == row]
            cells = []
            for column in range(max(columns) + 1):
                line = self._lines.get((row, column))
                default = (_LINES[line[1]], "dim") if line is not None else (" ", "")
                cells.append(self._cells.get((row, column), default))
            for style, run in groupby(cells, key=itemgetter(1)):
                text.append("".join(c for c, _ in run), style)
            if row < rows - 1:
                text.append("\n")
        return text


def _ports(above: list[_Item], layer: list[_Item]) -> dict[tuple[_Item, _Item], int]:
    """Return (from, to) -> the column in which a line arrives, never under the end of another one."""
    ports: dict[tuple[_Item, _Item], int] = {}
    for item in layer:
        taken: set[int] = set()
        columns = range(item.left + 1, item.left + item.width - 1) if item.key else range(item.left, item.left + 1)
        for source in sorted(item.above, key=lambda other: (other.port not in columns, other.port)):
            others = {other.port for other in above if other is not source and other.below}
            free = [c for c in columns if c not in others and not taken & {c - 1, c, c + 1}]
            if not free:
                raise _NoRoomError
            ports[source, item] = min(free, key=lambda c: abs(c - source.port))
            taken.add(ports[source, item])
    return ports
