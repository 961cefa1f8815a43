"""The examples run, as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    arguments = ["2"] if "report" in path.stem else []
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if path.stem.startswith("01"):
        assert "400 results, dropped: none" in done.stdout


def test_there_are_four() -> None:
    assert len(EXAMPLES) == 4
