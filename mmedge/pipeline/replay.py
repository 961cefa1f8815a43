"""Replay: the same calls in the same order give the same decisions, and the same media the same answers."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import AudioInput, Input, Missing, Sync
from mmedge.errors import CheckError, ConfigError, SourceError
from mmedge.fusion import load_graph
from mmedge.pipeline.event_log import (
    BlockEvent,
    DropEvent,
    FrameEvent,
    Header,
    HealthEvent,
    LogReader,
    PacketEvent,
    PollEvent,
    TensorEvent,
    TextEvent,
    TriggerEvent,
    read_header,
)
from mmedge.pipeline.inference import Inference, validated_masks
from mmedge.pipeline.media_files import MediaReader
from mmedge.pipeline.recorder import Decision, manifest_digest, trigger_event
from mmedge.pipeline.statistics import Statistics
from mmedge.sync import Synchronizer
from mmedge.types import Block, EndOfStream, Frame, Packet, Result, Snapshot, Tensor, Text

log = logging.getLogger("mmedge.replay")
_CUTTING = ("trigger", "policy", "align", "every_ms")


@dataclass(slots=True)
class Turn:
    """One turn of the recorded run: what was pushed, when it was polled, what became of the triggers by number."""

    events: list[PacketEvent] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    now_ns: int = 0
    triggers: dict[int, TriggerEvent] = field(default_factory=dict)
    notes: list[DropEvent | HealthEvent] = field(default_factory=list)
    last: bool = False


class Recording:
    """A recording's folder, open for reading.

    Args:
        folder: As ``mmedge record`` or ``mmedge run --record`` made it, whole or cut off anywhere.

    Attributes:
        header: What was recorded.
        cut: After ``turns``: why they end before the recorded run did; None when they do not.

    Raises:
        ConfigError: If the folder holds no recording.
        SourceError: If its header is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.header: Header = read_header(self.folder)
        self.cut: str | None = None

    def turns(self, *, media: bool = True) -> Iterator[Turn]:
        """Yield every turn that is whole, up to the first packet whose data are not there.

        Args:
            media: Decode pictures and sound; otherwise pictures are empty and sound is silent.
        """
        log_reader = LogReader(self.folder, tuple(self.header.inputs))
        readers = {n: MediaReader(self.folder, entry.files) for n, entry in self.header.inputs.items()} if media else {}
        turn, polled = Turn(), False
        self.cut = None
        try:
            for event in log_reader:
                if polled and isinstance(event, (PacketEvent, PollEvent)):
                    yield turn
                    turn, polled = Turn(), False
                if isinstance(event, PollEvent):
                    turn.now_ns, polled = event.now_ns, True
                elif isinstance(event, TriggerEvent):
                    turn.triggers[event.seq] = event
                elif isinstance(event, (DropEvent, HealthEvent)):
                    turn.notes.append(event)
                elif isinstance(event, PacketEvent):
                    turn.events.append(event)
                    turn.packets.append(_packet(event, readers.get(event.stream)))
            if polled:
                turn.last = True
                yield turn
        except SourceError as error:
            self.cut = error.message
        finally:
            self.cut = self.cut or log_reader.cut
            for reader in readers.values():
                reader.close()


