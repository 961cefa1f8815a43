"""How many recorded trees of boards the doctor gets right: on a board in order, its facts and nothing to fix."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.goals import judged
from benchmarks.harness import BenchmarkReport, Row, main
from tests.board_trees import NAMES, is_right


def measure(quick: bool) -> BenchmarkReport:
    """Lay out each board's tree and ask the doctor; ``quick`` changes nothing, it takes a second."""
    rows = []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as made:
            wrong = is_right(name, Path(made))
        rows.append(Row(f"{name}{': ' if wrong else ''}{'; '.join(wrong)}", "right", float(not wrong), {}, None))
    targets = {"boards_diagnosed": sum(row.ours for row in rows) / len(rows)}
    return judged(
        name="boards",
        title="Recorded trees of Jetson boards that `mmedge doctor` understands; nobody ran it on these boards",
        conditions={"trees": len(rows), "written from": "public material, tests/boards/README.md"},
        evidence="simulated",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(measure)
