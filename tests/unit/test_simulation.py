"""The simulated devices behind benchmarks/sync.py, the real clock and the real synchroniser: the properties of time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        return importlib.import_module("benchmarks.sync")


@pytest.mark.parametrize("noise", ["one-sided", "two-sided", "wandering", "PulseAudio"])
def test_sound_is_cut_at_the_frame_within_the_stated_uncertainty(benchmarks: Any, noise: str) -> None:
    run = benchmarks.simulate(benchmarks.World(7, noise, 60))
    of = benchmarks.figures(run)
    assert of["skew_p50_ms"] <= 1
    assert of["skew_p99_ms"] <= 3
    assert of["within_uncertainty"] >= 99
    assert of["uncertainty_p50_ms"] <= 3.5  # the first minute is the worst
    assert of["outputs_per_s"] >= 29.5
    assert of["wait_p99_ms"] <= 50
    assert max(run.wait_ms) <= 51
    assert run.jumps == 0


def test_a_gap_is_over_within_five_seconds_and_known_before(benchmarks: Any) -> None:
    world = benchmarks.World(3, "one-sided", 60, gaps_s=(20.2, 40.7))
    run = benchmarks.simulate(world)
    error_ms = benchmarks.clock_errors_ms(world, run.block_ns)["mmedge"]
    assert run.jumps == 2
    for gap_s in world.gaps_s:
        assert 1 < benchmarks.recovery_s(world, error_ms, gap_s, gap_s + 19) <= 5
    beyond = np.abs(run.true_skew_ms) > np.array(run.uncertainty_ms)
    assert beyond.mean() < 0.03
    assert run.silent + len(run.true_skew_ms) + run.alone == len(run.output_s)


@pytest.mark.parametrize("dead", ["audio_s", "video_s"])
def test_a_dead_input_never_lowers_the_rate(benchmarks: Any, dead: str) -> None:
    run = benchmarks.simulate(benchmarks.World(0, "one-sided", 20, **{dead: (0, 10)}))
    left = np.array(run.output_s)
    assert ((left > 10) & (left < 19)).sum() >= 9 * 29.5


def test_the_same_world_gives_the_same_bytes_whatever_the_wall_clock_says(benchmarks: Any) -> None:
    assert benchmarks.wall_clock_step(1).ours == 0
    worlds = [benchmarks.World(seed, "one-sided", 5) for seed in (1, 2)]
    assert benchmarks.simulate(worlds[0]).digest != benchmarks.simulate(worlds[1]).digest


def test_the_peers_rules_do_what_they_are_named_for(benchmarks: Any) -> None:
    pairing = benchmarks.pairing
    times = np.array([100.0, 133.0, 166.0, 200.0])
    frames = pairing.Packets(times, times, times + 35)
    ends = np.array([90.0, 165.0, 240.0])
    windows = pairing.Packets(ends, ends, ends + 10)
    assert pairing.latest(frames, windows).skew.tolist() == [-10, -43, -1, -35]
    assert pairing.nearest(frames, windows).skew.tolist() == [-10, 32, -1, -35]
    assert pairing.nearest(frames, windows).wait.tolist() == [0, 7, 0, 0]
    assert pairing.slowest(frames, windows).skew.tolist() == [-10, -1, 40]
    assert pairing.threshold(frames, windows).skew.tolist() == [-10, -1]
    assert pairing.equal(frames, windows).skew.tolist() == []


@pytest.mark.parametrize("name", ["count at nominal rate", "DLL 0.05 Hz (JACK)", "RLS 90 s (LSL)"])
def test_the_peers_clocks_are_right_where_nothing_is_wrong(benchmarks: Any, name: str) -> None:
    stream = np.arange(30_000) / 100
    placed = benchmarks.CLOCKS[name](stream, stream + 7)
    assert np.abs(placed - stream - 7).max() < 1e-6
    if not name.startswith("count"):
        drifting = benchmarks.CLOCKS[name](stream, stream * (1 + 60e-6) + 7)
        assert np.abs(drifting - stream * (1 + 60e-6) - 7)[20_000:].max() < 1e-4