def _packet(event: PacketEvent, reader: MediaReader | None) -> Packet:
    stamp: dict[str, Any] = {name: getattr(event, name) for name in Packet.__dataclass_fields__}
    if isinstance(event, FrameEvent):
        return Frame(
            **stamp,
            data=np.empty((0, 0), np.uint8) if reader is None else reader.picture(event),
            format=event.format,
            width=event.width,
            height=event.height,
            full_range=event.full_range,
            unchanged_ns=event.unchanged_ns,
        )
    if isinstance(event, BlockEvent):
        samples = np.zeros(event.samples, np.float32) if reader is None else reader.sound(event)
        return Block(**stamp, samples=samples, lost=event.lost)
    if isinstance(event, TensorEvent):
        return Tensor(**stamp, data=np.empty(0, event.dtype) if reader is None else reader.tensor(event))
    if isinstance(event, TextEvent):
        return Text(**stamp, text=event.text)
    return EndOfStream(**stamp, reason=event.reason)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a replay cuts: as the recorded run did (``obey``), or as another bundle does.

    Attributes:
        attached: Input name -> whether it was live, for the recorded inputs that the bundle has.
        obey: The recorded decisions hold.
        same: It is the very bundle of the recorded run, so that answers must be equal too.
    """

    seats: dict[str, Input]
    attached: dict[str, bool]
    missing: dict[str, Missing]
    sync: Sync
    obey: bool
    same: bool

    def synchronizer(self, header: Header) -> Synchronizer:
        """Return a synchroniser in the state in which the recorded run began."""
        return Synchronizer(
            self.seats, self.attached, self.missing, self.sync, started_ns=header.started_ns, lossless=header.lossless
        )


def choose_rules(header: Header, bundle: Bundle) -> Rules:
    """Return how ``bundle`` replays a recording.

    Raises:
        ConfigError: If the recorded inputs do not fit the bundle.
    """
    manifest, ran = bundle.manifest, header.bundle
    where = f"the recording and {bundle.path}"
    attached = {name: entry.live for name, entry in header.inputs.items() if name in manifest.inputs}
    for name in attached:
        own, seat = header.inputs[name].spec, manifest.inputs[name]
        if type(own) is not type(seat):
            raise ConfigError(
                f"input '{name}' was recorded as {_modality(own)}, the bundle's is {_modality(seat)}",
                where=where,
                fix="use a bundle of the same inputs",
            )
        if isinstance(own, AudioInput) and isinstance(seat, AudioInput) and own.sample_rate_hz != seat.sample_rate_hz:
            raise ConfigError(
                f"input '{name}' was recorded at {own.sample_rate_hz} Hz, the bundle takes {seat.sample_rate_hz} Hz",
                where=where,
                fix="record with --bundle, or with --rate",
            )
    if frozenset(attached) not in validated_masks(manifest):
        raise ConfigError(
            f"the recording has {sorted(header.inputs)}, which is no validated mask of this bundle",
            where=where,
            fix=f"use a bundle of the same inputs; this one has {list(manifest.inputs)}",
        )
    ignored = sorted(set(header.inputs) - set(attached))
    if ignored:
        log.warning("the bundle has no input %s: what was recorded of it is ignored", ignored)
    obey = (
        ran is not None
        and not ignored
        and ran.seats == manifest.inputs
        and ran.missing == manifest.missing
        and all(getattr(ran.sync, key) == getattr(manifest.sync, key) for key in _CUTTING)
    )
    same = ran is not None and ran.manifest_sha256 == manifest_digest(bundle)
    if ran is not None and not obey:
        log.warning("the bundle cuts otherwise than '%s', which was recorded: its decisions are made anew", ran.name)
    sync = ran.sync if ran is not None and obey else manifest.sync
    return Rules(manifest.inputs, attached, manifest.missing, sync, obey, same)


def _modality(spec: Input) -> str:
    return type(spec).__name__.removesuffix("Input").lower()


class Replay:
    """Runs a bundle on a recording, in the caller's thread.

    Iterate it once. With the bundle of the recorded run, every result is what that run gave, its latencies
    included. With another one, ``latency_ms`` holds what the recording alone determines: ``deliver`` and ``ready``.

    Args:
        folder: The recording.
        bundle: What to run; open.
        backend: ``auto``, ``onnxruntime`` or ``tensorrt``.
        precision: Use only this precision.
        speed: How many times faster than the recorded run; None as fast as possible.

    Attributes:
        statistics: Counts, and what this replay itself needed.
        cut: Why it ended before the recorded run did, or None.
        differs: Triggers that were decided otherwise than in the recorded run.
        answers: Results with the same and with other ``tasks`` than in the recorded run.

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
        backend: Literal["auto", "onnxruntime", "tensorrt"] = "auto",
        precision: Literal["fp32", "fp16", "int8"] | None = None,
        speed: float | None = None,
    ) -> None:
        if speed is not None and not 0 < speed <= 1000:
            raise ConfigError(f"speed {speed} is not in 0..1000", where="speed", fix="leave it out for top speed")
        self.recording = Recording(folder)
        self.rules = choose_rules(self.recording.header, bundle)
        self.statistics = Statistics()
        self.differs = 0
        self.answers: Counter[str] = Counter()
        self._bundle = bundle
        self._speed = speed
        self._choice = {"backend": backend, "precision": precision}
        self._outcomes: Counter[str] = Counter()

    @property
    def cut(self) -> str | None:
        """Why the replay ended before the recorded run did, or None."""
        return self.recording.cut

    def __iter__(self) -> Iterator[Result]:
        """Yield the results in order.

        Raises:
            CheckError: At the end, if a trigger was decided otherwise than in the recorded run.
            EngineError: If a stage fails.
            SourceError: If an input whose policy is ``fail`` is absent, as in the recorded run.
        """
        header, statistics = self.recording.header, self.statistics
        graph = load_graph(self._bundle, **self._choice)  # type: ignore[arg-type]
        sync = self.rules.synchronizer(header)
        try:
            statistics.backends, statistics.evidence = dict(graph.describe()), graph.evidence
            inference = Inference(self._bundle, graph, statistics, self.rules.attached, origin="call")
            statistics.state = "READY"
            begin_ns = time.monotonic_ns()
            for turn in self.recording.turns():
                self._pace(turn.now_ns - header.started_ns, begin_ns)
                for snapshot in run_turn(sync, turn, self.rules):
                    result = self._answer(snapshot, turn, sync, inference)
                    if result is not None:
                        yield result
                sync.trim()
            statistics.state = "STOPPED"
        finally:
            statistics.triggers = sync.triggers
            statistics.drops = {cause: n for cause, n in (Counter(sync.drops) + self._outcomes).items() if n}
            statistics.lost_samples = sync.lost_samples()
            sync.close()
            graph.close()
        if self.differs:
            raise CheckError(
                f"{self.differs} of {sync.triggers} triggers were decided otherwise than in the recorded run",
                where=str(self.recording.folder),
                fix=f"replay with the version that recorded it: mmedge {header.mmedge}",
            )

    def _pace(self, since_ns: int, begin_ns: int) -> None:
        if self._speed is not None:
            time.sleep(max(0.0, (begin_ns + since_ns / self._speed - time.monotonic_ns()) / 1e9))

    def _answer(self, snapshot: Snapshot, turn: Turn, sync: Synchronizer, inference: Inference) -> Result | None:
        event = turn.triggers.get(snapshot.seq) if self.rules.obey else None
        if event is None and self.rules.obey:
            if turn.last:
                return None  # its decision was not written any more
            self._differ(snapshot, "the recorded run knows no such trigger")
        if event is not None and event.outcome == "failed":
            event = None  # what failed then is tried again
        if event is not None and event.outcome != "answered":
            self._outcomes[event.outcome] += 1
            self._compare(event, Decision(snapshot, event.outcome))
            return None
        graph = inference.graph
        result = inference(snapshot, sync, () if event is None else event.busy)
        if event is not None:
            self._compare(event, Decision(snapshot, "answered", result, graph.used_ns, graph.busy))
        if event is not None and self.rules.same:
            return msgspec.structs.replace(result, latency_ms=event.latency_ms)
        known_ms = {
            "deliver": round((snapshot.deliver_ns - snapshot.t_ns) / 1e6, 3),
            "ready": round(snapshot.wait_ns / 1e6, 3),
        }
        return msgspec.structs.replace(result, latency_ms=known_ms)

    def _compare(self, event: TriggerEvent, decision: Decision) -> None:
        own = trigger_event(decision)
        for name in event.__struct_fields__:
            if name not in ("tasks", "latency_ms") and getattr(own, name) != getattr(event, name):
                what = f"{name} is {getattr(own, name)}, recorded {getattr(event, name)}"
                if self.rules.same:
                    self._differ(decision.snapshot, what)
                return
        if self.rules.same and event.status is not None:
            self.answers["equal" if own.tasks == event.tasks else "other"] += 1

    def _differ(self, snapshot: Snapshot, what: str) -> None:
        self.differs += 1
        if self.differs == 1:
            log.warning("trigger %d was decided otherwise: %s", snapshot.seq, what)


def run_turn(sync: Synchronizer, turn: Turn, rules: Rules) -> list[Snapshot]:
    """Give a turn's packets and time to ``sync``; return the snapshots."""
    snapshots: list[Snapshot] = []
    if not rules.obey:
        # The recorded run did not wake for these triggers' deadlines: it had others, or none.
        snapshots += _overdue(sync, min((packet.arrive_ns for packet in turn.packets), default=turn.now_ns))
    for packet in turn.packets:
        if packet.stream in rules.attached:
            sync.push(packet)
    if not rules.obey:
        snapshots += _overdue(sync, turn.now_ns)
    sync.advance(turn.now_ns)
    return snapshots + sync.poll()


def _overdue(sync: Synchronizer, until_ns: int) -> list[Snapshot]:
    snapshots: list[Snapshot] = []
    while (due_ns := sync.next_deadline_ns()) is not None and due_ns < until_ns:
        sync.advance(due_ns)
        snapshots += sync.poll()
    return snapshots
