"""What the product makes of media from outside: pictures whose streams describe them in every way."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from benchmarks.media_pictures import circle_rows, colour_rows


def measure(quick: bool) -> BenchmarkReport:
    """Colours against swscale, and circles that stay circles."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        found, targets["colour_error_levels"] = colour_rows(Path(folder), quick=quick)
        rows += found
        found, targets["letterbox_circle_ratio"] = circle_rows(Path(folder))
        rows += found
    return BenchmarkReport(
        name="media",
        title="Media from outside, written with their description and read by the product",
        host=host(),
        conditions=versions("numpy", "av"),
        evidence="cpu",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(measure)
