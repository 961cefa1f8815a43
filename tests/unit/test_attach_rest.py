"""What programs push has half of the interpreter's time at most: a flood leaves the other half to the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmedge.clients import server
from mmedge.clients.server import REST_S, Server


def rested_s(monkeypatch: pytest.MonkeyPatch, *, took_s: float, every_s: float) -> float:
    """Return for how long it rests in 1000 turns that take so long, of which one is due every so many seconds."""
    clock: Any = SimpleNamespace(now_s=100.0, rested_s=0.0)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds
        clock.rested_s += seconds

    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: clock.now_s, sleep=sleep))
    serving: Any = Server.__new__(Server)
    serving._owed_s, serving._rested_s = 0.0, clock.now_s
    for turn in range(1000):
        clock.now_s = max(clock.now_s, 100.0 + turn * every_s)
        began_s = clock.now_s
        clock.now_s += took_s
        serving._rest(began_s)
    return float(clock.rested_s)


@pytest.mark.parametrize("took_s", [0.0001, 0.001, 0.004, 0.2])
def test_a_flood_has_half_of_the_time(monkeypatch: pytest.MonkeyPatch, took_s: float) -> None:
    assert rested_s(monkeypatch, took_s=took_s, every_s=0.0) >= 1000 * took_s - 2 * REST_S


@pytest.mark.parametrize(("took_s", "every_s"), [(0.00006, 0.000125), (0.0015, 1 / 30), (0.0019, 0.01)])
def test_a_sensor_in_time_never_waits(monkeypatch: pytest.MonkeyPatch, took_s: float, every_s: float) -> None:
    assert rested_s(monkeypatch, took_s=took_s, every_s=every_s) == 0
