"""Each benchmark of the runtime's weight runs, quickly, and says what it should; no time is judged."""

from __future__ import annotations

import importlib
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import mmedge
from benchmarks.limits import GOALS
from benchmarks.loopback import missing
from benchmarks.null_bundle import null_bundle

pytestmark = pytest.mark.parallel
FIGURES = {
    "overhead": ("overhead_", "user_", "per_stage_us", "window_cost_ratio", "old_text_us"),
    "live": ("live_", "busy_"),
    "cold_start": ("import_", "cold_"),
    "scale": ("replay_x",),
    "swap": ("swap_",),
    "engines": ("auto_", "cpu_int8_", "engine_call_"),
}
# Of `overload`, whose shortest run takes long; and what a quick run of `scale`, with two pipelines, cannot tell.
BEYOND = {"overload_p99_vs_bound", "overload_false_absences", "streams_30fps", "streams_30fps_processes", "start_16_s"}
# Of `preprocess` and `logmel`, whose partners the tests do not install; of `gpu`, which needs one.
PARTNERED = ("image_", "logmel_", "gpu_")
# Of `bench` and `export`, which take long; of `boards`, which has its own tests; of what `make wheels` and `make
# aarch64` print.
APART = (
    *("histogram_", "known_latency_", "omission_", "bench_", "runtime_share_", "interval_"),
    *("int8_", "av_digits_", "onet_", "calibration_", "weighted_nodes_"),
    *("boards_", "aarch64_", "wheel_"),
)
NEEDS = {"overhead": ["c++"], "scale": ["ffmpeg"]}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("overhead", marks=pytest.mark.slow),
        "cold_start",
        pytest.param("scale", marks=pytest.mark.long),
        pytest.param("swap", marks=pytest.mark.slow),
        pytest.param("engines", marks=pytest.mark.long),
        pytest.param("live", marks=[pytest.mark.long, pytest.mark.devices]),
    ],
)
def test_a_quick_run_gives_every_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PULSE_SERVER", "XDG_RUNTIME_DIR"):  # the microphone sets them, and they are put back
        monkeypatch.setenv(variable, "")
    lacking = missing() if name == "live" else [program for program in NEEDS.get(name, []) if not shutil.which(program)]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} missing")
    report: Any = importlib.import_module(f"benchmarks.{name}").measure(True)
    named = {figure for figure in GOALS if figure.startswith(FIGURES[name])}
    assert set(report.targets) == named == set(report.limits)
    assert all(math.isfinite(value) for value in report.targets.values())
    assert report.missed == []
    assert all(row.ours >= 0 for row in report.rows)


def test_the_figures_cover_the_goals() -> None:
    assert {goal for goal in GOALS if not goal.startswith(sum(FIGURES.values(), PARTNERED + APART))} == BEYOND


@pytest.mark.parametrize("changes", [{}, {"further": 3}, {"window_ms": 3000}, {"text": True}])
def test_a_null_bundle_answers_every_trigger(tmp_path: Path, changes: dict[str, Any]) -> None:
    clip = str(Path(mmedge.__file__).parent / "assets/digits/clips/clean.mp4")
    inputs = {"image": clip, "audio": clip}
    with mmedge.Pipeline(null_bundle(tmp_path / "null.mmedge", **changes), inputs, latency="offline") as pipe:
        found = list(pipe)
    assert len(found) > 100
    assert all(result.status == "ok" for result in found)
    assert {name for result in found for name in result.tasks} == {"digit", "agreement"}
    assert pipe.statistics.stage_errors == {}
