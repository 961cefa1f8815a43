"""From a snapshot to an answer: the stages, then the tasks and the latencies. Shared by live runs and replays."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

from mmedge._native import core
from mmedge.bundle import Bundle
from mmedge.bundle.manifest import ImageInput, Input, Task
from mmedge.bundle.masks import validated_masks
from mmedge.errors import EngineError, SourceError
from mmedge.fusion import TOLD, StageError, StageGraph
from mmedge.interpret import make_interpreter
from mmedge.pipeline.answer import Answer
from mmedge.pipeline.statistics import Statistics
from mmedge.preprocess.fit import to_picture
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, Result, Snapshot

log = logging.getLogger("mmedge.inference")


class SkippedTrigger(Exception):  # noqa: N818  (no error: the policy wants it so)
    """A stage has failed that answers to an input whose policy is ``skip``."""


class Inference:
    """Answers triggers one by one; keeps the smoothing and the caches of one run.

    Args:
        bundle: What to run; open.
        graph: Its stages, loaded; the caller closes it.
        statistics: Where results and latencies are counted.
        attached: Names of the inputs that have a source.
        origin: Where latency counts from: the trigger's ``capture``; its ``delivery``, since capture times of files
            played as fast as possible say nothing about now; or, in a replay, this ``call``.
        wall_ns: What is added to a time on CLOCK_MONOTONIC to have it on the wall clock.
        spans: Whether results bring when their stages ran.

    Attributes:
        graph: As given.
        strict: Stages on trial: if one fails, that is raised before anything is counted, whatever the policies say.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: StageGraph,
        statistics: Statistics,
        attached: Iterable[str],
        *,
        origin: Literal["capture", "delivery", "call"],
        wall_ns: int = 0,
        spans: bool = False,
    ) -> None:
        self.graph, self.strict = graph, frozenset[str]()
        self._statistics = statistics
        self._attached = tuple(attached)
        self._times, self._wall_ns = statistics.times(origin), wall_ns
        self._tasks, self._told = bundle.manifest.tasks, bundle.manifest.outputs
        self._validated = validated_masks(bundle.manifest)
        self._labels = {name: bundle.labels(name) for name in self._tasks}
        self._interpreters = {
            name: make_interpreter(name, task, self._labels[name], self._to_picture(bundle.inputs, task))
            for name, task in self._tasks.items()
        }
        self._answers = self._read_by()
        self._epoch: dict[str, int] = {}
        self._spans = core.Spans([stage.memory for stage in graph.stages]) if spans else None

    def _read_by(self) -> core.Answers:
        questions = []
        for name, task in self._tasks.items():
            stage, output = self.graph.told_by(task.output)
            told = partial(self._told_output, task.output) if stage.behind else None
            questions.append((name, self._interpreters[name], stage, output, told))
        return core.Answers(questions, self._times, self._wall_ns)

    def follow(self, other: Inference, kept: Collection[str]) -> tuple[str, ...]:
        """Go on with the smoothing of ``other`` where the task and the stages behind it are the same.

        Args:
            other: What answers until now.
            kept: The stages that both have in common.

        Returns:
            The tasks whose smoothing begins anew.
        """
        anew = []
        for name, task in self._tasks.items():
            if not task.smoothings:
                continue
            same = task.tensor.stage in kept and (task, self._labels[name]) == (other._tasks[name], other._labels[name])
            if same:
                self._interpreters[name] = other._interpreters[name]
            else:
                anew.append(name)
        self._answers = self._read_by()
        return tuple(anew)

    def _to_picture(self, inputs: Mapping[str, Input], task: Task) -> Callable[[AnyArray], None] | None:
        """Return what maps a detection's corners to the picture its output was made of; None for other tasks."""
        seat = None if task.detection is None else task.detection.input
        spec = None if seat is None else inputs[seat]
        if seat is None or not isinstance(spec, ImageInput):
            return None
        self.graph.follow_pictures()

        def back(corners: AnyArray) -> None:
            seen, raw = self.graph.looked(task.output, seat)
            to_picture(spec, corners, seen, raw=raw)

        return back

    def __call__(
        self,
        snapshot: Snapshot,
        sync: Synchronizer,
        busy: Collection[str] | None = None,
        failed: Sequence[Mapping[str, str]] = (),
    ) -> Result:
        """Return the result of ``snapshot``; arguments and errors are those of ``answer``."""
        return self.answer(snapshot, sync, busy, failed).result()

    def answer(
        self,
        snapshot: Snapshot,
        sync: Synchronizer,
        busy: Collection[str] | None = None,
        failed: Sequence[Mapping[str, str]] = (),
    ) -> Answer:
        """Answer ``snapshot``.

        Args:
            snapshot: As polled; its ages are raised to those of the cached outputs that were used.
            sync: Where it was polled, for its sound.
            busy: In a replay, the background stages that were still running at this trigger.
            failed: In a replay, of each attempt at this trigger the stages that failed, and why.

        Raises:
            SourceError: If an input whose policy is ``fail`` is absent.
            EngineError: If a stage fails that answers to an input whose policy is ``fail``, or to no input.
            SkippedTrigger: If one fails that answers to an input whose policy is ``skip``.
        """
        statistics = self._statistics
        start_ns = time.monotonic_ns()
        missing = sync.failed(snapshot)
        if missing is not None:
            raise SourceError(
                f"input '{missing}' is missing and its policy is 'fail'",
                where=snapshot.reason,
                fix="check the device, or use another policy in the bundle's 'missing'",
            )
        if snapshot.epoch != self._epoch:
            if any(self._epoch.get(name, epoch) != epoch for name, epoch in snapshot.epoch.items()):
                self._answers.reset()
            self._epoch.update(snapshot.epoch)
        inferred_ns = self._run(snapshot, sync, busy, failed)
        valid = inferred_ns is not None
        if inferred_ns is None:  # never measured by the exporter: no label, and it is counted
            inferred_ns = time.monotonic_ns()
            statistics.unvalidated += 1
        timing = self.graph.timing
        message, from_ns, done_ns = self._answers.tell(
            snapshot, valid, start_ns, inferred_ns, timing.preprocess_ns, timing.infer_ns
        )
        statistics.results += 1
        for name in self._attached:
            if not snapshot.present[name]:
                statistics.absent[name] = statistics.absent.get(name, 0) + 1
        return Answer(
            message,
            from_ns,
            snapshot,
            sync,
            self._outputs(snapshot) if valid and self._told else {},
            b"" if self._spans is None else self._told_spans(snapshot, start_ns, inferred_ns, done_ns),
        )

    def _told_spans(self, snapshot: Snapshot, *stamps_ns: int) -> bytes:
        assert self._spans is not None
        return struct.pack("=5q", snapshot.deliver_ns, snapshot.wait_ns, *stamps_ns) + self._spans.take()

    def _run(
        self,
        snapshot: Snapshot,
        sync: Synchronizer,
        busy: Collection[str] | None,
        failed: Sequence[Mapping[str, str]],
    ) -> int | None:
        """Run the graph and read its outputs, without the inputs whose stages fail.

        Return when the graph had run; None if no mask remained that was validated.
        """
        inferred_ns = None
        measured = self._measured(snapshot.present)
        if not measured:
            self.graph.clear()  # it does not run at all
        try:
            while measured:
                try:
                    self.graph.run(snapshot, sync.read_audio, busy, failed)
                    inferred_ns = time.monotonic_ns()
                    self._read(snapshot)
                except StageError as error:
                    inferred_ns = None
                    self._lose(error, snapshot, sync)
                    measured = self._measured(snapshot.present)
                else:
                    break
        finally:
            for rest in self.graph.lost:
                self._count(rest)
        if untold := self.graph.untold():
            for rest in untold:
                self._lose(rest, snapshot, sync)
            self._answers.look(snapshot)
        if self.graph.streams:
            self._statistics.stage_overruns = self.graph.overruns
        for name in self._attached:  # sources that are absent were looked at before there was a snapshot
            if not snapshot.present[name] and sync.policy(name) == "skip":
                raise SkippedTrigger
        return inferred_ns

    def _measured(self, present: Mapping[str, bool]) -> bool:
        """Tell whether the bundle was validated with these inputs; with all of them it always is."""
        return False not in present.values() or frozenset(name for name, on in present.items() if on) in self._validated

    def _lose(self, error: StageError, snapshot: Snapshot, sync: Synchronizer) -> None:
        """Take a failed stage's inputs away, or raise where their policy says so, or where the run is ended."""
        if error.cancelled or error.stage in self.strict:
            raise error
        if not error.again:
            self._count(error)
        if not error.depends or any(sync.policy(name) == "fail" for name in error.depends):
            raise EngineError(error.message, where=error.where, fix=error.fix) from error
        for name in error.depends:
            snapshot.present[name] = False
            snapshot.age_ms.pop(name, None)
        what = "has no output since" if error.again else "failed"
        told = f"{', '.join(error.depends)}: stage '{error.stage}' {what}: {error.message[:TOLD]}"
        snapshot.reason = "; ".join(filter(None, (snapshot.reason, told)))

    def _read(self, snapshot: Snapshot) -> None:
        answers = self._answers
        try:
            answers.read(snapshot)
        except EngineError as error:
            output = tuple(self._tasks.values())[answers.at].output
            raise self.graph.reject(output, error) from error

    def _outputs(self, snapshot: Snapshot) -> dict[str, AnyArray]:
        """Return copies of the outputs that are told as they are and whose stages have run."""
        outputs = ((name, self._told_output(name, snapshot)) for name in self._told)
        return {name: values.copy() for name, values in outputs if values is not None}

    def _told_output(self, name: str, snapshot: Snapshot) -> AnyArray | None:
        """Return an output that rests on inputs, and on such as the bundle was validated with together; else None."""
        shown = self.graph.shown(name)
        if shown is None or not shown[1]:
            return None if shown is None else shown[0]
        heard = frozenset(seat for seat, on in snapshot.present.items() if on and seat not in shown[1])
        return shown[0] if heard in self._validated else None

    def _count(self, error: StageError) -> None:
        if error.cancelled:
            return
        errors = self._statistics.stage_errors
        if error.stage not in errors:
            told = error.message[:TOLD]
            log.warning("%s (%s); further failures of this stage are only counted", told, error.where)
        self._statistics.stage_errors = {**errors, error.stage: errors.get(error.stage, 0) + 1}
