"""The mapping of a stream's time to CLOCK_MONOTONIC."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.clock import StreamClock, now_ns

MS = 1_000_000
S = 1000 * MS


def run(
    clock: StreamClock, seconds: float, *, ppm: float = 0.0, start: int = 0, gap: int = 0, seed: int = 0
) -> tuple[int, list[int]]:
    """Feed 10 ms blocks, 4 ms late and 2 % of them up to 80 ms more; return the worst error and the jumps."""
    rng = random.Random(seed)
    worst, jumps = 0, []
    for k in range(start, start + round(seconds * 100)):
        stream = k * 10 * MS
        sensed = round(stream * (1 + ppm * 1e-6)) + 7 * S + gap
        late = 4 * MS + rng.randrange(MS) + (rng.randrange(5 * MS, 80 * MS) if rng.random() < 0.02 else 0)
        jump = clock.observe(stream, sensed + late)
        if jump:
            jumps.append(jump)
        if k - start > 500:  # five seconds to learn
            worst = max(worst, abs(clock.to_monotonic(stream) - (sensed + 4 * MS)))
    return worst, jumps


@pytest.mark.parametrize("ppm", [0, 60, -60, 200, -200])
def test_stalls_and_drift_hardly_move_it(ppm: float) -> None:
    clock = StreamClock(floor_ns=MS)
    worst, jumps = run(clock, 120, ppm=ppm)
    assert worst < 3 * MS  # a stalled reader alone is off by up to 80 ms
    assert jumps == []
    assert worst <= clock.uncertainty_ns < 10 * MS


def test_a_gap_is_found_and_measured() -> None:
    clock = StreamClock(floor_ns=MS)
    run(clock, 20)
    worst, jumps = run(clock, 20, start=2000, gap=100 * MS)
    assert len(jumps) == 1
    assert abs(jumps[0] - 100 * MS) < 2 * MS
    assert worst < 3 * MS


def test_a_known_gap_is_taken_in_at_once() -> None:
    clock = StreamClock(floor_ns=MS)
    run(clock, 20)
    before = clock.to_monotonic(20 * S)
    clock.shift(100 * MS)
    assert clock.to_monotonic(20 * S) - before == 100 * MS
    assert run(clock, 20, start=2000, gap=100 * MS)[1] == []


def test_an_early_packet_proves_that_the_others_were_late() -> None:
    clock = StreamClock(floor_ns=MS)
    run(clock, 5, gap=200 * MS)
    assert clock.observe(5 * S, 12 * S + 4 * MS) < -190 * MS


@given(st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(0, 300 * MS)), min_size=1, max_size=200))
def test_time_never_runs_back(steps: list[tuple[int, int]]) -> None:
    clock = StreamClock(floor_ns=MS)
    stream = 0
    last = -(1 << 62)
    for advance, late in steps:
        stream += advance
        clock.observe(stream, stream + late)
        time = clock.to_monotonic(stream)
        assert time >= last
        last = time


def test_now_is_the_monotonic_clock() -> None:
    first = now_ns()
    assert 0 <= now_ns() - first < S
