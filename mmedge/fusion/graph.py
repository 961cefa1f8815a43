"""The stage graph: topological order, what is due at a trigger, outputs by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from mmedge._native import core
from mmedge.bundle.source import Output
from mmedge.errors import EngineError, MmedgeError
from mmedge.fusion.evidence import evidence_of
from mmedge.fusion.failures import StageError, recorded_faults
from mmedge.fusion.feed import ReadAudio
from mmedge.fusion.hands import Hands
from mmedge.fusion.moment import Timing
from mmedge.fusion.pictures import Looked, Pictures
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.stream import StreamStage
from mmedge.fusion.unfed import UnfedStage
from mmedge.types import AnyArray, Evidence, Snapshot

if TYPE_CHECKING:
    from mmedge.fusion.upgrade import Pending

_NONE: frozenset[str] = frozenset()


class StageGraph:
    """Runs the stages of one bundle, in order, each only when it is due.

    Args:
        stages: In topological order; the graph owns them from now on.
        cores: So many heavy stages may run at once; the cores this process may use by default.

    Attributes:
        timing: What the newest trigger cost.
        used_ns: Stage -> capture time of the outputs that the newest ``run`` used, for stages with a rule of their own.
        pending: What is still to be built for its stages.
        streams: Its stages that hear every step of a sound.
    """

    def __init__(self, stages: list[StageRunner], *, cores: int | None = None) -> None:
        self.stages = stages
        self._outputs = {str(Output(stage.name, name)): (stage, name) for stage in stages for name in stage.outputs}
        self.streams = tuple(stage for stage in stages if isinstance(stage, StreamStage))
        self._behind = tuple(stage for stage in stages if stage.behind)
        self.pending: Sequence[Pending] = ()
        self._pictures: Pictures | None = None
        self._snapshot: Snapshot | None = None
        self._ages: dict[str, float] = {}
        self._moment = core.Moment(len(stages[0].seats) if stages else 0)
        self._hands = hands = Hands(stages, cores)
        places = {stage.name: place for place, stage in enumerate(stages)}
        self._native = core.Graph(
            [stage.native for stage in stages],
            [[places[name] for name in stage.ancestors] for stage in stages],
            [[places[peer.name] for peer in hands.crew.peers(stage)] for stage in stages],
            hands.crew.cores,
        )
        self._timed = [(k, s) for k, s in enumerate(stages) if s.asynchronous or s.plan.due.every_ns is not None]
        self._bits = self._attempt = 0
        self._beside: list[tuple[StageRunner, MmedgeError]] = []  # failed at this attempt, another one was raised
        self.timing: Timing
        self.used_ns: dict[str, int]
        self.clear()

    def run(
        self,
        snapshot: Snapshot,
        read_audio: ReadAudio,
        busy: Collection[str] | None = None,
        failed: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Run what is due for ``snapshot``; results are read with ``output``.

        ``snapshot.age_ms`` is raised to the age of the cached or background output that was used.

        Args:
            snapshot: What to run on. The same one again goes on where a stage failed: what has run does not run
                again unless other inputs are present by now.
            read_audio: Gives its sound.
            busy: The background stages to take as still running, and no others, as a recorded run found them;
                None looks.
            failed: As the recorded run found it: these stages fail with these messages, and are not run.

        Raises:
            StageError: If a stage fails. It has forgotten its state; the graph can go on.
        """
        again = snapshot is self._snapshot
        self._attempt = self._attempt + 1 if again else 0
        if again:
            snapshot.age_ms.update((seat, age_ms) for seat, age_ms in self._ages.items() if snapshot.present[seat])
        else:
            self._snapshot, self._ages = snapshot, dict(snapshot.age_ms)
            self.clear()
        note = None if self._pictures is None else self._pictures.note
        self._bits = bits = self._moment.look(snapshot, read_audio, note)
        hands, native = self._hands, self._native
        faults = recorded_faults(failed[self._attempt]) if self._attempt < len(failed) else {}
        hands.attempt(self._attempt, busy, faults)
        beside, self._beside = self._beside, []
        hands.lost += [stage.failed(error, bits) for stage, error in beside if stage.bits and not bits & stage.bits]
        native.begin(self._moment, again, hands)
        if hands.fallen:
            stage = next(iter(hands.fallen))
            fault = hands.fallen.pop(stage)
            raise stage.failed(fault, bits) from fault
        try:
            self._run_waited(bits)
        finally:
            self._moment.raise_ages(snapshot)
            self.used_ns = {stage.name: stage.t_ns for place, stage in self._timed if native.used(place)}
            fed_ns = native.feeding_ns
            self.timing.preprocess_ns += fed_ns
            self.timing.infer_ns += native.running_ns + hands.waited_ns
        try:
            native.run_late(self._moment, hands)
        except MmedgeError as error:
            stage = self.stages[native.at]
            hands.note(stage, error)
            raise stage.failed(error, bits) from error
        finally:
            self.timing.preprocess_ns += native.feeding_ns - fed_ns

    def clear(self) -> None:
        """Forget what is told of the newest trigger; ``run`` does so by itself."""
        self.timing, self.used_ns, self._beside = Timing(), {}, []
        self._hands.clear()

    @property
    def busy(self) -> list[str]:
        """Background stages that were still running at the newest trigger."""
        return self._hands.busy

    @property
    def failed(self) -> list[dict[str, str]]:
        """Of each attempt at the newest trigger, the stages that failed as it ran, and why; as many as name all."""
        return self._hands.failed

    @property
    def lost(self) -> list[StageError]:
        """Failures of stages whose inputs are away all the same: nothing follows from them."""
        return self._hands.lost

    def reject(self, tensor: str, error: EngineError) -> StageError:
        """Let the stage of ``STAGE.OUTPUT`` fail after ``run``, since that output has no meaning."""
        stage, output = self._outputs[tensor]
        fault = EngineError(error.message, where=f"tensor '{output}', {error.where}", fix=error.fix)
        return stage.failed(fault, self._bits)

    def untold(self) -> list[StageError]:
        """Return the failures that ``run`` did not come to raise; for when it is not called again for this trigger."""
        fallen = self._hands.fallen
        if not (fallen or self._beside):
            return []
        return [stage.failed(error, self._bits) for stage, error in (*fallen.items(), *self._beside)]

    def _run_waited(self, bits: int) -> None:
        """Run the stages that the trigger waits for; what does not need those that fail runs all the same."""
        native, hands = self._native, self._hands
        while True:
            try:
                native.run(self._moment, hands)
                break
            except MmedgeError as error:
                hands.failures[self.stages[native.at]] = error
        if hands.failures or native.any_pending:
            self._raise(hands.failures, bits)

    def _raise(self, failures: Mapping[StageRunner, MmedgeError], bits: int) -> NoReturn:
        """Raise for the first stage that gave nothing; the others are looked at again without its inputs."""
        for stage, fault in failures.items():
            self._hands.note(stage, fault)
        pending = self._native.pending
        first = next(stage for at, stage in enumerate(self.stages) if stage in failures or pending(at))
        self._beside = [(stage, failures[stage]) for stage in self.stages if stage in failures and stage is not first]
        for stage, _ in self._beside:
            stage.native.discard()
        if first not in failures:
            raise first.waiting(bits)
        raise first.failed(failures[first], bits) from failures[first]

    def output(self, tensor: str) -> AnyArray:
        """Return ``STAGE.OUTPUT``; a view, valid until the next ``run``.

        It is float32 or the network's dtype, [...] as the manifest declares.
        """
        stage, output = self._outputs[tensor]
        return stage.outputs[output]

    def follow_pictures(self) -> None:
        """Remember from now on of which pictures outputs are made: detections ask, and nothing else pays for it."""
        self._pictures = Pictures(self.stages)

    def looked(self, tensor: str, seat: str) -> Looked:
        """Return the picture of the seat that ``STAGE.OUTPUT`` was made of, which may not be the newest one.

        ``follow_pictures`` comes before the first run.
        """
        assert self._pictures is not None
        return self._pictures.of(self._outputs[tensor][0], seat)

    def answered(self, tensor: str) -> bool:
        """Tell whether the stage of ``STAGE.OUTPUT`` has run; while all that it depends on is absent it gives zeros."""
        return self._outputs[tensor][0].memory.shown

    @property
    def deaf(self) -> bool:
        """Whether some stage hears nothing yet of a seat that it is fed by."""
        return any(stage.memory.unheard() for stage in self._behind)

    @property
    def behind(self) -> dict[str, frozenset[str]]:
        """The stages behind a stream, and the seats that each depends on."""
        return {stage.name: stage.depends for stage in self._behind}

    def unheard(self, tensor: str) -> frozenset[str]:
        """Return the seats that the stage of ``STAGE.OUTPUT`` hears nothing of yet, though they may be present."""
        stage = self._outputs[tensor][0]
        bits = stage.memory.unheard()
        return frozenset(stage.names(bits)) if bits else _NONE

    def told_by(self, tensor: str) -> tuple[StageRunner, str]:
        """Return the stage of ``STAGE.OUTPUT``, and its name for that output."""
        return self._outputs[tensor]

    def shown(self, tensor: str) -> tuple[AnyArray, frozenset[str]] | None:
        """Return output, [...] of the network's dtype, and unheard of a stage that has answered, or None."""
        stage, output = self._outputs[tensor]
        heard = self.unheard(tensor) if stage.behind else _NONE
        return (stage.outputs[output], heard) if stage.memory.shown else None

    @property
    def overruns(self) -> dict[str, int]:
        """How often the sound of a stream was overwritten before it was heard, by stage."""
        return {stage.name: stage.overruns for stage in self.streams if stage.overruns}

    @property
    def evidence(self) -> Evidence:
        """Where the networks of this run were run: on the CPU, a GPU or a Jetson."""
        return evidence_of(self.describe().values())

    def describe(self) -> Mapping[str, str]:
        """Return stage name -> backend that serves it, of the stages that something feeds."""
        return {stage.name: stage.engine.backend for stage in self.stages if not isinstance(stage, UnfedStage)}

    @property
    def served(self) -> dict[str, str]:
        """Stage name -> backend and file of the bundle that serve it, of the stages that something feeds."""
        files = {stage.name: stage.file for stage in self.stages}
        return {name: f"{backend} {files[name]}".rstrip() for name, backend in self.describe().items()}

    def swap(self, other: StageRunner) -> bool:
        """Let a stage run on the engine of ``other``, between two triggers; what it knows stays.

        Args:
            other: Made of the same stage, self-tested; nothing else may use it from now on.

        Returns:
            Whether it was done: a stage that runs in the background at this moment keeps its engine.
        """
        stage = next(stage for stage in self.stages if stage.name == other.name)
        from mmedge.fusion.swap import take_over

        return take_over(stage, other, self.stages)

    def follow(self, other: StageGraph, *, anew: bool = True) -> None:
        """Take over what another graph knows of the stages that both have; whether the others begin ``anew``."""
        if self._pictures is not None and other._pictures is not None:
            self._pictures.follow(other._pictures)
        for stage in set(self.stages) - set(other.stages) if anew else ():
            stage.reset()  # what it was tested with, or answered to long ago
            if isinstance(stage, StreamStage):
                stage.join()

    def cancel(self) -> None:
        """Let a run that waits for the user's own code fail at once, and every later one; from any thread."""
        for stage in self.stages:
            stage.engine.cancel()

    def close(self, *, but: Collection[StageRunner] = ()) -> None:
        """Free every stage, ``but`` those that another graph goes on with; idempotent."""
        own = [stage for stage in self.stages if stage not in but]
        for stage in own:
            stage.engine.cancel()
        self._hands.crew.close()
        for stage in own:
            stage.close()
