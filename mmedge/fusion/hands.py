"""The threads that stages run on, and how their runs ended: what the native graph (native/graph/graph.hpp) asks for."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from mmedge.errors import EngineError, MmedgeError
from mmedge.fusion.crew import Crew
from mmedge.fusion.failures import TOLD, StageError
from mmedge.fusion.stage import StageRunner


class Hands:
    """What Python does for a graph. A stage is named by its place.

    Args:
        stages: In topological order.
        cores: So many heavy stages may run at once; the cores this process may use by default.

    Attributes:
        crew: Runs stages beside others.
        faults: Of a replay: stage -> what it failed with.
        failures: What failed since ``attempt``, and is not told yet.
        fallen: What failed in the background, and is not told yet.
        failed, lost, busy: As those of ``StageGraph``.
        waited_ns: How long ``wait`` took since ``attempt``.
    """

    def __init__(self, stages: Sequence[StageRunner], cores: int | None) -> None:
        self._stages = stages
        self._places = {stage: place for place, stage in enumerate(stages)}
        self.crew = Crew(stages, cores)
        self._running: Collection[str] | None = None
        self._attempt = self.waited_ns = 0
        self.faults: Mapping[str, EngineError] = {}
        self.failures: dict[StageRunner, MmedgeError] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what is told of the newest trigger."""
        self.fallen: dict[StageRunner, EngineError] = {}
        self.failed: list[dict[str, str]] = []
        self.lost: list[StageError] = []
        self.busy: list[str] = []

    def attempt(self, number: int, running: Collection[str] | None, faults: Mapping[str, EngineError]) -> None:
        """Begin an attempt at a trigger; ``running`` are the stages that a recorded run found busy."""
        self._attempt, self._running, self.faults = number, running, faults
        self.failures, self.waited_ns = {}, 0

    def note(self, stage: StageRunner, error: MmedgeError) -> None:
        """Take down that a stage failed at this attempt."""
        self.failed += [{} for _ in range(self._attempt + 1 - len(self.failed))]
        self.failed[-1][stage.name] = error.message[:TOLD]

    def recorded(self, place: int) -> None:
        """Raise what the recorded run failed with."""
        name = self._stages[place].name
        if name in self.faults:
            raise self.faults[name]

    def beside(self, place: int) -> None:
        """Run a stage, which was fed, on a thread."""
        self.crew.start(self._stages[place])

    def wait(self, places: Sequence[int]) -> list[int]:
        """Wait for those of these stages that run beside others, and take up what they give; return who failed."""
        begin_ns = time.monotonic_ns()
        failures = self.crew.wait([self._stages[place] for place in places])
        self.waited_ns += time.monotonic_ns() - begin_ns
        self.failures |= failures
        return [self._places[stage] for stage in failures]

    def start(self, place: int) -> None:
        """Run a stage, which was fed, in the background."""
        self._stages[place].start()

    def take_up(self, place: int, lost: bool) -> None:
        """Take up a background run if it has ended; what nobody waits for (``lost``) decides nothing."""
        stage = self._stages[place]
        running = None if self._running is None else stage.name in self._running
        try:  # a recording need not hold what is lost
            if stage.busy(running, None if lost else self.faults.get(stage.name)):
                self.busy.append(stage.name)
        except EngineError as error:
            if lost:
                self.lost.append(StageError(stage.name, (), error))
            else:
                self.note(stage, error)
                self.fallen[stage] = error

    def lose(self, place: int, bits: int) -> None:
        """Let what a background run failed with, and was not told yet, matter to nobody."""
        stage = self._stages[place]
        if stage in self.fallen:
            self.lost.append(stage.failed(self.fallen.pop(stage), bits))
