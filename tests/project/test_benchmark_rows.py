"""Rows of benchmarks: a peer that cannot do the same is not there, one that is not installed is told as missing."""

from __future__ import annotations

import re

import pytest

from benchmarks.__main__ import kept, page_of
from benchmarks.goals import summed_up
from benchmarks.harness import cells
from benchmarks.limits import good_side
from benchmarks.readme import PAGE, README, performance, written


def test_a_row_names_the_peers_that_apply() -> None:
    pytest.importorskip("torch")
    from benchmarks.export import INT8_PEERS, _row

    assert _row("memory", "MB", {"mmedge": 3.0}).peers == {}
    row = _row("lost", "points", {"mmedge": 0.1, "ORT MinMax": 0.3}, INT8_PEERS)
    assert row.peers["ORT MinMax"] == 0.3
    assert row.peers["modelopt max"] is None


def test_a_row_tells_how_often_it_was_measured_and_the_spread() -> None:
    row = summed_up("a wait", "ms", [1.0, 2.0, 3.0, 4.0, 5.0], {"bare": [4.0] * 5}, beside={"no wait": [1.0] * 5})
    assert cells(row) == ("5", "3.00 ms (1.50..4.50)", "bare: 4.00 ms", "1.33", "no wait: 1.00 ms")
    assert cells(summed_up("a share", "", [0.5], {"bare": [0.25]}, is_share=True))[:4] == (
        "1",
        "0.50 ",
        "bare: 0.25 ",
        "",
    )


def test_every_figure_of_the_page_says_which_side_is_good_and_only_others_are_peers() -> None:
    page = PAGE.read_text()
    figures = re.findall(r"^`(\w+)` = \S+(.*)$", page, re.M)
    assert len(figures) > 50
    for name, told in figures:
        assert re.fullmatch(r" \((target [<>]= \S+|lower is better|higher is better)\)(  )?", told), name
        assert good_side(name)
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    assert all(len(row) == 6 for row in rows)
    peers = {peer.rsplit(":", 1)[0].strip() for row in rows for peer in row[3].split("<br>")} - {"peers"}
    own = re.compile(r"ours|floor|without|a seat|copying|mmedge")
    assert not [peer for peer in peers if own.search(peer)]


def test_the_table_of_the_readme_is_that_of_the_page() -> None:
    readme, page = README.read_text(), PAGE.read_text()
    assert written(readme, page) == readme
    assert performance(page).count("\n") > 3
    changed = page.replace("`runtime_share_vga` = ", "`runtime_share_vga` = 9")
    assert written(readme, changed) != readme


def test_figures_of_the_readme_are_measured() -> None:
    page = "## x\n\ncores: 2; evidence: simulated\n\n`replay_x` = 24.50 (target >= 25)  \n`other` = 1.00\n"
    assert performance(page).splitlines()[2:] == ["| replay, times real time | 24.50 | >= 25 | `simulated` |"]


def test_what_is_measured_alone_leaves_the_rest_of_the_page() -> None:
    page = PAGE.read_text()
    sections = kept(PAGE)
    assert page_of(sections).split() == page.split()
    changed = page_of(sections | {"sync": "## sync\n\nMeasured anew."})
    assert "Measured anew." in changed
    assert [line for line in changed.splitlines() if line.startswith("## ")] == [f"## {name}" for name in sections]
