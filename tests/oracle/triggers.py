"""When a fused inference is made, in Python: at the packets of one input, or at hops on the capture time of another."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from mmedge.bundle.manifest import Sync
from mmedge.types import Arrival, Frame, Packet, Tensor, Text
from tests.oracle.audio import AudioStream
from tests.oracle.streams import FOREVER_NS, JUMP_NS, Stream

# Triggers that may wait beside those whose time to wait is not over, and in all.
MAX_PENDING, MAX_PENDING_EVER = 8, 65_536


@dataclass(slots=True)
class Trigger:
    """One capture time at which everything is cut.

    Attributes:
        t_ns: The capture time.
        deliver_ns: When what made it arrived.
        clock: Whose capture time it is; None: the time itself.
        epoch: The clock's epoch.
        uncertainty_ns: Of ``t_ns``.
        packet: What made it; None: a hop.
    """

    t_ns: int
    deliver_ns: int
    clock: Stream | None
    epoch: int
    uncertainty_ns: int
    packet: Frame | Text | Tensor | None


class Triggers:
    """Makes the triggers and keeps those that wait.

    Each packet of the trigger's input makes one; for audio and timer every ``every_ms`` does. While that input
    is dead, hops of whatever is alive keep its rate, from where it stopped to where it is back; a timer's go on with
    the time itself while nothing is alive that has a clock.

    Args:
        streams: The attached inputs, in the bundle's order.
        sync: Which of them is the trigger, and the hop.
        wait_ns: How long a trigger may wait.
        lossless: Played as fast as possible: the time says nothing.

    Attributes:
        pending: Those that wait, oldest first.
        made: How many were made.
        drops: Those that became nothing, by cause.
        own: The trigger's input; None for a timer.
        ticking: Whether the time itself may have to make triggers.
    """

    def __init__(self, streams: Mapping[str, Stream], sync: Sync, *, wait_ns: int, lossless: bool) -> None:
        ranked = [(s.rank, s) for s in streams.values() if s.rank is not None]
        self._clocks = [s for _, s in sorted(ranked, key=lambda entry: entry[0])]
        self._streams = tuple(streams.values())
        self.ticking = sync.trigger == "timer" and not lossless
        self.own = streams.get(sync.trigger)
        self._by_packet = self.own is not None and not isinstance(self.own, AudioStream)
        self._every_ns = round(sync.every_ms * 1e6)
        self._wait_ns = wait_ns
        self._next_hop_ns: int | None = None
        self._hop_clock: tuple[Stream | None, int] = (None, 0)
        self._resumed = 0  # hops that make up for a silence, until they are polled
        self._last_ns = -FOREVER_NS
        self._last_clock: tuple[Stream | None, int] = (None, 0)
        self.pending: deque[Trigger] = deque()
        self.made = 0
        self.drops: Counter[str] = Counter()

    def on_packet(self, stream: Stream, packet: Packet, cause: str | None) -> None:
        """Make the trigger of a packet of the trigger's own input; ``cause`` says why it was refused, if it was."""
        if cause is not None:
            self.made += 1
            self.drops[cause] += 1
            if self._next_hop_ns is not None and isinstance(packet, Arrival):  # no hop stands for it, too
                self._next_hop_ns = max(self._next_hop_ns, packet.capture_ns + self.step_ns)
            return
        assert isinstance(packet, (Frame, Text, Tensor))
        if self._next_hop_ns is not None:
            until_ns = packet.capture_ns - self.step_ns // 2
            if until_ns - self._next_hop_ns <= self._patience_ns:
                self._resumed = max((until_ns - self._next_hop_ns) // self.step_ns, 0)
                self._hop(self._next_hop_ns, until_ns, packet.arrive_ns, self._hop_clock)
            self._next_hop_ns = None
        key = stream, stream.epoch
        self._append(Trigger(packet.capture_ns, packet.arrive_ns, *key, packet.uncertainty_ns, packet))

    def make_hops(self, now_ns: int, deliver_ns: int) -> None:
        """Make the hops up to where their clock is; ``deliver_ns`` is when it got there."""
        own = self.own
        clock: Stream | None = None
        if own is not None:
            alive = own.alive(now_ns)
            if own.ended_well if not alive else self._by_packet or own.last_arrive_ns is None:
                return
            clock = own if alive else None
        if clock is None:
            clock = next((s for s in self._clocks if s.last_arrive_ns is not None and s.alive(now_ns)), None)
            if clock is None and not self.ticks(now_ns):
                return
        horizon_ns = now_ns if clock is None else clock.watermark_ns
        key = (clock, 0 if clock is None else clock.epoch)
        next_ns = self._next_hop_ns
        if key != self._hop_clock or next_ns is None:
            self._hop_clock = key
            # Where the last trigger left off: what was alive meanwhile has come. Not after another origin of time.
            behind_ns = horizon_ns - self._last_ns
            resume = -JUMP_NS <= behind_ns <= self._patience_ns
            next_ns = self._last_ns + self.step_ns if resume else horizon_ns
            self._resumed = max(behind_ns // self.step_ns, 0) if resume else 0
        self._next_hop_ns = self._hop(next_ns, horizon_ns, deliver_ns, key)

    def _hop(self, next_ns: int, horizon_ns: int, deliver_ns: int, key: tuple[Stream | None, int]) -> int:
        step_ns = self.step_ns
        behind = (horizon_ns - next_ns) // step_ns - self._limit()
        if behind > 0:
            # The bounded queue would drop them one by one: after a long block, or a wrong time stamp.
            self.made += behind
            self.drops["sync_overflow"] += behind
            next_ns += behind * step_ns
        uncertainty_ns = 0 if key[0] is None else key[0].uncertainty_ns
        while next_ns <= horizon_ns:
            self._append(Trigger(next_ns, deliver_ns, *key, uncertainty_ns, None))
            next_ns += step_ns
        return next_ns

    @property
    def step_ns(self) -> int:
        """From one trigger to the next."""
        own = self.own
        return own.period_ns if own is not None and self._by_packet and own.measured else self._every_ns

    @property
    def _patience_ns(self) -> int:
        return JUMP_NS + (0 if self.own is None else self.own.idle_ns)

    def _limit(self) -> int:
        return min(MAX_PENDING + self._wait_ns // self.step_ns + self._resumed, MAX_PENDING_EVER)

    def _append(self, trigger: Trigger) -> None:
        self.made += 1
        key, back_ns = (trigger.clock, trigger.epoch), self._last_ns - trigger.t_ns
        if back_ns >= 0 and (key == self._last_clock or (key[0] is not self._last_clock[0] and back_ns <= JUMP_NS)):
            self.drops["late"] += 1  # the hops of a source that was thought dead have been there before
            return
        self._last_ns, self._last_clock = trigger.t_ns, key
        if len(self.pending) >= self._limit():
            self.pending.popleft()
            self.drops["sync_overflow"] += 1
        self.pending.append(trigger)

    def polled(self) -> None:
        """Note that what was ready has left."""
        self._resumed = 0

    def ticks(self, now_ns: int) -> bool:
        """Tell whether the time itself is the timer's clock: all others are silent, but for texts, which have none."""
        return (
            self.ticking
            and not any(s.alive(now_ns) for s in self._clocks)
            and any(s.ended is None and s.last_arrive_ns is not None for s in self._streams)
        )

    def next_tick_ns(self, now_ns: int) -> int | None:
        """Return when the time makes the next trigger, or None."""
        if not self.ticking:
            return None
        # Where the last clock falls silent the time takes over.
        silent_ns = max((s.silent_ns for s in self._clocks if s.alive(now_ns)), default=None)
        return silent_ns if silent_ns is not None else self._next_hop_ns if self.ticks(now_ns) else None

    def wanted(self) -> tuple[int, Frame | Text | Tensor | None]:
        """Return the oldest time that a trigger will cut while no clock runs back, and the oldest packet that one will.

        A source that ended without error is not considered.
        """
        if self.pending:
            return (
                min(trigger.t_ns for trigger in self.pending),
                next((t.packet for t in self.pending if t.packet is not None and not _unkept(t)), None),
            )
        over = self.own is not None and self.own.ended_well
        return FOREVER_NS if over else self._last_ns, None


def _unkept(trigger: Trigger) -> bool:
    """Tell whether a damaged picture made it that a stream of policy ``hold`` does not keep."""
    packet, clock = trigger.packet, trigger.clock
    return isinstance(packet, Frame) and packet.damaged and clock is not None and clock.policy == "hold"
