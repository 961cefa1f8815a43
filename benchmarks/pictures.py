"""Pictures of what ``benchmarks/sync.py`` measures, for docs/time.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulation import ORIGIN_NS, World, simulate
from benchmarks.sync import RULES, SECOND, clock_errors_ms, gap_world, pair_peers
from mmedge.extras import require

OURS, GREYS = "#0b6e4f", ("#b8b8b8", "#8f8f8f", "#666666", "#3d3d3d", "#000000")
PEER_COLOURS = {
    "callback time": "#c9c9c9",
    "count at nominal rate": "#e08e45",
    "DLL 0.05 Hz (JACK)": "#7a8fc4",
    "RLS 90 s (LSL)": "#a05195",
}
SIZE = (7.2, 3.6)


def draw(folder: Path) -> None:
    """Simulate and write ``drift.png``, ``skew.png`` and ``recovery.png`` (under ``folder``)."""
    plt = require("matplotlib.pyplot", "drawing pictures")
    plt.switch_backend("Agg")
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 130})
    folder.mkdir(parents=True, exist_ok=True)
    world = World(0, "one-sided", 3600)
    run = simulate(world)
    _drift(plt, clock_errors_ms(world, run.block_ns), folder / "drift.png")
    skews = {name: np.abs(pairs.skew) for name, pairs in pair_peers(world, run).items() if len(pairs.skew)}
    _skew(plt, {"mmedge": np.abs(run.true_skew_ms), **skews}, folder / "skew.png")
    gap = gap_world(0)
    _recovery(plt, gap, folder / "recovery.png")


def _finish(plt: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _drift(plt: Any, errors_ms: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=SIZE)
    for name, error in sorted(errors_ms.items(), key=lambda item: item[0] == "mmedge"):
        seconds = np.abs(error[: len(error) // SECOND * SECOND]).reshape(-1, 10 * SECOND)
        ours = name == "mmedge"
        axes.plot(
            np.arange(len(seconds)) / 6,
            np.percentile(seconds, 99, axis=1),
            color=OURS if ours else PEER_COLOURS[name],
            linewidth=2 if ours else 1,
            label=name,
        )
    axes.set(yscale="log", xlim=(0, 60), ylim=(1e-3, 1e3), xlabel="minutes", ylabel="error of a block's time, ms")
    axes.set_title("Microphone 60 ppm slow, 2 % stalls of 5 to 80 ms: error (99 % in each 10 s)", loc="left")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(ncols=3, frameon=False, loc="lower right")
    _finish(plt, figure, path)


def _skew(plt: Any, skews_ms: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=SIZE)
    colours = dict(zip(RULES, ("#c9c9c9", "#e08e45", "#7a8fc4", "#a05195"), strict=False))
    for name, skew in reversed(skews_ms.items()):
        ordered = np.sort(skew)[:: max(1, len(skew) // 2000)]
        ours = name == "mmedge"
        label = f"{name}: {len(skew) / 3600:.3g} results/s"
        axes.plot(
            np.maximum(ordered, 1e-3),
            np.linspace(0, 100, len(ordered)),
            color=OURS if ours else colours[name],
            linewidth=2 if ours else 1.5,
            label=label,
        )
    axes.set(xscale="log", xlim=(1e-3, 1e3), ylim=(0, 100), ylabel="% of results")
    axes.set_xlabel("true difference between the end of the sound and the frame, ms")
    axes.set_title("How far apart sound and picture of one result really are", loc="left")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#e6e6e6")
    axes.legend(frameon=False, loc="lower right")
    _finish(plt, figure, path)


def _recovery(plt: Any, world: World, path: Path) -> None:
    run = simulate(world)
    errors_ms = clock_errors_ms(world, run.block_ns)
    (gap_s,) = world.gaps_s
    first, last = round((gap_s - 3) * SECOND), round((gap_s + 20) * SECOND)
    true_s = (world.audio().true_ns[first:last] - ORIGIN_NS) / 1e9 - gap_s
    figure, axes = plt.subplots(figsize=SIZE)
    for name in ("count at nominal rate", "RLS 90 s (LSL)", "DLL 0.05 Hz (JACK)"):
        axes.plot(true_s, errors_ms[name][first:last], color=PEER_COLOURS[name], linewidth=1.5, label=name)
    ours, stated = errors_ms["mmedge"][first:last], np.array(run.block_u_ms[first:last])
    axes.fill_between(true_s, ours - stated, ours + stated, color=OURS, alpha=0.15, linewidth=0)
    axes.plot(true_s, ours, color=OURS, linewidth=2, label="mmedge, with the uncertainty it states")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set(xlim=(-3, 20), ylim=(-160, 60), ylabel="error of a block's time, ms")
    axes.set_xlabel("seconds since the device lost 100 ms without a word")
    axes.set_title("An unreported gap: how long stamps are wrong", loc="left")
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(frameon=False, loc="lower right")
    _finish(plt, figure, path)
