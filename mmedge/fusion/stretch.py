"""Which stages C++ runs by itself, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mmedge._native import core
from mmedge.fusion.crew import Crew
from mmedge.fusion.stage import StageRunner


class Segment(msgspec.Struct, frozen=True):
    """Stages that follow each other.

    Attributes:
        stages: In topological order.
        stretch: Runs them; None for one that Python runs.
        timed: Those with a rule of their own, and their places.
    """

    stages: Sequence[StageRunner]
    stretch: core.Stretch | None
    timed: tuple[tuple[int, StageRunner], ...] = ()

    def begin(self) -> None:
        """Take note of a new trigger: no stage has run for it."""
        if self.stretch is not None:
            self.stretch.begin()
            return
        for stage in self.stages:
            stage.ran = False


def make_segments(stages: Sequence[StageRunner], crew: Crew) -> list[Segment]:
    """Divide stages, in topological order, into those that C++ runs and the others; the others run in the background.

    C++ runs what the trigger waits for.
    """
    segments: list[Segment] = []
    plain: list[StageRunner] = []

    def close() -> None:
        if plain:
            timed = tuple((at, stage) for at, stage in enumerate(plain) if stage.plan.due.every_ns is not None)
            runners = [stage.native for stage in plain]
            peers = [[peer.memory for peer in crew.peers(stage)] for stage in plain]
            segments.append(Segment(tuple(plain), core.Stretch(runners, peers, crew.cores), timed))
            plain.clear()

    for stage in stages:
        if not stage.asynchronous:
            plain.append(stage)
        else:
            close()
            segments.append(Segment((stage,), None))
    close()
    return segments
