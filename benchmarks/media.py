"""What the product makes of media and bundles from outside: pictures, times, damage, senders, hostile bundles."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import media_damage, media_hostile, media_times
from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from benchmarks.media_pictures import circle_rows, colour_rows

COLOUR_LEVELS, CIRCLE_OFF = 2.0, 0.03


def measure(quick: bool) -> BenchmarkReport:
    """Measure what the product makes of media and bundles from outside; a figure that misses its limit ends with 1."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        found, targets["colour_error_levels"] = colour_rows(Path(folder), quick=quick)
        rows += found
        found, targets["letterbox_circle_ratio"] = circle_rows(Path(folder))
        rows += found
    missed = ["colour_error_levels"] if targets["colour_error_levels"] > COLOUR_LEVELS else []
    missed += ["letterbox_circle_ratio"] if abs(targets["letterbox_circle_ratio"] - 1) > CIRCLE_OFF else []
    for part in (media_times, media_damage, media_hostile):
        for name, value, limit, detail in part.rows(quick):
            unit = name.split()[0].rsplit("_", 1)[1].removesuffix("ratio").removesuffix("refused")
            rows.append(Row(f"{name}, at most {limit:g} ({detail})", unit, value, {}, None))
            if " " not in name:
                targets[name] = value
            if not value <= limit:
                missed.append(name)
    return BenchmarkReport(
        name="media",
        title="Media and bundles from outside",
        host=host(),
        conditions=versions("numpy", "av"),
        evidence="cpu",
        rows=rows,
        targets=targets,
        missed=missed,
    )


if __name__ == "__main__":
    main(measure)
