"""Pictures of what ``benchmarks/sync.py`` measures: ``python -m benchmarks.pictures docs/time``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulation import ORIGIN_NS, World, simulate
from benchmarks.sync import CLOCKS, RULES, SECOND, clock_errors_ms, gap_world, pair_peers

OURS, PEERS = "#0b6e4f", ("#8f8f8f", "#d9772b", "#5b76b8", "#a05195")
CLOCK_COLOURS = dict(zip(CLOCKS, PEERS, strict=True))
RULE_COLOURS = dict(zip(RULES, PEERS, strict=False))
SIZE = (7.6, 3.5)


def draw(folder: Path) -> None:
    """Simulate and write ``drift.png``, ``skew.png`` and ``recovery.png`` (under ``folder``)."""
    import matplotlib.pyplot as plt  # pip install 'mmedge[docs]': what the figures need is without it

    plt.switch_backend("Agg")
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 120})
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
        minutes = np.percentile(np.abs(error).reshape(-1, 20 * SECOND), 99, axis=1)
        ours = name == "mmedge"
        colour = OURS if ours else CLOCK_COLOURS[name]
        axes.plot((np.arange(len(minutes)) + 0.5) / 3, minutes, color=colour, linewidth=2 if ours else 1.3)
        at = {"DLL 0.05 Hz (JACK)": 1.25, "RLS 90 s (LSL)": 0.8}.get(name, 1.0) * np.median(minutes[-9:])
        axes.text(60.7, at, name, color=colour, va="center", weight="bold" if ours else "normal")
    axes.set(yscale="log", xlim=(0, 60), ylim=(3e-4, 1e3), xlabel="minutes", ylabel="error of a block's time, ms")
    axes.set_title("A microphone 60 ppm slow, with stalls: the error that 1 % of the blocks exceed", loc="left")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", color="#e6e6e6")
    _finish(plt, figure, path)


def _skew(plt: Any, skews_ms: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=SIZE)
    for name, skew in reversed(skews_ms.items()):
        ordered = np.sort(skew)[:: max(1, len(skew) // 2000)]
        ours = name == "mmedge"
        label = f"{name}: {len(skew) / 3600:.2g} results/s"
        axes.plot(
            np.maximum(ordered, 1e-3),
            np.linspace(0, 100, len(ordered)),
            color=OURS if ours else RULE_COLOURS[name],
            linewidth=2 if ours else 1.5,
            label=label,
        )
    axes.set(xscale="log", xlim=(1e-3, 1e3), ylim=(0, 100), ylabel="% of results")
    axes.set_xlabel("true difference between the end of the sound and the frame, ms")
    axes.set_title("How far apart sound and picture of one result really are", loc="left")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#e6e6e6")
    axes.legend(frameon=False, loc=(0.17, 0.45))
    _finish(plt, figure, path)


def _recovery(plt: Any, world: World, path: Path) -> None:
    run = simulate(world)
    errors_ms = clock_errors_ms(world, run.block_ns)
    (gap_s,) = world.gaps_s
    first, last = round((gap_s - 3) * SECOND), round((gap_s + 20) * SECOND)
    true_s = (world.audio().true_ns[first:last] - ORIGIN_NS) / 1e9 - gap_s
    figure, axes = plt.subplots(figsize=SIZE)
    for name in ("count at nominal rate", "RLS 90 s (LSL)", "DLL 0.05 Hz (JACK)"):
        axes.plot(true_s, errors_ms[name][first:last], color=CLOCK_COLOURS[name], linewidth=1.5, label=name)
    ours, stated = errors_ms["mmedge"][first:last], np.array(run.block_u_ms[first:last])
    axes.fill_between(true_s, ours - stated, ours + stated, color=OURS, alpha=0.15, linewidth=0)
    axes.plot(true_s, ours, color=OURS, linewidth=2, label="mmedge, with the uncertainty it states")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set(xlim=(-3, 20), ylim=(-230, 60), ylabel="error of a block's time, ms")
    axes.set_xlabel("seconds since the device lost 100 ms without a word")
    axes.set_title("An unreported gap: how long stamps are wrong", loc="left")
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(frameon=False, loc="lower right")
    _finish(plt, figure, path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
