"""Rows of benchmarks: a peer that cannot do the same is not there, one that is not installed is told as missing."""

from __future__ import annotations

import pytest


def test_a_row_names_the_peers_that_apply() -> None:
    pytest.importorskip("torch")
    from benchmarks.export import INT8_PEERS, _row

    assert _row("memory", "MB", {"mmedge": 3.0}).peers == {}
    row = _row("lost", "points", {"mmedge": 0.1, "ORT MinMax": 0.3}, INT8_PEERS)
    assert row.peers["ORT MinMax"] == 0.3
    assert row.peers["modelopt max"] is None
