"""The synchroniser: packets in, snapshots out, on capture time alone.

It reads no clock and starts no thread: ``push`` an event, ``advance`` the time, ``poll`` what is
ready. The same calls give the same snapshots. Design: a trigger is a capture time; audio is cut from
a time-indexed ring exactly there, once its watermark has passed the trigger or the deadline is over
(watermarks as in MediaPipe's timestamp bounds, bounded lateness and idleness as in Apache Flink).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TextInput
from mmedge.errors import ConfigError
from mmedge.sync.streams import FOREVER_NS, AudioStream, ImageStream, Stream, ValueStream, admit
from mmedge.types import Block, EndOfStream, FloatArray, Frame, Packet, Snapshot, Tensor, Text

MAX_PENDING = 8


@dataclass(slots=True)
class _Trigger:
    t_ns: int
    deliver_ns: int
    frame: Frame | None


class Synchronizer:
    """Cuts one snapshot for each trigger.

    Args:
        inputs: Every seat of the bundle, in its order.
        attached: Name -> whether its source is live, for the inputs that have a source.
        missing: Policies by input.
        sync: Trigger, policy, alignment, deadline.
        started_ns: When the run began.
        lossless: Wait for data as long as it takes (files played as fast as possible).

    Raises:
        ConfigError: If no input is attached or an attached one does not exist.

    Example:
        >>> sync = Synchronizer(inputs, {"image": True}, {}, spec, started_ns=0)  # doctest: +SKIP
        >>> sync.push(frame); sync.advance(now_ns); sync.poll()  # doctest: +SKIP
        [Snapshot(...)]
    """

    def __init__(
        self,
        inputs: Mapping[str, Input],
        attached: Mapping[str, bool],
        missing: Mapping[str, Missing],
        sync: Sync,
        *,
        started_ns: int,
        lossless: bool = False,
    ) -> None:
        if not attached or not set(attached) <= set(inputs):
            raise ConfigError(
                f"the bundle's inputs are {list(inputs)}, sources were given for {list(attached)}",
                where="inputs",
                fix="give a source to at least one of its inputs, and to no other name",
            )
        self._names = tuple(inputs)
        self._sync = sync
        self._lossless = lossless
        self._deadline_ns = FOREVER_NS if lossless else round(sync.deadline_ms * 1e6)
        self._hop_ns = round(sync.every_ms * 1e6)
        self._now_ns = self._started_ns = started_ns
        self._streams: dict[str, Stream] = {}
        for name, live in attached.items():
            self._streams[name] = self._make(name, inputs[name], missing.get(name), live=live)
        self._pending: deque[_Trigger] = deque()
        self._next_hop_ns: int | None = None
        self._last_t_ns = -FOREVER_NS
        self._last_epoch = 0
        self._seq = 0
        self.triggers = 0
        self.drops: Counter[str] = Counter()

    def _make(self, name: str, spec: Input, missing: Missing | None, *, live: bool) -> Stream:
        if isinstance(spec, ImageInput):
            return ImageStream(name, missing, live=live)
        if isinstance(spec, AudioInput):
            window_ns = round(spec.window_ms * 1e6)
            reserve = window_ns + (10_000_000_000 if self._lossless else self._deadline_ns + 1_000_000_000)
            return AudioStream(name, spec, missing, live=live, reserve_ns=reserve)
        ttl = round(spec.ttl_ms * 1e6) if isinstance(spec, TextInput) and spec.ttl_ms else None
        return ValueStream(name, missing, live=live, ttl_ns=ttl)

    def push(self, packet: Packet) -> None:
        """Take one packet of an attached input."""
        stream = self._streams[packet.stream]
        if isinstance(packet, EndOfStream):
            stream.ended = packet
        elif isinstance(packet, Frame) and isinstance(stream, ImageStream):
            stream.push(packet)
        elif isinstance(packet, Block) and isinstance(stream, AudioStream):
            stream.push(packet)
        elif isinstance(packet, (Text, Tensor)) and isinstance(stream, ValueStream):
            stream.push(packet)
        else:
            raise ConfigError(
                f"a {type(packet).__name__} cannot feed this input",
                where=f"input '{packet.stream}'",
                fix="push data of the input's own modality",
            )
        self._now_ns = max(self._now_ns, packet.arrive_ns)
        self._make_triggers(packet)

    def advance(self, now_ns: int) -> None:
        """Tell the time."""
        self._now_ns = max(self._now_ns, now_ns)

    def _make_triggers(self, packet: Packet) -> None:
        trigger = self._sync.trigger
        stream = self._streams.get(trigger)
        if isinstance(stream, ImageStream):
            if isinstance(packet, Frame) and packet.stream == trigger:
                self._append(packet.capture_ns, packet.arrive_ns, packet)
                self._next_hop_ns = None
            if stream.alive(self._now_ns, self._started_ns) or self._ended_well(stream):
                return
        # Hops of the trigger's own audio; or, since a dead input never lowers the rate, of what is alive.
        clocks = [self._streams[trigger]] if trigger in self._streams and stream is not None else []
        if not clocks or not clocks[0].alive(self._now_ns, self._started_ns):
            clocks = [s for s in self._streams.values() if s.alive(self._now_ns, self._started_ns)]
        horizon = max((s.watermark_ns for s in clocks), default=-FOREVER_NS)
        if horizon == -FOREVER_NS:
            return
        if self._next_hop_ns is None:
            self._next_hop_ns = max(horizon, self._last_t_ns + self._hop_ns)
        behind = (horizon - self._next_hop_ns) // self._hop_ns - MAX_PENDING
        if behind > 0 and not self._lossless:
            # The bounded queue would drop them one by one: after a long block, or a wrong time stamp.
            self.triggers += behind
            self.drops["sync_overflow"] += behind
            self._next_hop_ns += behind * self._hop_ns
        while self._next_hop_ns <= horizon:
            self._append(self._next_hop_ns, packet.arrive_ns, None)
            self._next_hop_ns += self._hop_ns

    @staticmethod
    def _ended_well(stream: Stream) -> bool:
        return stream.ended is not None and stream.ended.reason is None and stream.last_arrive_ns is not None

    def _append(self, t_ns: int, deliver_ns: int, frame: Frame | None) -> None:
        self.triggers += 1
        epoch = self._last_epoch if frame is None else frame.epoch
        if t_ns <= self._last_t_ns and epoch == self._last_epoch:
            self.drops["time_backwards"] += 1
            return
        self._last_t_ns, self._last_epoch = t_ns, epoch
        if len(self._pending) >= MAX_PENDING and not self._lossless:
            self._pending.popleft()
            self.drops["sync_overflow"] += 1
        self._pending.append(_Trigger(t_ns, deliver_ns, frame))

    def next_deadline_ns(self) -> int | None:
        """Return when ``poll`` must be called even if nothing arrives, or None."""
        if not self._pending or self._lossless:
            return None
        return self._due_ns(self._pending[0])

    def _due_ns(self, trigger: _Trigger) -> int:
        """Return when a trigger leaves whatever is there: the deadline counts from when its data can be complete."""
        ahead = max(self._needed_ns(s, trigger.t_ns) - trigger.t_ns for s in self._streams.values())
        return trigger.deliver_ns + ahead + self._deadline_ns

    def poll(self) -> list[Snapshot]:
        """Return the snapshots that are ready, in order of capture time.

        The caller owns them until its next ``poll``; frames are released by ``trim``.
        """
        ready: list[Snapshot] = []
        while self._pending:
            trigger = self._pending[0]
            overdue = self._now_ns >= self._due_ns(trigger)
            if not overdue and any(self._blocks(s, trigger) for s in self._streams.values()):
                break
            self._pending.popleft()
            snapshot = self._cut(trigger)
            if snapshot is not None:
                ready.append(snapshot)
        return ready

    def _needed_ns(self, stream: Stream, t_ns: int) -> int:
        if not isinstance(stream, AudioStream) or self._sync.align == "end":
            return t_ns
        window_ns = stream.window * 1_000_000_000 // stream.rate_hz
        return t_ns + (window_ns if self._sync.align == "start" else window_ns // 2)

    def _blocks(self, stream: Stream, trigger: _Trigger) -> bool:
        if not stream.waits or self._sync.policy == "latest":
            return False
        if isinstance(stream, ImageStream) and trigger.frame is not None and trigger.frame.stream == stream.name:
            return False
        if stream.complete(self._needed_ns(stream, trigger.t_ns)):
            return False
        return stream.alive(self._now_ns, self._started_ns)

    def _cut(self, trigger: _Trigger) -> Snapshot | None:
        self._seq += 1
        snapshot = Snapshot(
            t_ns=trigger.t_ns,
            seq=self._seq,
            present=dict.fromkeys(self._names, False),
            deliver_ns=trigger.deliver_ns,
            wait_ns=max(self._now_ns - trigger.deliver_ns, 0),
            on_frame=trigger.frame is not None,
        )
        latest = self._sync.policy == "latest"
        reasons = []
        for name, stream in self._streams.items():
            if isinstance(stream, ImageStream) and trigger.frame is not None and trigger.frame.stream == name:
                reason = admit(stream, snapshot, trigger.frame, trigger.t_ns)
            else:
                reason = stream.cut(snapshot, self._needed_ns(stream, trigger.t_ns), latest=latest)
            snapshot.present[name] = reason is None
            if reason is None:
                snapshot.epoch[name] = stream.epoch
                snapshot.uncertainty_ms = max(snapshot.uncertainty_ms, stream.uncertainty_ns / 1e6)
                continue
            if stream.policy == "skip":
                self.drops[f"skip_{name}"] += 1
                return None
            reasons.append(reason)
        snapshot.reason = "; ".join(reasons) or None
        return snapshot

    def failed(self, snapshot: Snapshot) -> str | None:
        """Return the name of an absent input whose policy is ``fail``, or None."""
        for name, stream in self._streams.items():
            starting = stream.last_arrive_ns is None and stream.alive(self._now_ns, self._started_ns)
            if stream.policy == "fail" and not snapshot.present[name] and not starting:
                return name
        return None

    def read_audio(self, name: str, snapshot: Snapshot, out: FloatArray) -> int:
        """Copy the window of ``snapshot`` into ``out``; return how many samples are real."""
        stream = self._streams[name]
        if not isinstance(stream, AudioStream):
            raise ConfigError("this input has no sound", where=f"input '{name}'")
        return stream.read(snapshot.audio_end[name], out)

    def trim(self) -> None:
        """Release the frames that neither a pending trigger nor the snapshots polled so far can want."""
        trigger = self._streams.get(self._sync.trigger)
        oldest = self._pending[0].t_ns if self._pending else self._last_t_ns
        if not self._pending and trigger is not None and self._ended_well(trigger):
            oldest = FOREVER_NS  # no trigger will come any more
        for stream in self._streams.values():
            if isinstance(stream, ImageStream):
                stream.trim(oldest)

    @property
    def pending(self) -> int:
        """Triggers that still wait."""
        return len(self._pending)

    @property
    def finished(self) -> bool:
        """True when every source has ended and no trigger waits."""
        return not self._pending and all(s.ended is not None for s in self._streams.values())

    def ahead_ns(self, packet: Packet, others: tuple[str, ...]) -> int:
        """Return how far ``packet`` is ahead of the slowest of ``others``; may be called from any thread."""
        slowest = min(
            (max(s.watermark_ns, self._started_ns) for s in map(self._streams.__getitem__, others) if s.ended is None),
            default=FOREVER_NS,
        )
        return packet.capture_ns - slowest

    def lost_samples(self) -> dict[str, int]:
        """Return the lost samples of each audio input."""
        return {n: s.lost for n, s in self._streams.items() if isinstance(s, AudioStream)}

    def close(self) -> None:
        """Release every frame."""
        self._pending.clear()
        for stream in self._streams.values():
            stream.close()
