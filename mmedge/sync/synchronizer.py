"""The synchroniser: packets in, snapshots out, on capture time alone.

What it decides is decided in C++ (native/sync), which knows packets by their times, and so is what they carry kept
(native/bindings/synchronizer.cpp). It reads no clock and starts no thread: ``push`` an event, ``advance`` the time,
``poll`` what is ready. The same calls give the same snapshots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mmedge._native import core
from mmedge.errors import ConfigError
from mmedge.plan.parts import SeatPlan, SyncPlan
from mmedge.sound_cut import SoundCut
from mmedge.sync.reasons import explain
from mmedge.sync.ring_reader import RingReader
from mmedge.types import Arrival, Block, EndOfStream, Frame, Packet, Snapshot, Tensor, Text

_ACCEPTS: dict[str, tuple[type[Packet], ...]] = {"image": (Frame,), "audio": (Block,), "value": (Text, Tensor)}


class Synchronizer:
    """Cuts one snapshot for each trigger.

    Args:
        plan: What it does.
        started_ns: When the run began.

    Attributes:
        read_audio: Copies the sound of a snapshot.
        advance: Tell the time, in ns.
        next_deadline_ns: Return when ``poll`` must be called even if nothing arrives, or None.
        poll: Return the snapshots that are ready, in order of capture time. The caller owns them until its next
            ``poll``; frames are released by ``trim``.
        trim: Release the frames that neither a trigger, pending or to come, nor the snapshots polled so far can want. A
            trigger that is behind the one before, as when a source has spoken again or a clock was wrong, still finds
            the frames of the last ``hold_ns``. A lossless run has no such bound: there the triggers' time runs forward.

    Example:
        >>> plan = plan_sync(inputs, {"image": True}, {}, Sync(trigger="image"))  # doctest: +SKIP
        >>> sync = Synchronizer(plan, started_ns=0)  # doctest: +SKIP
        >>> sync.push(frame); sync.advance(now_ns); sync.poll()  # doctest: +SKIP
        [Snapshot(...)]
    """

    def __init__(self, plan: SyncPlan, *, started_ns: int) -> None:
        self._names = tuple(seat.name for seat in plan.seats)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._accepts = {seat.name: _ACCEPTS[seat.kind] for seat in plan.seats}
        self._policies = {seat.name: seat.policy for seat in plan.seats}
        self._failing = [(index, name) for name, index in self._index.items() if self._policies[name] == "fail"]
        self._sounds = {seat.name: seat for seat in plan.seats if seat.kind == "audio"}
        self._ends: dict[str, str | None] = {}  # why a source has ended
        self._told_drops: list[tuple[int, str, int]] = []
        self._drops: Counter[str] = Counter()
        self._core = core.Synchronizer(
            started_ns=started_ns,
            wait_ns=plan.wait_ns,
            hold_ns=plan.hold_ns,
            every_ns=plan.every_ns,
            timer=plan.trigger == "timer",
            latest=plan.latest,
            lossless=plan.lossless,
            absent=dict.fromkeys(plan.present, False),
            snapshot=Snapshot,
            explain=partial(_explain, self._ends),
        )
        self.advance: Callable[[int], None] = self._core.advance
        self.next_deadline_ns: Callable[[], int | None] = self._core.next_deadline_ns
        self.poll: Callable[[], list[Snapshot]] = self._core.poll
        self.trim: Callable[[], None] = self._core.trim
        for seat in plan.seats:
            self._add(seat)
        self._rings = {name: self._core.ring(self._index[name]) for name in self._sounds}
        self.read_audio = RingReader(self._rings)

    def _add(self, seat: SeatPlan) -> None:
        rule: dict[str, Any] = {
            "name": seat.name,
            "live": seat.live,
            "policy": seat.policy,
            "max_age_ns": seat.max_age_ns,
            "trigger": seat.trigger,
        }
        if seat.kind == "image":
            self._core.add_image(**rule)
        elif seat.kind == "audio":
            self._core.add_audio(
                **rule,
                rate_hz=seat.rate_hz,
                window=seat.window,
                ahead_ns=seat.ahead_ns,
                reserve_ns=seat.reserve_ns,
            )
        else:
            self._core.add_value(**rule, ttl_ns=seat.ttl_ns, period_ns=seat.period_ns, paced=seat.paced)

    def push(self, packet: Packet | core.SoundRun) -> None:
        """Take one packet of an attached input, or a run of blocks of one.

        Raises:
            ConfigError: If there is no such input, or it takes packets of another kind.
        """
        name = packet.stream
        index = self._index.get(name)
        if index is None:
            raise ConfigError(
                f"only {list(self._index)} have a source",
                where=f"input '{name}'",
                fix="attach a source to this input",
            )
        if isinstance(packet, core.SoundRun):
            if name not in self._sounds:
                raise self._other_kind("Block", name)
            self._core.push_run(index, packet)
            return
        if isinstance(packet, self._accepts[name]):
            if isinstance(packet, Block):
                self._core.push_block(index, packet)
            elif isinstance(packet, Frame):
                self._core.push_frame(index, packet)
            else:
                self._core.push_value(index, packet, isinstance(packet, Text) and not packet.text.strip())
        elif isinstance(packet, EndOfStream):
            if self._core.push_end(index, packet, packet.reason is not None):
                self._ends[name] = packet.reason
        elif isinstance(packet, Arrival):
            self._core.push_arrival(index, packet)
        else:
            raise self._other_kind(type(packet).__name__, name)

    def _other_kind(self, kind: str, name: str) -> ConfigError:
        return ConfigError(
            f"a {kind} cannot feed this input", where=f"input '{name}'", fix="push data of the input's own modality"
        )

    def failed(self, snapshot: Snapshot) -> str | None:
        """Return the name of an absent input whose policy is ``fail``, or None."""
        for index, name in self._failing:
            if not snapshot.present[name] and not self._core.starting(index, snapshot.t_ns):
                return name
        return None

    def policy(self, name: str) -> str:
        """Return what happens when an attached input is absent."""
        return self._policies[name]

    @property
    def heard(self) -> dict[str, tuple[core.SampleRing, SeatPlan]]:
        """Audio input -> the ring of its sound, and what is cut of it."""
        return {name: (self._rings[name], seat) for name, seat in self._sounds.items()}

    def sounds(self, snapshot: Snapshot) -> dict[str, SoundCut]:
        """Return where the sound of ``snapshot`` lies, of each audio input that is present."""
        return {name: self._sound(name, end, snapshot) for name, end in snapshot.audio_end.items()}

    def _sound(self, name: str, end: int, snapshot: Snapshot) -> SoundCut:
        seat, epoch = self._sounds[name], snapshot.epoch.get(name, 0)
        return SoundCut(self._rings[name], end, snapshot.audio_end_ns[name], seat.window, seat.rate_hz, epoch)

    @property
    def drops(self) -> Counter[str]:
        """Triggers that became no snapshot, by cause."""
        told = self._core.drops
        if told != self._told_drops:  # it is asked at every packet, and changes seldom
            self._told_drops = told
            names = ((cause if index < 0 else f"{cause}_{self._names[index]}", n) for index, cause, n in told)
            self._drops = Counter(dict(names))
        return self._drops

    @property
    def refused(self) -> Counter[str]:
        """Other packets that were not taken, by input and cause."""
        return Counter({f"{self._names[index]}_{cause}": count for index, cause, count in self._core.refused})

    @property
    def triggers(self) -> int:
        """All triggers that were made: each becomes a snapshot, is dropped, or is pending."""
        return self._core.triggers

    @property
    def period_ns(self) -> int:
        """From one trigger to the next, as measured."""
        return self._core.period_ns

    @property
    def pending(self) -> int:
        """Triggers that still wait."""
        return self._core.pending

    @property
    def finished(self) -> bool:
        """True when no trigger waits and none can come: every source has ended, but for texts that only accompany."""
        return self._core.finished

    def ahead_ns(self, packet: Packet, others: tuple[str, ...]) -> int:
        """Return how far ``packet`` is ahead of the slowest of ``others``; may be called from any thread."""
        return self._core.ahead_ns(packet.capture_ns, [self._index[name] for name in others])

    def silence_ns(self, name: str, now_ns: int) -> int | None:
        """Return for how long an input has given nothing, None while it is alive or if it keeps no rate."""
        return self._core.silence_ns(self._index[name], now_ns)

    def steady(self, now_ns: int) -> dict[str, int]:
        """Return the live streams that keep a rate and were alive at ``now_ns``, with their period in ns."""
        periods = ((name, self._core.steady_ns(index, now_ns)) for name, index in self._index.items())
        return {name: period_ns for name, period_ns in periods if period_ns is not None}

    def lost_samples(self) -> dict[str, int]:
        """Return the lost samples of each audio input."""
        return {name: self._core.lost(self._index[name]) for name in self._sounds}

    def close(self) -> None:
        """Release every frame."""
        self._core.close()


def _explain(ends: Mapping[str, str | None], name: str, why: str, by_ns: int) -> str:
    return f"{name}: {explain(why, by_ns, ends.get(name))}"
