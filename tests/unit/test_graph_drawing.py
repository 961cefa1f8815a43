"""The drawn graph: followed line by line it is the graph that was given, whatever its shape."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle import load
from mmedge.cli import inspect, output
from mmedge.cli import run as cli
from mmedge.cli.graph import Key, draw, plain, tree
from tests.tiny import manifest, members, tiny_bundle

UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)
OPENS = {
    "│": (UP, DOWN),
    "─": (LEFT, RIGHT),
    "┘": (UP, LEFT),
    "┐": (DOWN, LEFT),
    "┤": (UP, DOWN, LEFT),
    "└": (UP, RIGHT),
    "┌": (DOWN, RIGHT),
    "├": (UP, DOWN, RIGHT),
    "┴": (UP, LEFT, RIGHT),
    "┬": (DOWN, LEFT, RIGHT),
    "┼": (UP, DOWN, LEFT, RIGHT),
}
Place = tuple[int, int]


def boxes(rows: list[str]) -> dict[str, tuple[Place, Place]]:
    """Return first line -> corners of every box."""
    found = {}
    for r, row in enumerate(rows):
        for c, mark in enumerate(row):
            if mark in "╭╔" or (mark == "┌" and rows[r + 1][c : c + 2] == "│ " and rows[r][c + 1] == "─"):
                right = next((k for k in range(c + 1, len(row)) if row[k] in "╮╗┐"), None)
                side = {"╭": "╰", "╔": "╚", "┌": "└"}[mark]
                bottom = next((k for k in range(r + 1, len(rows)) if rows[k][c : c + 1] == side), None)
                if right is None or bottom is None or rows[r + 1][right : right + 1] not in ("│", "║"):
                    continue
                name = rows[r + 1][c + 2 : right - 1].strip()
                if name.startswith("n") and name not in found:
                    found[name] = ((r, c), (bottom, right))
    return found


def joined(drawing: str) -> set[tuple[str, str]]:
    """Follow every line from the boxes' lower edges to the arrows."""
    width = max(map(len, drawing.splitlines()))
    rows = [line.ljust(width) for line in drawing.splitlines()]
    places = boxes(rows)
    tops = {(top[0], c): name for name, (top, end) in places.items() for c in range(top[1], end[1] + 1)}
    edges = set()
    for name, (top, end) in places.items():
        starts = [c for c in range(top[1] + 1, end[1]) if rows[end[0]][c] == "┬"]
        seen: set[tuple[Place, Place]] = set()
        todo: list[tuple[Place, Place]] = [((end[0] + 1, c), DOWN) for c in starts]
        while todo:
            step = todo.pop()
            if step in seen:
                continue
            seen.add(step)
            (r, c), way = step
            mark = rows[r][c]
            if mark == "▼":
                edges.add((name, tops[r + 1, c]))
            elif mark == "│" and way in (LEFT, RIGHT):
                todo.append(((r, c + way[1]), way))  # it passes over
            else:
                back = (-way[0], -way[1])
                assert back in OPENS[mark], (mark, way, drawing)
                todo += [((r + a, c + b), (a, b)) for a, b in OPENS[mark] if (a, b) != back]
    return edges


