"""What the runtime is to reach, figure by figure, and how runs in turn become one figure."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.harness import BenchmarkReport, Row, host
from mmedge.engine.cpu import saturates_pairs
from mmedge.types import Evidence

# Figure -> (which side is good, the limit). Shares are ours of the partner's, in the same run.
GOALS: dict[str, tuple[str, float]] = {
    "overhead_core_p50_us": ("<=", 120),
    "overhead_p50_us": ("<=", 200),
    "overhead_p99_vs_hops": ("<=", 1.5),
    "user_overhead_p50_us": ("<=", 320),
    "live_cpu_vs_threads": ("<=", 1.15),
    "live_pss_vs_threads": ("<=", 1.5),
    "live_p50_vs_threads": ("<=", 1.01),
    "live_p99_vs_threads": ("<=", 1.02),
    "busy_p50_vs_threads": ("<=", 0.2),
    "busy_p50_vs_tuned": ("<=", 1.0),
    "busy_frames_done": (">=", 0.99),
    "overload_p99_vs_bound": ("<=", 1),
    "overload_false_absences": ("<=", 0),
    "import_vs_onnxruntime": ("<=", 0.8),
    "cold_first_result_vs_bare": ("<=", 1.3),
    "streams_30fps": (">=", 24),
    "streams_30fps_processes": (">=", 16),
    "start_16_s": ("<=", 6),
    "per_stage_us": ("<=", 2.5),
    "window_cost_ratio": ("<=", 1.2),
    "old_text_us": ("<=", 5),
    "replay_x": (">=", 25),
    "logmel_20ms_vs_knf": (">=", 4),
    "logmel_100ms_vs_knf": (">=", 8),
    "logmel_10s_vs_1s": ("<=", 1.3),
    "logmel_400_vs_512": ("<=", 1.5),
    "image_480_vs_best_opencv": (">=", 3.0),
    "image_480_vs_kornia": (">=", 4.0),
    "image_480_vs_typical_opencv": (">=", 10.0),
    "image_1080_vs_best_opencv": (">=", 1.6),
    "image_1080_vs_floor": ("<=", 1.5),
    "image_nv12_vs_opencv": (">=", 3.5),
    "image_i420_vs_opencv": (">=", 3.5),
    "image_nv12_1080_vs_opencv": (">=", 3.0),
    "image_other_size_vs_own": ("<=", 1.1),
    "image_max_error_gray_levels": ("<=", 0.02),
    "histogram_error_p999": ("<=", 0.01),
    "known_latency_error_ms": ("<=", 0.3),
    "omission_error": ("<=", 0.05),
    "bench_overhead_ratio": ("<=", 1.02),
    "runtime_share_vga": ("<=", 1.3),
    "runtime_share_1080p": ("<=", 1.5),
    "interval_coverage": (">=", 0.95),
    "gpu_vs_bare": ("<=", 1.05),
    "auto_resnet18_vs_ort_fp32": (">=", 1.8 if saturates_pairs() else 2.8),  # without VNNI / with it
    "auto_resnet18_openvino_vs_ort_fp32": (">=", 2.0),
    "auto_mobilenet_vs_ort_fp32": (">=", 1.0),
    "cpu_int8_agreement": (">=", 0.995),
    "engine_call_vs_session_run": ("<=", 0.6),
    "swap_frames_lost": ("<=", 0),
    "swap_gap_frames": ("<=", 1),
    "boards_diagnosed": (">=", 1),
    "aarch64_tests_passed_ratio": (">=", 0.98),
    "aarch64_label_agreement": (">=", 1),
    "wheel_mb": ("<=", 3),
}


def limits(targets: Mapping[str, float]) -> dict[str, str]:
    """Return the limit of each figure, as text."""
    return {name: "{} {:g}".format(*GOALS[name]) for name in targets}


def missed(targets: Mapping[str, float]) -> list[str]:
    """Return the names of the figures beyond their limits; one that is not a number is.

    Example:
        >>> missed({"streams_30fps": 12, "busy_frames_done": 1.0, "replay_x": float("nan")})
        ['streams_30fps', 'replay_x']
    """
    reached = {
        name: value <= GOALS[name][1] if GOALS[name][0] == "<=" else value >= GOALS[name][1]
        for name, value in targets.items()
    }
    return [name for name, good in reached.items() if not good]


def judged(
    *,
    name: str,
    title: str,
    conditions: Mapping[str, str | int | float],
    rows: Sequence[Row],
    targets: Mapping[str, float],
    goals: Mapping[str, float] | None = None,
    evidence: Evidence = "cpu",
    quick: bool = False,
) -> BenchmarkReport:
    """Return the report of a benchmark, its figures held against their limits.

    Args:
        name: Of the benchmark.
        title: What it measures.
        conditions: How.
        rows: What came of it.
        targets: The figures.
        goals: Those of them that have a limit; all, if left out.
        evidence: What they rest on.
        quick: A quick look judges nothing: its figures are of too little.
    """
    limited = targets if goals is None else goals
    return BenchmarkReport(
        name=name,
        title=title,
        host=host(),
        conditions=dict(conditions),
        evidence=evidence,
        rows=list(rows),
        targets=dict(targets),
        limits=limits(limited),
        missed=[] if quick else missed(limited),
    )


def summed_up(
    what: str,
    unit: str,
    ours: Sequence[float],
    peers: Mapping[str, Sequence[float]] | None = None,
    *,
    beside: Sequence[str] = (),
) -> Row:
    """Return the row of runs that were made in turn: medians, the quartiles of ours, the best of the peers over ours.

    Args:
        what: What was measured.
        unit: Of all values.
        ours: A value of each run.
        peers: Name -> its values.
        beside: Names of peers that set a mark and do not compete.
    """
    medians = {name: statistics.median(values) for name, values in (peers or {}).items()}
    middle = statistics.median(ours)
    spread = ""
    if len(ours) > 1:
        low, _, high = statistics.quantiles(ours, n=4)
        spread = f", quartiles {low:.4g}..{high:.4g}"
    best = min((value for name, value in medians.items() if name not in beside), default=None)
    ratio = best / middle if best is not None and middle else None
    return Row(f"{what} ({len(ours)} runs{spread})", unit, middle, {**medians}, ratio)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over the runs of ours in parts of theirs: what changes the machine's speed meets both."""
    return statistics.median(a / b if b else float("nan") for a, b in zip(ours, theirs, strict=True))


def load() -> str:
    """Return how busy the machine was: the mean numbers of processes that ran or wanted to, of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
