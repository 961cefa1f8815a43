"""Time: how well sound is cut at a frame's capture time, beside other rules and other clocks, in a simulated hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from benchmarks.partners import clocks, pairing
from benchmarks.simulation import (
    AUDIO_LATENCY_NS,
    AUDIO_PPM,
    AUDIO_SPEC,
    BLOCK,
    FPS,
    MS,
    NOISES,
    ORIGIN_NS,
    RATE_HZ,
    STALL_MS,
    STALLS,
    SYNC_SPEC,
    VIDEO_PPM,
    Noise,
    Run,
    S,
    World,
    simulate,
)

Values = npt.NDArray[np.float64]
HOP = RATE_HZ * 240 // 1000 // BLOCK  # blocks
RULES: dict[str, Callable[[pairing.Packets, pairing.Packets], pairing.Pairs]] = {
    "NNStreamer refresh": pairing.latest,
    "nearest window, waiting": pairing.nearest,
    "NNStreamer slowest": pairing.slowest,
    "DepthAI Sync, 10 ms": pairing.threshold,
    "MediaPipe, equal times": pairing.equal,
}
CLOCKS: dict[str, Callable[[Values, Values], Values]] = {
    "callback time": clocks.arrival,
    "count at nominal rate": clocks.count,
    "DLL 0.05 Hz (JACK)": clocks.dll,
    "RLS 90 s (LSL)": clocks.rls,
}
GAP_EVERY_S = 60.37
RECOVERED_MS = 5.0
SECOND = RATE_HZ // BLOCK  # blocks


def pair_peers(world: World, run: Run) -> dict[str, pairing.Pairs]:
    """Let every rule pair the packets of a world, with the capture times that our clocks gave them."""
    audio, video = world.audio(), world.video()
    frames = pairing.Packets(np.array(run.frame_ns) / MS, video.true_ns / MS, video.arrive_ns / MS)
    ends = slice(AUDIO_SPEC.samples // BLOCK - 1, None, HOP)
    windows = pairing.Packets(np.array(run.block_ns)[ends] / MS, audio.true_ns[ends] / MS, audio.arrive_ns[ends] / MS)
    return {name: rule(frames, windows) for name, rule in RULES.items()}


def clock_errors_ms(world: World, block_ns: list[int]) -> dict[str, Values]:
    """Return the error of every block's capture time, by clock; the constant latency is known to all."""
    audio = world.audio()
    stream, arrive = audio.stream_ns / S, (audio.arrive_ns - ORIGIN_NS - AUDIO_LATENCY_NS) / S
    true = (audio.true_ns - ORIGIN_NS) / S
    errors = {name: (clock(stream, arrive) - true) * 1000 for name, clock in CLOCKS.items()}
    return {"mmedge": (np.array(block_ns) - audio.true_ns) / MS, **errors}


def recovery_s(world: World, error_ms: Values, from_s: float, to_s: float) -> float:
    """Return how long after ``from_s`` the error of a block's time is beyond 5 ms for the last time before ``to_s``."""
    true_s = (world.audio().true_ns - ORIGIN_NS) / S
    bad = np.flatnonzero((np.abs(error_ms) > RECOVERED_MS) & (true_s >= from_s) & (true_s < to_s))
    return float(true_s[bad[-1]]) - from_s if len(bad) else 0.0


def figures(run: Run) -> dict[str, float]:
    """Return the figures of one run by the names of their targets."""
    skew, uncertainty = np.abs(run.true_skew_ms), np.array(run.uncertainty_ms)
    return {
        "skew_p50_ms": float(np.median(skew)),
        "skew_p99_ms": float(np.percentile(skew, 99)),
        "within_uncertainty": 100 * float(np.mean(skew <= uncertainty)),
        "uncertainty_p50_ms": float(np.median(uncertainty)),
        "outputs_per_s": run.outputs_per_s,
        "wait_p99_ms": float(np.percentile(run.wait_ms, 99)),
    }


LOW_IS_BAD = {"within_uncertainty", "outputs_per_s"}


def worst(name: str, values: Iterable[float]) -> float:
    return min(values) if name in LOW_IS_BAD else max(values)


def row(
    what: str, unit: str, ours: float, peers: Mapping[str, float | None] | None = None, *, ratio: bool = True
) -> Row:
    given = [value for value in (peers or {}).values() if value is not None]
    best = min(given) / ours if ratio and given and ours > 0 else None
    return Row(what=what, unit=unit, ours=ours, peers=dict(peers or {}), ratio=best)


