"""Which stages C++ runs by itself, one after the other, and what it needs of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.fusion.crew import Crew
from mmedge.fusion.stage import StageRunner
from mmedge.types import AnyArray


class StageWork(msgspec.Struct, frozen=True, kw_only=True):
    """What ``core.Stretch`` needs of one stage. Arrays have the shapes [...] and dtypes of its engine's.

    Attributes:
        stage: What it knows.
        links: Outputs of other stages, and the tensors that they are copied to.
        rows: Tensors [seats] of presence (True) or age.
        outputs: What must be finite after a run.
        peers: The stages that may run at the same time.
        seats: Of each tensor that a seat feeds: the seat's number, what fills it, what fills it when the seat is
            absent, the tensor.
        run: Runs the engine; one that C++ calls by itself does so without Python's lock.
        infinite: Raises the error that says which output is not finite.
        absent: Forgets all when none of its seats is there.
        runner: The stage itself.
    """

    stage: core.Stage
    links: list[tuple[AnyArray, AnyArray]]
    rows: list[tuple[AnyArray, bool]]
    outputs: list[AnyArray]
    peers: list[core.Stage]
    seats: list[tuple[int, Callable[..., None], Callable[[AnyArray], None], AnyArray]]
    run: Callable[[], None] | core.NativeRun
    infinite: Callable[[], None]
    absent: Callable[[], None]
    runner: StageRunner


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
    """Divide stages, in topological order, into those that C++ runs and the others; made anew when an engine changes.

    C++ runs what the trigger waits for, what no stream feeds, and what has neither states nor a comparison of its own.
    """
    segments: list[Segment] = []
    plain: list[StageRunner] = []

    def close() -> None:
        if plain:
            timed = tuple((at, stage) for at, stage in enumerate(plain) if stage.plan.due.every_ns is not None)
            works: list[Any] = [stage_work(stage, crew) for stage in plain]
            segments.append(Segment(tuple(plain), core.Stretch(works, crew.cores), timed))
            plain.clear()

    for stage in stages:
        if is_plain(stage):
            plain.append(stage)
        else:
            close()
            segments.append(Segment((stage,), None))
    close()
    return segments


def is_plain(stage: StageRunner) -> bool:
    """Tell whether C++ can run a stage by itself."""
    if stage.asynchronous or stage.waits or stage.behind or stage.plan.states or stage.plan.due.differs:
        return False
    own = stage.engine.inputs
    rows = (*stage.plan.presence, *stage.plan.ages)
    # An engine of another precision may give outputs of another dtype, which are converted.
    return all(own[tensor].dtype == np.float32 and own[tensor].flags.c_contiguous for tensor in rows) and all(
        theirs.dtype == fed.dtype and theirs.flags.c_contiguous and fed.flags.c_contiguous
        for theirs, fed in stage.linked()
    )


def stage_work(stage: StageRunner, crew: Crew) -> StageWork:
    """Return what C++ needs of a stage."""
    own, plan = stage.engine.inputs, stage.plan
    return StageWork(
        stage=stage.memory,
        links=stage.linked(),
        rows=[(own[tensor].reshape(-1), tensor in plan.presence) for tensor in (*plan.presence, *plan.ages)],
        outputs=[array for array in stage.engine.outputs.values() if array.dtype.kind == "f"],
        peers=[peer.memory for peer in crew.peers(stage)],
        seats=stage.seat_feeds(),
        run=stage.engine.native or stage.engine.run,
        infinite=stage.check,
        absent=stage.absent,
        runner=stage,
    )
