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

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.sync.audio import AudioStream
from mmedge.sync.bounds import hold_ns, look_ahead_ns, wait_ns
from mmedge.sync.streams import FOREVER_NS, JUMP_NS, ImageStream, Stream, ValueStream
from mmedge.types import EndOfStream, FloatArray, Frame, Packet, Snapshot, Tensor, Text

# Triggers that may wait beside those whose time to wait is not over, and in all.
MAX_PENDING, MAX_PENDING_EVER = 8, 65_536
# For how much longer than the longest wait a window can be read, and for how long at most: files are read
# ahead by seconds.
RESERVE_NS, MAX_RESERVE_NS = 1_000_000_000, 30_000_000_000


@dataclass(slots=True)
class _Trigger:
    t_ns: int
    deliver_ns: int
    clock: Stream | None  # whose capture time it is
    epoch: int
    uncertainty_ns: int
    packet: Frame | Text | Tensor | None  # what made it; None: a hop


class Synchronizer:
    """Cuts one snapshot for each trigger.

    A trigger is made by each packet of the trigger's input, or every ``every_ms`` for audio and timer. While
    that input is dead, hops of whatever is alive keep its rate, from where it stopped.

    Args:
        inputs: Every seat of the bundle, in its order.
        attached: Name -> whether its source is live, for the inputs that have a source.
        missing: Policies by input.
        sync: Trigger, policy, alignment, deadline.
        started_ns: When the run began.
        lossless: Wait for data as long as it takes (files played as fast as possible).

    Attributes:
        triggers: All that were made: each becomes a snapshot, is dropped, or is pending.
        drops: Triggers that became no snapshot, by cause.
        refused: Other packets that were not taken, by input and cause.

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
        own = {name: spec for name, spec in inputs.items() if name in attached}
        self._names = tuple(inputs)
        self._sync = sync
        self._latest = sync.policy == "latest"
        self._lossless = lossless
        self._wait_ns = FOREVER_NS if lossless else wait_ns(sync, own)
        self._hold_ns = FOREVER_NS if lossless else hold_ns(sync, own)
        self._hop_ns = round(sync.every_ms * 1e6)
        self._now_ns = self._started_ns = started_ns
        self._streams = {n: self._make(n, spec, missing.get(n), live=attached[n]) for n, spec in own.items()}
        self._needed = [s for s in self._streams.values() if s.waits and not self._latest]
        ranked = [(s.rank, s) for s in self._streams.values() if s.rank is not None]
        self._clocks = [s for _, s in sorted(ranked, key=lambda entry: entry[0])]
        self._own = self._streams.get(sync.trigger)
        self._by_packet = self._own is not None and not isinstance(self._own, AudioStream)
        self._pending: deque[_Trigger] = deque()
        self._next_hop_ns: int | None = None
        self._hop_clock: tuple[Stream | None, int] = (None, 0)
        self._last_ns = -FOREVER_NS
        self._last_clock: tuple[Stream | None, int] = (None, 0)
        self._seq = 0
        self.triggers = 0
        self.drops: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def _make(self, name: str, spec: Input, missing: Missing | None, *, live: bool) -> Stream:
        if isinstance(spec, ImageInput):
            return ImageStream(name, missing, live=live)
        if isinstance(spec, AudioInput):
            ahead_ns = look_ahead_ns(self._sync, spec)
            reserve_ns = min(self._wait_ns + RESERVE_NS, MAX_RESERVE_NS)
            return AudioStream(name, spec, missing, live=live, ahead_ns=ahead_ns, reserve_ns=reserve_ns)
        ttl_ns = round(spec.ttl_ms * 1e6) if isinstance(spec, TextInput) and spec.ttl_ms else None
        rate_hz = spec.rate_hz if isinstance(spec, TensorInput) else None
        return ValueStream(name, missing, live=live, ttl_ns=ttl_ns, rate_hz=rate_hz)

    def push(self, packet: Packet) -> None:
        """Take one packet of an attached input.

        Raises:
            ConfigError: If there is no such input, or it takes packets of another kind.
        """
        stream = self._streams.get(packet.stream)
        if stream is None:
            raise ConfigError(
                f"the inputs with a source are {list(self._streams)}", where=f"input '{packet.stream}'", fix="attach it"
            )
        self._now_ns = max(self._now_ns, packet.arrive_ns)
        if isinstance(packet, EndOfStream):
            stream.end(packet)
        elif not isinstance(packet, stream.accepts):
            raise ConfigError(
                f"a {type(packet).__name__} cannot feed this input",
                where=f"input '{packet.stream}'",
                fix="push data of the input's own modality",
            )
        else:
            cause = stream.push(packet)
            if stream is self._own and isinstance(packet, (Frame, Text, Tensor)):
                self._on_packet(stream, packet, cause)
            elif cause is not None:
                self.refused[f"{packet.stream}_{cause}"] += 1
        self._make_hops(packet.arrive_ns)

    def advance(self, now_ns: int) -> None:
        """Tell the time."""
        self._now_ns = max(self._now_ns, now_ns)
        if self._ticks():
            self._make_hops(self._now_ns)

    def _on_packet(self, stream: Stream, packet: Frame | Text | Tensor, cause: str | None) -> None:
        self.triggers += 1
        if cause is not None:
            self.drops[cause] += 1
            return
        self._next_hop_ns = None
        self._append(
            _Trigger(packet.capture_ns, packet.arrive_ns, stream, stream.epoch, packet.uncertainty_ns, packet),
            stream.period_ns,
        )

    def _ticks(self) -> bool:
        """Tell whether the time itself is the timer's clock: only texts are there, which come when they like."""
        return (
            self._sync.trigger == "timer"
            and not self._lossless
            and not any(s.alive(self._now_ns, self._started_ns) for s in self._clocks)
            and any(s.rank is None and s.ended is None and s.last_arrive_ns for s in self._streams.values())
        )

    def _make_hops(self, deliver_ns: int) -> None:
        own, step_ns = self._own, self._hop_ns
        clock: Stream | None = None
        if own is not None:
            alive = own.alive(self._now_ns, self._started_ns)
            if own.ended_well or (alive and (self._by_packet or own.last_arrive_ns is None)):
                return
            clock = own if alive else None
            if self._by_packet and own.measured:
                step_ns = own.period_ns
        if clock is None:
            for clock in self._clocks:
                if clock.last_arrive_ns is not None and clock.alive(self._now_ns, self._started_ns):
                    break
            else:
                clock = None
                if not self._ticks():
                    return
        horizon_ns = self._now_ns if clock is None else clock.watermark_ns
        key = (clock, 0 if clock is None else clock.epoch)
        if key != self._hop_clock or self._next_hop_ns is None:
            self._hop_clock = key
            # Where the last trigger left off: what was alive meanwhile has come. Not after another origin of time.
            behind_ns = horizon_ns - self._last_ns
            patience_ns = JUMP_NS + (0 if own is None else own.idle_ns)
            resume = -JUMP_NS <= behind_ns <= patience_ns
            self._next_hop_ns = self._last_ns + step_ns if resume else horizon_ns
        behind = (horizon_ns - self._next_hop_ns) // step_ns - self._limit(step_ns)
        if behind > 0:
            # The bounded queue would drop them one by one: after a long block, or a wrong time stamp.
            self.triggers += behind
            self.drops["sync_overflow"] += behind
            self._next_hop_ns += behind * step_ns
        uncertainty_ns = 0 if clock is None else clock.uncertainty_ns
        while self._next_hop_ns <= horizon_ns:
            self.triggers += 1
            self._append(_Trigger(self._next_hop_ns, deliver_ns, *key, uncertainty_ns, None), step_ns)
            self._next_hop_ns += step_ns

    def _limit(self, step_ns: int) -> int:
        return min(MAX_PENDING + self._wait_ns // step_ns, MAX_PENDING_EVER)

    def _append(self, trigger: _Trigger, step_ns: int) -> None:
        key, back_ns = (trigger.clock, trigger.epoch), self._last_ns - trigger.t_ns
        if back_ns >= 0 and (key == self._last_clock or (key[0] is not self._last_clock[0] and back_ns <= JUMP_NS)):
            self.drops["late"] += 1  # the hops of a source that was thought dead have been there before
            return
        self._last_ns, self._last_clock = trigger.t_ns, key
        if len(self._pending) >= self._limit(step_ns):
            self._pending.popleft()
            self.drops["sync_overflow"] += 1
        self._pending.append(trigger)

    def next_deadline_ns(self) -> int | None:
        """Return when ``poll`` must be called even if nothing arrives, or None."""
        if self._lossless:
            return None
        if not self._pending:
            return self._next_hop_ns if self._ticks() else None
        trigger = self._pending[0]
        # What holds it back may fall silent before the deadline.
        silent_ns = max((s.silent_from_ns(self._started_ns) for s in self._blockers(trigger)), default=self._now_ns)
        return min(trigger.deliver_ns + self._wait_ns, silent_ns)

    def _blockers(self, trigger: _Trigger) -> list[Stream]:
        """Return what a trigger still waits for.

        A source that fell silent is not among them: like a watermark that goes on by itself, a delay behind
        the time, but no trigger waits out that delay.
        """
        return [
            s
            for s in self._needed
            if not s.complete(trigger.t_ns)
            and not (s is trigger.clock and trigger.packet is not None)
            and s.alive(self._now_ns, self._started_ns)
        ]

    def poll(self) -> list[Snapshot]:
        """Return the snapshots that are ready, in order of capture time.

        The caller owns them until its next ``poll``; frames are released by ``trim``.
        """
        ready: list[Snapshot] = []
        while self._pending:
            trigger = self._pending[0]
            if self._now_ns < trigger.deliver_ns + self._wait_ns and self._blockers(trigger):
                break
            self._pending.popleft()
            snapshot = self._cut(trigger)
            if snapshot is not None:
                ready.append(snapshot)
        return ready

    def _cut(self, trigger: _Trigger) -> Snapshot | None:
        self._seq += 1
        snapshot = Snapshot(
            t_ns=trigger.t_ns,
            seq=self._seq,
            present=dict.fromkeys(self._names, False),
            deliver_ns=trigger.deliver_ns,
            wait_ns=max(self._now_ns - trigger.deliver_ns, 0),
            on_frame=isinstance(trigger.packet, Frame),
        )
        reasons = []
        others_ns = 0
        for name, stream in self._streams.items():
            epoch = stream.epoch
            if stream is trigger.clock and trigger.packet is not None:
                reason, epoch = stream.admit(snapshot, trigger.packet, trigger.t_ns), trigger.epoch
            else:
                reason = stream.cut(snapshot, trigger.t_ns, latest=self._latest)
            if reason is None:
                snapshot.present[name] = True
                snapshot.epoch[name] = epoch
                if stream is not trigger.clock:
                    used = snapshot.frames.get(name) or snapshot.values.get(name)
                    others_ns = max(others_ns, (used or stream).uncertainty_ns)
            elif stream.policy == "skip":
                self.drops[f"skip_{name}"] += 1
                return None
            else:
                reasons.append(reason)
        for name, epoch in snapshot.epoch.items():
            if self._streams[name].runs_back(epoch, trigger.t_ns):
                self.drops["late"] += 1  # a clock that was far off has been here before
                return None
        for name, epoch in snapshot.epoch.items():
            self._streams[name].last_cut = (epoch, trigger.t_ns)
        # The trigger's own time may be wrong one way and that of another input the other way.
        snapshot.uncertainty_ms = (trigger.uncertainty_ns + others_ns) / 1e6
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
        pending, wanted = self._pending, None
        oldest_ns = self._last_ns
        if pending:
            oldest_ns = min(trigger.t_ns for trigger in pending)
            wanted = next((t.packet for t in pending if t.packet is not None), None)
        elif self._own is not None and self._own.ended_well:
            oldest_ns = FOREVER_NS  # no trigger will come any more
        for stream in self._streams.values():
            stream.trim(max(oldest_ns, stream.watermark_ns - self._hold_ns), wanted)

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
            (
                max(s.watermark_ns, self._started_ns)
                for s in map(self._streams.__getitem__, others)
                if s.ended is None and s.waits
            ),
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
