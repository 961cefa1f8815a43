"""Blocks of the pages that can be run.

One that needs more than any machine has is marked by a line above it: ``<!-- needs: a camera, jq -->``. ``minutes``
marks what takes long, and ``Ctrl-C`` what serves a page until it is ended.
"""

from __future__ import annotations

import re
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.brokers import MOSQUITTO

ROOT = Path(__file__).parents[1]
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "DATA", "CONTRIBUTING"))])
ENDED = "Ctrl-C"


def _free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# What a block may need that can be looked for; anything else is not there.
FOUND = {
    "a quiet machine": lambda: True,  # a figure that is not valid is all that can go wrong
    "ffmpeg": lambda: shutil.which("ffmpeg") is not None,
    "jq": lambda: shutil.which("jq") is not None,
    ENDED: lambda: _free(8750),  # where pages are served
    "mosquitto": lambda: MOSQUITTO is not None and _free(1883),
    "port 9464": lambda: _free(9464),
    "TensorRT": lambda: find_spec("tensorrt_rtx") is not None,
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
    def marks(self) -> list[str]:
        return [] if self.needs is None else self.needs.split(", ")

    @property
    def runs(self) -> bool:
        return all(need in FOUND and FOUND[need]() for need in self.marks)

    @property
    def commands(self) -> list[str]:
        """Its lines, those joined that end in a backslash."""
        return self.text.replace("\\\n", " ").splitlines()


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(match["kind"], match["text"], match["needs"]) for match in found]
