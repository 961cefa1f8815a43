"""Blocks of the pages that can be run.

One that needs more than any machine has is marked by a line above it: ``<!-- needs: a camera, jq -->``.
"""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
# What a block may need that can be looked for; anything else is not there.
FOUND = {
    "a quiet machine": lambda: True,  # a figure that is not valid is all that can go wrong
    "jq": lambda: shutil.which("jq") is not None,
    "supervision": lambda: find_spec("supervision") is not None,
    "trackers": lambda: find_spec("trackers") is not None,
}
_BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>[^\n]*) -->\n)?^```(?P<kind>bash|python)\n(?P<text>.*?)^```$", re.M | re.S
)


class Block(NamedTuple):
    kind: str
    text: str
    needs: str | None

    @property
    def codes(self) -> tuple[int, ...]:
        return (0, 1) if self.needs == "a quiet machine" else (0,)

    @property
    def runs(self) -> bool:
        needs = [] if self.needs is None else self.needs.split(", ")
        return all(need in FOUND and FOUND[need]() for need in needs)


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(match["kind"], match["text"], match["needs"]) for match in found]
