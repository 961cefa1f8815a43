"""Replay: the same calls in the same order give the same decisions, and the same media the same answers."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from mmedge.bundle import Bundle
from mmedge.errors import CheckError, ConfigError
from mmedge.fusion import StageGraph, load_graph
from mmedge.pipeline.inference import Inference, SkippedTrigger
from mmedge.pipeline.statistics import Statistics
from mmedge.recording.ahead import Ahead
from mmedge.recording.decision import Decision, trigger_event
from mmedge.recording.event_log import TriggerEvent
from mmedge.recording.reader import Recording, Turn
from mmedge.replay.cutter import Cutter
from mmedge.sync import Synchronizer
from mmedge.types import Backend, Frame, KnownOrigin, Precision, Result, Snapshot

log = logging.getLogger("mmedge.replay")
_OF_STAGES = {"age_ms", "used_ns", "busy", "failed", "present", "reason"}  # what follows from how they run
_AHEAD = 2  # batches of turns that are decoded while the one before is answered
_BATCH_TURNS, _BATCH_BYTES = 32, 4 << 20  # of pictures: threads meet once for so many, and memory stays small
_PATIENCE = 20.0  # what took too long is in the log; what did not may take longer here


class Replay:
    """Runs a bundle on a recording, in the caller's thread.

    Iterate it once. With the bundle of the recorded run, every result is what that run gave, its latencies
    included. With another one, ``latency_ms`` holds what the recording alone determines: ``deliver`` and ``ready``.

    Args:
        folder: The recording.
        bundle: What to run; open.
        backend: ``auto``, or one of ``mmedge.types.Backend``.
        precision: Use only this precision.
        speed: How many times faster than the recorded run; None as fast as possible.
        allow: Modules whose functions the bundle may call; as for ``Pipeline``.

    Attributes:
        statistics: Counts, and what this replay itself needed.
        cut: Why it ended before the recorded run did, or None.
        differs: Triggers that were decided otherwise than in the recorded run.
        answers: Results with the same and with other ``tasks`` than in the recorded run.
        keeps_media: Whether results give their pictures and sounds, which then stay in memory as long as they do.

    Raises:
        ConfigError: If folder and bundle do not fit.
        SourceError: If the recording's header is damaged.

    Example:
        >>> for result in Replay("lab1", mmedge.load("digits.mmedge")):  # doctest: +SKIP
        ...     print(result.tasks)
    """

    def __init__(
        self,
        folder: str | Path,
        bundle: Bundle,
        *,
        backend: Backend = "auto",
        precision: Precision | None = None,
        speed: float | None = None,
        allow: Sequence[str] = (),
    ) -> None:
        if speed is not None and not 0 < speed <= 1000:
            raise ConfigError(
                f"speed must be above 0 and at most 1000, got {speed}", where="speed", fix="leave it out for top speed"
            )
        self.recording = Recording(folder)
        self.cutter = Cutter(self.recording.header, bundle)
        self.statistics = Statistics()
        self.differs, self.keeps_media = 0, False
        self.answers: Counter[str] = Counter()
        self._bundle = bundle
        self._speed = speed
        self._backend, self._precision, self._allow = backend, precision, allow
        self._alike: frozenset[str] = frozenset()  # stages that the same file and backend serve again
        self._shifted: dict[str, frozenset[str]] = {}  # stages that ran at other triggers, and their seats
        self._outcomes: Counter[str] = Counter()
        self._cut: str | None = None

    @property
    def cut(self) -> str | None:
        """Why the replay ended before the recorded run did, or None."""
        return self._cut

    def __iter__(self) -> Iterator[Result]:
        """Yield the results in order.

        Raises:
            CheckError: At the end, if a trigger was decided otherwise than in the recorded run.
            EngineError: If a stage fails.
            SourceError: If an input whose policy is ``fail`` is absent, as in the recorded run.
        """
        # Decoding begins while the engines are loaded.
        turns = self.recording.turns(rates_hz=self.cutter.rates_hz, reuse=not self.keeps_media)
        with Ahead(_batches(turns), _AHEAD) as batches:
            yield from self._results(batches)
        if self.differs:
            all_of = self.statistics.triggers
            raise CheckError(
                f"{self.differs} of {all_of} triggers were decided differently than in the recorded run",
                where=str(self.recording.folder),
                fix=f"replay with the version that recorded it: mmedge {self.recording.header.mmedge}",
            )

    def _results(self, batches: Iterable[list[Turn]]) -> Iterator[Result]:
        header, statistics, sync = self.recording.header, self.statistics, self.cutter.sync
        graph = load_graph(
            self._bundle,
            backend=self._backend,
            precision=self._precision,
            patience=_PATIENCE,
            allow=self._allow,
            fed=self.cutter.attached,
        )
        try:
            statistics.backends, statistics.evidence = dict(graph.describe()), graph.evidence
            if header.bundle is not None and self.cutter.same:
                self._alike = frozenset(dict(graph.served.items() & header.bundle.served.items()))
            wall_ns = header.unix_ns - header.started_ns
            inference = Inference(self._bundle, graph, statistics, self.cutter.attached, origin="call", wall_ns=wall_ns)
            statistics.state = "READY"
            begin_ns = time.monotonic_ns()
            for turn in chain.from_iterable(batches):
                self._pace(turn.now_ns - header.started_ns, begin_ns)
                for snapshot in self.cutter.run(turn):
                    result = self._answer(snapshot, turn, sync, inference)
                    if result is not None:
                        yield result
                    if self._cut is not None:
                        return
                sync.trim()
            self._cut = self.recording.cut
            statistics.state = "STOPPED"
        finally:
            statistics.triggers = sync.triggers
            self._outcomes["after_end"] += sync.pending
            statistics.drops = {cause: n for cause, n in (Counter(sync.drops) + self._outcomes).items() if n}
            statistics.lost_samples = sync.lost_samples()
            sync.close()
            graph.close()

    def _pace(self, since_ns: int, begin_ns: int) -> None:
        if self._speed is not None:
            time.sleep(max(0.0, (begin_ns + since_ns / self._speed - time.monotonic_ns()) / 1e9))

    def _answer(self, snapshot: Snapshot, turn: Turn, sync: Synchronizer, inference: Inference) -> Result | None:
        event = turn.triggers.get(snapshot.seq) if self.cutter.obey else None
        if event is None and self.cutter.obey:
            if turn.last:
                return None  # its decision was not written any more
            self._differ(snapshot, "the recorded run knows no such trigger")
        if event is not None and event.outcome not in ("answered", "failed", "skipped"):
            self._outcomes[event.outcome] += 1
            self._compare(event, Decision(snapshot, event.outcome))
            return None
        for name, frame in snapshot.frames.items():
            if not frame.data.size:
                self._cut = f"picture {frame.seq} of '{name}' was not recorded, the disk was too slow"
                return None
        graph = inference.graph
        busy = () if event is None else event.busy
        recorded = event.failed if event is not None else ()
        failed = [{stage: why for stage, why in attempt.items() if stage in self._alike} for attempt in recorded]
        try:
            result = inference(snapshot, sync, busy, failed)
        except SkippedTrigger:
            self._outcomes["skipped"] += 1
            if event is not None:
                self._compare(event, Decision(snapshot, "skipped", None, graph.used_ns, graph.busy, graph.failed))
            return None
        if event is not None and event.outcome == "failed":
            event = None  # and did not this time
        if event is not None:
            decision = Decision(snapshot, "answered", result, graph.used_ns, graph.busy, graph.failed)
            self._excuse(event, decision, graph)
            self._compare(event, decision, deaf=graph.deaf)
        if event is not None and self.cutter.same:
            return self._timed(result, event.latency_ms)
        known_ms = {
            "deliver": round((snapshot.deliver_ns - snapshot.t_ns) / 1e6, 3),
            "ready": round(snapshot.wait_ns / 1e6, 3),
        }
        return self._timed(result, known_ms)

    def _excuse(self, event: TriggerEvent, decision: Decision, graph: StageGraph) -> None:
        """Note which stages ran at other triggers, since their rule began to count before a stream's first step."""
        behind = graph.behind
        for name in behind if graph.deaf else tuple(self._shifted):
            if event.used_ns.get(name) != decision.used_ns.get(name):
                self._shifted[name] = behind[name]
            elif not graph.deaf:
                del self._shifted[name]

    def _compare(self, event: TriggerEvent, decision: Decision, *, deaf: bool = False) -> None:
        own = trigger_event(decision)
        if self.cutter.same and not self._shifted and own.status is not None:
            own.latency_ms = event.latency_ms  # the one part that may differ
            if own == event:
                self.answers["equal"] += 1
                return
        if self._shifted:
            own, event = self._without_shifted(own), self._without_shifted(event)
        # A stage that something else serves may fail where it did not, and the other way round.
        free = any(not attempt.keys() <= self._alike for attempt in (*event.failed, *own.failed))
        # Before a stream's first step the stages behind it do not run; until this held they did, in older recordings.
        ignored = {"tasks", "latency_ms"} | (_OF_STAGES if deaf else set())
        for name in event.__struct_fields__:
            if name not in ignored and getattr(own, name) != getattr(event, name):
                what = f"{name} is {getattr(own, name)}, recorded {getattr(event, name)}"
                if self.cutter.same and not free:
                    self._differ(decision.snapshot, what)
                elif self.cutter.same:
                    self.answers["other"] += 1
                return
        if self.cutter.same and event.status is not None:
            self.answers["equal" if own.tasks == event.tasks else "other"] += 1

    def _without_shifted(self, event: TriggerEvent) -> TriggerEvent:
        seats = frozenset().union(*self._shifted.values())
        return msgspec.structs.replace(
            event,
            used_ns={name: t_ns for name, t_ns in event.used_ns.items() if name not in self._shifted},
            busy=tuple(name for name in event.busy if name not in self._shifted),
            age_ms={name: age_ms for name, age_ms in event.age_ms.items() if name not in seats},
        )

    def _differ(self, snapshot: Snapshot, what: str) -> None:
        self.differs += 1
        if self.differs == 1:
            log.warning("trigger %d was decided differently: %s", snapshot.seq, what)

    def _timed(self, result: Result, latency_ms: dict[str, float]) -> Result:
        """Return a result, with the outputs that it tells, and other latencies."""
        own = result.origin
        origin = KnownOrigin(from_ns=own.from_ns, outputs=own.outputs)
        if self.keeps_media:
            origin.frames, origin.sounds = own.frames, own.sounds
        return msgspec.structs.replace(result, latency_ms=latency_ms).made_from(origin)


def _batches(turns: Generator[Turn, None, None]) -> Generator[list[Turn], None, None]:
    """Yield turns by the dozen, or fewer of such as hold large pictures."""
    batch: list[Turn] = []
    size = 0
    try:
        for turn in turns:
            batch.append(turn)
            size += sum(packet.data.nbytes for packet in turn.packets if isinstance(packet, Frame))
            if len(batch) == _BATCH_TURNS or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
    finally:
        turns.close()