def hour(noise: Noise, seeds: range, duration_s: float) -> tuple[list[Row], list[dict[str, float]]]:
    """Run one kind of noise; return its rows (worst seed of each candidate) and the figures of each seed."""
    ours: list[dict[str, float]] = []
    skew99: dict[str, list[float]] = {name: [] for name in RULES}
    skew50, rate, waits = ({name: list[float]() for name in RULES} for _ in range(3))
    error50, error99 = ({name: list[float]() for name in ("mmedge", *CLOCKS)} for _ in range(2))
    for seed in seeds:
        world = World(seed, noise, duration_s)
        run = simulate(world)
        ours.append(figures(run))
        for name, pairs in pair_peers(world, run).items():
            rate[name].append(len(pairs.skew) / duration_s)
            if len(pairs.skew) > 100:
                skew50[name].append(float(np.median(np.abs(pairs.skew))))
                skew99[name].append(float(np.percentile(np.abs(pairs.skew), 99)))
                waits[name].append(float(np.percentile(pairs.wait, 99)))
        for name, error in clock_errors_ms(world, run.block_ns).items():
            error50[name].append(float(np.median(np.abs(error))))
            error99[name].append(float(np.percentile(np.abs(error), 99)))
    of = {name: worst(name, (seed[name] for seed in ours)) for name in ours[0]}

    def peers(values: dict[str, list[float]]) -> dict[str, float | None]:
        return {name: max(found) for name, found in values.items() if found and name != "mmedge"}

    # The rules hardly notice the noise: once is enough.
    rules: Callable[[dict[str, list[float]]], dict[str, float | None]] = peers if noise == NOISES[0] else lambda _: {}
    rows = [
        row(f"{noise}: true skew p50", "ms", of["skew_p50_ms"], rules(skew50)),
        row(f"{noise}: true skew p99", "ms", of["skew_p99_ms"], rules(skew99)),
        row(f"{noise}: fused results", "/s", of["outputs_per_s"], rules(rate), ratio=False),
        row(f"{noise}: added wait p99", "ms", of["wait_p99_ms"], rules(waits), ratio=False),
        row(f"{noise}: skew within the stated uncertainty", "%", of["within_uncertainty"]),
        row(f"{noise}: stated uncertainty p50", "ms", of["uncertainty_p50_ms"]),
        row(f"{noise}: error of a block's time p50", "ms", max(error50["mmedge"]), peers(error50)),
        row(f"{noise}: error of a block's time p99", "ms", max(error99["mmedge"]), peers(error99)),
    ]
    return rows, ours


def gap_world(seed: int) -> World:
    return World(seed, "calm", 1200, gaps_s=(300.37 + 0.29 * seed,))


def gaps(seeds: range, duration_s: float) -> tuple[Row, float]:
    """Return the row of one gap beside the other clocks, and the worst recovery of ours over many gaps."""
    strict: list[float] = []
    # The time of the callback knows no past, so a gap means nothing to it.
    took: dict[str, list[float]] = {name: [] for name in ("mmedge", *CLOCKS) if name != "callback time"}
    for seed in seeds:
        world = gap_world(seed)
        errors = clock_errors_ms(world, simulate(world).block_ns)
        for name, found in took.items():
            found.append(recovery_s(world, errors[name], world.gaps_s[0], world.duration_s))
        many = tuple(np.arange(GAP_EVERY_S, duration_s - GAP_EVERY_S, GAP_EVERY_S).tolist())
        world = World(seed, "one-sided", duration_s, gaps_s=many)
        error = clock_errors_ms(world, simulate(world).block_ns)["mmedge"]
        strict += [recovery_s(world, error, gap, gap + GAP_EVERY_S) for gap in many]
    what = "unreported gap of 100 ms, no stalls: until the error stays < 5 ms (900 s: never)"
    longest = {name: max(found) for name, found in took.items()}
    return row(what, "s", longest.pop("mmedge"), longest), max(strict)


def dead_inputs(seed: int) -> list[Row]:
    """Return the rates of results after one of the inputs has died."""
    rows = []
    for name, world in (
        ("microphone", World(seed, "one-sided", 60, audio_s=(0, 20))),
        ("camera", World(seed, "one-sided", 60, video_s=(0, 20))),
    ):
        left = np.array(simulate(world).output_s)
        rows.append(row(f"results after the {name} has died", "/s", float(((left >= 20) & (left < 59)).sum() / 39)))
    return rows


def wall_clock_step(seed: int) -> Row:
    """Return how many bytes of the outcome change when the wall clock is set back by a day in mid-run."""
    world = World(seed, "one-sided", 30)
    before = simulate(world).digest
    with patch("time.time", lambda: 0.0), patch("time.time_ns", lambda: 0):
        after = simulate(world).digest
    return row("bytes of the outcome's digest that a step of the wall clock changes", "", float(before != after) * 32)


def measure(quick: bool) -> BenchmarkReport:
    """Skew, clock error and recovery in a simulated hour, four seeds, four kinds of noise."""
    seeds, duration_s = (range(2), 240.0) if quick else (range(4), 3600.0)
    rows: list[Row] = []
    of: list[dict[str, float]] = []
    for noise in NOISES:
        found, each = hour(noise, seeds, duration_s)
        rows += found
        of += each
    gap_row, gap_s = gaps(seeds, min(duration_s, 1800.0))
    targets = {name: worst(name, (each[name] for each in of)) for name in of[0]}
    return BenchmarkReport(
        name="sync",
        title="Time: a simulated camera and microphone whose true capture times are known; worst of the seeds",
        host=host(),
        conditions={
            "virtual_s": duration_s,
            "seeds": len(seeds),
            "video_fps": FPS,
            "video_ppm": VIDEO_PPM,
            "audio_hz": RATE_HZ,
            "audio_block": BLOCK,
            "audio_ppm": AUDIO_PPM,
            "stalls": f"{STALLS:.0%} of packets, {STALL_MS[0]:g}..{STALL_MS[1]:g} ms (PulseAudio: as recorded)",
            "windows": f"{AUDIO_SPEC.window_ms:g} ms, the peers' every {HOP * BLOCK * 1000 // RATE_HZ} ms",
            "deadline_ms": SYNC_SPEC.deadline_ms,
            "peers_stamps": "as given by our clocks",
            **versions("numpy"),
        },
        evidence="simulated",
        rows=[*rows, gap_row, *dead_inputs(0), wall_clock_step(0)],
        targets={**targets, "gap_recovery_s": gap_s},
    )


if __name__ == "__main__":
    main(measure)
