"""The synchroniser in Python: packets in, snapshots out, on capture time alone.

It reads no clock and starts no thread: ``push`` an event, ``advance`` the time, ``poll`` what is
ready. The same calls give the same snapshots. Design: a trigger is a capture time; audio is cut from
a time-indexed ring exactly there, once its watermark has passed the trigger or the deadline is over
(watermarks as in MediaPipe's timestamp bounds, bounded lateness and idleness as in Apache Flink).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.plan.bounds import hold_ns, look_ahead_ns, wait_ns
from mmedge.sound_cut import SoundCut
from mmedge.types import Arrival, EndOfStream, FloatArray, Frame, Packet, Snapshot, Tensor, Text
from tests.oracle.audio import AudioStream
from tests.oracle.streams import FOREVER_NS, ImageStream, Stream, ValueStream
from tests.oracle.triggers import Trigger, Triggers

# For how much longer than the longest wait a window can be read, and for how long at most: files are read
# ahead by seconds.
RESERVE_NS, MAX_RESERVE_NS = 1_000_000_000, 30_000_000_000


class Synchronizer:
    """Cuts one snapshot for each trigger.

    Args:
        inputs: Every seat of the bundle, in its order.
        attached: Name -> whether its source is live, for the inputs that have a source.
        missing: Policies by input.
        sync: Trigger, policy, alignment, deadline.
        started_ns: When the run began.
        lossless: Wait for data as long as it takes (files played as fast as possible).

    Attributes:
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
        self._now_ns = self._started_ns = started_ns
        self._streams = {n: self._make(n, spec, missing.get(n), live=attached[n]) for n, spec in own.items()}
        self._needed = [s for s in self._streams.values() if s.waits and not self._latest]
        self._triggers = Triggers(self._streams, sync, wait_ns=self._wait_ns, lossless=lossless)
        self._pending = self._triggers.pending
        # A text makes no triggers, unless it is the trigger itself, goes with a timer, or nothing else is there.
        making = [s for s in self._streams.values() if s.rank is not None or s is self._triggers.own]
        self._making = making if making and not self._triggers.ticking else list(self._streams.values())
        self.drops = self._triggers.drops
        self._seq = 0
        self.refused: Counter[str] = Counter()

    def _make(self, name: str, spec: Input, missing: Missing | None, *, live: bool) -> Stream:
        if isinstance(spec, ImageInput):
            return ImageStream(name, missing, live=live, started_ns=self._started_ns)
        if isinstance(spec, AudioInput):
            ahead_ns = look_ahead_ns(self._sync, spec)
            reserve_ns = min(self._wait_ns + RESERVE_NS, MAX_RESERVE_NS)
            return AudioStream(
                name, spec, missing, live=live, started_ns=self._started_ns, ahead_ns=ahead_ns, reserve_ns=reserve_ns
            )
        ttl_ns = round(spec.ttl_ms * 1e6) if isinstance(spec, TextInput) and spec.ttl_ms else None
        rate_hz = spec.rate_hz if isinstance(spec, TensorInput) else None
        paced = isinstance(spec, TensorInput)
        return ValueStream(
            name, missing, live=live, started_ns=self._started_ns, ttl_ns=ttl_ns, rate_hz=rate_hz, paced=paced
        )

    def push(self, packet: Packet) -> None:
        """Take one packet of an attached input.

        Raises:
            ConfigError: If there is no such input, or it takes packets of another kind.
        """
        stream = self._streams.get(packet.stream)
        if stream is None:
            raise ConfigError(
                f"only {list(self._streams)} have a source",
                where=f"input '{packet.stream}'",
                fix="attach a source to this input",
            )
        if packet.arrive_ns > self._now_ns:
            self._now_ns = packet.arrive_ns
        if isinstance(packet, EndOfStream):
            stream.end(packet)
        elif isinstance(packet, Arrival):
            let_go = stream.passed(packet) or "overrun"
            if stream is self._triggers.own and not isinstance(stream, AudioStream):  # hops on sound follow what is cut
                self._triggers.on_packet(stream, packet, let_go)
            else:
                self.refused[f"{packet.stream}_{let_go}"] += 1
        elif not isinstance(packet, stream.accepts):
            raise ConfigError(
                f"a {type(packet).__name__} cannot feed this input",
                where=f"input '{packet.stream}'",
                fix="push data of the input's own modality",
            )
        else:
            cause = stream.push(packet)
            if stream is self._triggers.own and isinstance(packet, (Frame, Text, Tensor)):
                self._triggers.on_packet(stream, packet, cause)
            elif cause is not None:
                self.refused[f"{packet.stream}_{cause}"] += 1
        self._triggers.make_hops(self._now_ns, packet.arrive_ns)

    def advance(self, now_ns: int) -> None:
        """Tell the time."""
        self._now_ns = max(self._now_ns, now_ns)
        if self._triggers.ticking and self._triggers.ticks(self._now_ns):
            self._triggers.make_hops(self._now_ns, self._now_ns)

    def next_deadline_ns(self) -> int | None:
        """Return when ``poll`` must be called even if nothing arrives, or None."""
        if self._lossless:
            return None
        if not self._pending:
            return self._triggers.next_tick_ns(self._now_ns)
        trigger = self._pending[0]
        # What holds it back may fall silent before the deadline.
        blocking = (s.silent_ns for s in self._needed if self._blocks(s, trigger))
        silent_ns = max(blocking, default=self._now_ns)
        return min(trigger.deliver_ns + self._wait_ns, silent_ns)

    def _blocks(self, stream: Stream, trigger: Trigger) -> bool:
        """Tell whether a trigger still waits for a stream.

        It does not for one that fell silent: like a watermark that goes on by itself, a delay behind the
        time, but no trigger waits out that delay.
        """
        if stream.complete(trigger.t_ns) or (stream is trigger.clock and trigger.packet is not None):
            return False
        return stream.alive(self._now_ns)

    def poll(self) -> list[Snapshot]:
        """Return the snapshots that are ready, in order of capture time.

        The caller owns them until its next ``poll``; frames are released by ``trim``.
        """
        ready: list[Snapshot] = []
        if not self._pending:
            return ready
        while self._pending:
            trigger = self._pending[0]
            if self._now_ns < trigger.deliver_ns + self._wait_ns and any(
                self._blocks(stream, trigger) for stream in self._needed
            ):
                break
            self._pending.popleft()
            snapshot = self._cut(trigger)
            if snapshot is not None:
                ready.append(snapshot)
        self._triggers.polled()
        return ready

    def _cut(self, trigger: Trigger) -> Snapshot | None:
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
            elif stream.let_go_near(trigger.t_ns):
                self.drops["overrun"] += 1  # what it wanted had come, and made room for what is newer
                return None
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
        snapshot.stamp_uncertainty_ns = trigger.uncertainty_ns
        snapshot.uncertainty_ms = (trigger.uncertainty_ns + others_ns) / 1e6
        snapshot.reason = "; ".join(reasons) or None
        return snapshot

    def failed(self, snapshot: Snapshot) -> str | None:
        """Return the name of an absent input whose policy is ``fail``, or None."""
        for name, stream in self._streams.items():
            gone = stream.policy == "fail" and not snapshot.present[name]
            if gone and not stream.starting(snapshot.t_ns, self._now_ns):
                return name
        return None

    def policy(self, name: str) -> str:
        """Return what happens when an attached input is absent."""
        return self._streams[name].policy

    def read_audio(self, name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None) -> int:
        """Copy the window of ``snapshot`` into ``out``, or the one before index ``end``; return how many are real.

        ``out`` is float32 [n], -1..1, at the input's sample rate.
        """
        stream = self._streams[name]
        if not isinstance(stream, AudioStream):
            raise ConfigError("this input is not an audio input", where=f"input '{name}'", fix="name an audio input")
        return stream.read(snapshot.audio_end[name] if end is None else end, out)

    def sounds(self, snapshot: Snapshot) -> dict[str, SoundCut]:
        """Return where the sound of ``snapshot`` lies, of each audio input that is present."""
        streams = ((name, self._streams[name]) for name in snapshot.audio_end)
        return {name: stream.sound(snapshot) for name, stream in streams if isinstance(stream, AudioStream)}

    def trim(self) -> None:
        """Release the frames that neither a trigger, pending or to come, nor the snapshots polled so far can want.

        A trigger that is behind the one before, as when a source has spoken again or a clock was wrong, still finds
        the frames of the last ``hold_ns``. A lossless run has no such bound: there the triggers' time runs forward.
        """
        crowded = [stream for stream in self._streams.values() if len(stream.kept) > 1]
        if crowded:
            oldest_ns, wanted = self._triggers.wanted()
            for stream in crowded:
                keep_from_ns = oldest_ns
                if not self._lossless:
                    past_ns = stream.watermark_ns - self._hold_ns
                    keep_from_ns = max(stream.passed_ns, min(oldest_ns, past_ns) if self._pending else past_ns)
                stream.trim(keep_from_ns, wanted)

    @property
    def triggers(self) -> int:
        """All triggers that were made: each becomes a snapshot, is dropped, or is pending."""
        return self._triggers.made

    @property
    def period_ns(self) -> int:
        """From one trigger to the next, as measured."""
        return self._triggers.step_ns

    @property
    def pending(self) -> int:
        """Triggers that still wait."""
        return len(self._pending)

    @property
    def finished(self) -> bool:
        """True when no trigger waits and none can come: every source has ended, but for texts that only accompany."""
        return not self._pending and all(s.ended is not None for s in self._making)

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

    def silence_ns(self, name: str, now_ns: int) -> int | None:
        """Return for how long an input has given nothing, None while it is alive or if it keeps no rate."""
        stream = self._streams[name]
        if stream.rank is None or stream.alive(now_ns):
            return None
        return now_ns - (self._started_ns if stream.last_arrive_ns is None else stream.last_arrive_ns)

    def steady(self, now_ns: int) -> dict[str, int]:
        """Return the live streams that keep a rate and were alive at ``now_ns``, with their period in ns."""
        return {
            name: stream.period_ns
            for name, stream in self._streams.items()
            if stream.live and stream.rank is not None and stream.last_arrive_ns is not None and stream.alive(now_ns)
        }

    def lost_samples(self) -> dict[str, int]:
        """Return the lost samples of each audio input."""
        return {n: s.lost for n, s in self._streams.items() if isinstance(s, AudioStream)}

    def close(self) -> None:
        """Release every frame."""
        self._pending.clear()
        for stream in self._streams.values():
            stream.close()