@st.composite
def graphs(data: st.DrawFn) -> tuple[dict[Key, list[str]], list[tuple[Key, Key]]]:
    inputs = [("input", f"n{k}") for k in range(data(st.integers(1, 3)))]
    nodes: list[Key] = list(inputs)  # type: ignore[arg-type]
    edges: list[tuple[Key, Key]] = []
    for k in range(data(st.integers(1, 6))):
        stage: Key = ("stage", f"n{10 + k}")
        feeds = data(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        edges += [(source, stage) for source in feeds]
        nodes.append(stage)
    for k in range(data(st.integers(1, 3))):
        task: Key = ("task", f"n{20 + k}")
        edges.append((data(st.sampled_from([n for n in nodes if n[0] == "stage"])), task))
        nodes.append(task)
    lines = {key: data(st.lists(st.sampled_from(["when new", "-> embedding 1x64", "x"]), max_size=3)) for key in nodes}
    return lines, edges


@given(graphs(), st.integers(40, 120))
@settings(max_examples=200, deadline=None)
def test_the_drawing_is_the_graph(graph: tuple[dict[Key, list[str]], list[tuple[Key, Key]]], width: int) -> None:
    nodes, edges = graph
    drawing = draw(nodes, edges, width)
    if drawing is None:
        assert width < 100
        return
    shown = drawing.plain
    assert max(map(len, shown.splitlines())) <= width
    assert joined(shown) == {(a[1], b[1]) for a, b in edges}


def test_a_chain_is_straight() -> None:
    nodes: dict[Key, list[str]] = {("input", "n0"): [], ("stage", "n1"): [], ("task", "n2"): []}
    drawing = draw(nodes, [(("input", "n0"), ("stage", "n1")), (("stage", "n1"), ("task", "n2"))], 80)
    assert drawing is not None
    assert {line.index("▼") for line in drawing.plain.splitlines() if "▼" in line} == {7}


def test_a_name_moves_neither_lines_nor_the_cursor() -> None:
    assert plain("a\x1b[31m\n漢b") == "a?[31m??b"
    drawing = draw({("input", "\x1b]0;evil\x07漢"): ["\x9b5m"]}, [], 60)
    assert drawing is not None
    assert len({len(line) for line in drawing.plain.splitlines()}) == 1
    assert not {"\x1b", "\x07", "\x9b"} & set(drawing.plain)


def test_a_stage_without_inputs_is_drawn() -> None:
    nodes: dict[Key, list[str]] = {("stage", "n0"): [], ("task", "n1"): []}
    drawing = draw(nodes, [(("stage", "n0"), ("task", "n1"))], 60)
    assert drawing is not None
    assert joined(drawing.plain) == {("n0", "n1")}
    assert draw({}, [], 60) is None


def test_what_is_very_long_is_cut_and_what_is_too_much_is_no_drawing() -> None:
    began_s = time.process_time()
    key: Key = ("stage", "n0")
    line = f"calls {'x' * 800_000}"
    drawing = draw({key: [line]}, [], 60)
    assert drawing is not None
    assert len(drawing.plain.splitlines()) < 20
    assert " ..." in drawing.plain
    assert draw({key: ["y"] * 100_000}, [], 60) is None
    assert "xxx ..." in tree({key: [line]}, [], "").children[1].children[0].label.plain  # type: ignore[union-attr]
    assert time.process_time() - began_s < 5


NAME = "s [b]x[/b] :smile:"


def test_names_from_outside_are_shown_as_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = manifest(members())
    stages, variants = dict(document["stages"]), [dict(variant) for variant in document["variants"]]
    stages[NAME] = stages.pop("eye")
    stages["join"] = {**stages["join"], "inputs": {**stages["join"]["inputs"], "bright": f"{NAME}.y"}}
    variants[0]["stage"] = NAME
    masks = [{"present": ["image"], "metric": NAME, "value": 1.0}]
    path = tiny_bundle(tmp_path / "odd.mmedge", stages=stages, variants=variants, validated_masks=masks)
    for command in ("inspect", "verify"):
        assert cli([command, str(path)]) == 0
        shown = capfd.readouterr().out
        assert "\x1b" not in shown
        assert NAME in shown


def test_the_next_step_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_bundle(tmp_path / "my [b] bundle.mmedge")
    monkeypatch.setattr(type(inspect.out), "is_terminal", True)
    monkeypatch.setattr(output.err, "_width", 500)
    for command, after in (("inspect", "verify"), ("verify", "compile")):
        assert cli([command, str(path)]) == 0
        assert f"mmedge {after} '{path}'" in capfd.readouterr().err


def test_a_screen_that_is_too_narrow_gets_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_bundle(tmp_path / "tiny.mmedge")
    with load(path) as bundle:
        nodes, edges = inspect.nodes_of(bundle), inspect.edges_of(bundle.manifest)
    assert draw(nodes, edges, 24) is None
    wide = draw(nodes, edges, 34)
    assert wide is not None
    assert max(map(len, wide.plain.splitlines())) <= 34
    monkeypatch.setattr(inspect.out, "width", 24)
    assert cli(["inspect", str(path)]) == 0
    shown = capfd.readouterr().out
    assert "├── stages" in shown
    assert "╭" not in shown
