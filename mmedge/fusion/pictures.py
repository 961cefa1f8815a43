"""Of which picture a stage's outputs were made: a camera may change its size while an older answer is still shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mmedge.fusion.stage import StageRunner
from mmedge.preprocess.fit import Seen
from mmedge.types import Snapshot


class Looked(NamedTuple):
    """A picture that a stage was fed.

    Attributes:
        seen: Its geometry; None while none is known.
        raw: Whether a network took it as a raw frame.
    """

    seen: Seen | None
    raw: bool


_NOTHING = Looked(None, raw=False)


class Pictures:
    """Remembers the pictures behind the outputs of each stage, directly or through other stages.

    Args:
        stages: In topological order.
    """

    def __init__(self, stages: Sequence[StageRunner]) -> None:
        self._named = byname = {stage.name: stage for stage in stages}
        self._seats = {stage: tuple(stage.plan.seats.values()) for stage in stages}
        self._upstream = {stage: tuple(byname[name] for name in stage.plan.producers) for stage in stages}
        # What is shown, and what a background run has been given since.
        self._fed: dict[StageRunner, deque[tuple[int, dict[str, Looked]]]] = {s: deque(maxlen=2) for s in stages}

    def follow(self, other: Pictures) -> None:
        """Go on with what ``other`` remembers of the stages that both know."""
        self._fed.update({stage: fed for stage, fed in other._fed.items() if stage in self._fed})

    def note(self, name: str, snapshot: Snapshot) -> None:
        """Take down what the stage ``name`` is fed with at this trigger."""
        stage = self._named[name]
        looked: dict[str, Looked] = {}
        for producer in self._upstream[stage]:
            looked |= self._shown(producer)
        for seat in self._seats[stage]:
            frame = snapshot.frames.get(seat)
            if frame is not None:
                raw = stage.raw or looked.get(seat, _NOTHING).raw
                looked[seat] = Looked(Seen.of(frame), raw)
        self._fed[stage].append((snapshot.t_ns, looked))

    def _shown(self, stage: StageRunner) -> dict[str, Looked]:
        fed = self._fed[stage]
        return next((looked for t_ns, looked in fed if t_ns == stage.t_ns), fed[-1][1] if fed else {})

    def of(self, stage: StageRunner, seat: str) -> Looked:
        """Return the picture of ``seat`` that the present outputs of ``stage`` were made of."""
        return self._shown(stage).get(seat, _NOTHING)
