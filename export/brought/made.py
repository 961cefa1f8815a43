"""What `mmedge new` has made: in a module of its own, which brings no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .infer import Guess


@dataclass(kw_only=True, slots=True)
class NewReport:
    """What was made and what was inferred.

    Attributes:
        folder: Where the project lies.
        bundle: The bundle that was packed; None for a starter project.
        guesses: What was inferred, and why.
        left: Outputs that no task reads.
        hints: What would make more of the networks.
        asks: What files do not tell and was assumed, with the option that says otherwise.
        commands: What to type next.
        unit: A unit of systemd that runs the bundle; None where its data is pushed.
    """

    folder: Path
    bundle: Path | None = None
    guesses: list[Guess] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    unit: Path | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the document of schema ``mmedge.new/1``."""
        return {
            "schema": "mmedge.new/1",
            "folder": str(self.folder),
            "bundle": None if self.bundle is None else str(self.bundle),
            "inferred": [msgspec.to_builtins(guess) for guess in self.guesses],
            "left": self.left,
            "hints": self.hints,
            "asks": self.asks,
            "next": self.commands,
            "unit": None if self.unit is None else str(self.unit),
        }
