"""The life of a stage: what its outputs are, and what a trigger finds."""

from __future__ import annotations

from enum import Enum


class Life(Enum):
    """What a stage's outputs are; docs/architecture.md draws how one leads to another.

    Attributes:
        COLD: Zeros. It runs at the next trigger that has its inputs, and the trigger waits for it.
        WARM: Those of its last run.
        HIDDEN: Zeros while the sound of a stream is away, whose state lives on: the next step shows them again.
        RENEWING: Those of its last run, while the next one goes on in the background.
        STALE: Zeros. A background run goes on for inputs that went away since: what it gives is thrown away.
        FAILED: Zeros. A background run has failed, and is tried again there; triggers do not wait.
        shown: Whether its outputs are those of a run.
        cold: Whether it has none of its own, shown or not.
        pending: Whether it has none, and triggers do not wait for it.
    """

    COLD = "cold"
    WARM = "warm"
    HIDDEN = "hidden"
    RENEWING = "renewing"
    STALE = "stale"
    FAILED = "failed"

    def __init__(self, word: str) -> None:
        self.shown = word in ("warm", "renewing")
        self.cold = word in ("cold", "stale", "failed")
        self.pending = word in ("stale", "failed")
