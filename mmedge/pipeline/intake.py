"""What the runtime's loop waits for and reads: the inbox of its threads, and the rings of other processes."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, Manifest, TensorInput
from mmedge.capture.base import RingSource, Source
from mmedge.ipc.sound import Found, in_order, packets_of
from mmedge.ipc.wake import Wake
from mmedge.pipeline.inbox import Inbox, release
from mmedge.sync import Synchronizer
from mmedge.types import NS_PER_S, Frame, Packet

if TYPE_CHECKING:  # not of every run
    from mmedge.calibration.offsets import Shift

if TYPE_CHECKING:  # a run in one process has no rings between two
    from mmedge.ipc.channel import PacketReader

Rings: TypeAlias = "RingSource | PacketReader"
MAX_AHEAD_NS = 5_000_000_000  # by how far one file may run ahead of the others


class Intake:
    """Waits for all that a run reads in one call, and reads all of it at once, in order of arrival.

    Sound and small tensors come hundreds of times a second and seldom change what is due at once. They wake the loop
    only when they can make a trigger or complete one, and are read with whatever comes next: the synchroniser goes by
    when they arrived.

    Args:
        inbox: What threads of this process put.
        sources: What is read: in threads, or by processes that write rings.
        pushed: What another process pushes; None when it comes through the inbox.
        shifts: Stream -> what takes its constant offset off.
        sync: Where packets go.
        manifest: What the bundle says of its inputs and its trigger.
        attached: The inputs that have a source.
        lossless: Played as fast as possible: everything is waited for.
    """

    def __init__(
        self,
        inbox: Inbox,
        sources: Sequence[Source],
        pushed: PacketReader | None,
        shifts: Mapping[str, Shift],
        sync: Synchronizer,
        *,
        manifest: Manifest,
        attached: Collection[str],
        lossless: bool,
    ) -> None:
        self._inbox, self._sources, self._shifts, self._sync = inbox, sources, shifts, sync
        self._attached, self._lossless = attached, lossless
        workers = [source for source in sources if isinstance(source, RingSource)]
        self._rings: list[Rings] = [*workers, *([] if pushed is None else [pushed])]
        far = {name for source in workers for name in source.streams}
        by_push = set(attached) - {name for source in sources for name in source.streams}
        self._near = set(attached) - far - (set() if pushed is None else by_push)
        flowing = {name for name in attached if isinstance(manifest.inputs[name], (AudioInput, TensorInput))}
        trigger = manifest.sync.trigger
        self._trigger = trigger if trigger in set(attached) - flowing and not lossless else None
        self._flows = [each.flow for each in workers if flowing.intersection(each.streams)]
        if (self._near | by_push) & flowing:  # who attaches pushes in this process, whoever else does in another
            self._flows.append(inbox.flow)
        if pushed is not None and by_push & flowing:
            self._flows.append(pushed.flow)
        wakes = [inbox.wake, *(each.wake for each in self._rings)]
        self._wakes = {wake.fileno(): wake for wake in (*wakes, *self._flows)}
        self._hears, self._ready = False, [(fd, 0) for fd in self._wakes]
        # Two, since a change to one is a call into the system, which lets go of the interpreter.
        self._epolls = {False: _epoll(wakes), True: _epoll([*wakes, *self._flows])}

    def start(self, stop: threading.Event) -> None:
        """Start the sources; those of files end their waiting for each other when ``stop`` is set."""
        for source in self._sources:
            if isinstance(source, RingSource):
                source.supervise()
            else:
                source.start(partial(self._emit, stop, tuple(set(self._attached) - set(source.streams))))

    def _emit(self, stop: threading.Event, others: tuple[str, ...], packet: Packet) -> None:
        packet = self._shifted(packet)
        # Played as fast as possible, one file must not run away from another: its sound would be overwritten.
        while self._lossless and self._sync.ahead_ns(packet, others) > MAX_AHEAD_NS and not stop.wait(0.01):
            if self._inbox.closed:
                break
        if not self._inbox.put(packet):  # the run is over
            release(packet)

    def _shifted(self, packet: Packet) -> Packet:
        shift = self._shifts.get(packet.stream)
        if shift is None:
            return packet
        if isinstance(packet, Frame) and isinstance(packet.release, core.RingSlot):
            packet.release.record = b""  # it says the time that its writer knew
        return shift(packet)

    def wait(self, longest_ns: int, end_ns: int | None) -> None:
        """Wait until something is there that matters, a trigger is due, ``end_ns`` has come, or for ``longest_ns``."""
        now_ns = time.monotonic_ns()
        due_ns, deadline_ns = now_ns + longest_ns, self._sync.next_deadline_ns()
        if deadline_ns is not None and deadline_ns < due_ns:
            due_ns = deadline_ns
        if end_ns is not None and end_ns < due_ns:
            due_ns = end_ns
        self._hears = self.awaits_flow(now_ns)
        self._ready = self._epolls[self._hears].poll(max(0, due_ns - now_ns) / NS_PER_S)

    def awaits_flow(self, now_ns: int) -> bool:
        """Tell whether what flows can make a trigger, as it does also for a camera that is dead, or complete one."""
        trigger, sync = self._trigger, self._sync
        return trigger is None or sync.pending > 0 or sync.silence_ns(trigger, now_ns) is not None

    def take(self, *, runs: bool = False) -> list[Found]:
        """Return everything that is there; with ``runs``, blocks of sound that follow each other as one."""
        for fd, _ in self._ready:  # before it is read: what comes meanwhile sets them again
            self._wakes[fd].clear()
        if not self._hears:
            for wake in self._flows:  # that were not waited for, and are read all the same
                wake.clear()
        packets: list[Found] = [*self._inbox.take_all()]
        read = [each for rings in self._rings for each in rings.take_runs(newest=True)]
        if not read:
            return packets
        if runs and not self._shifts:
            return in_order(packets + read)
        return in_order([*packets, *map(self._shifted, packets_of(read))])

    def settle(self, steady: Mapping[str, int]) -> None:
        """Give threads time that a long call has held up, see ``Inbox.settle``; other processes were not."""
        self._inbox.settle({name: step_ns for name, step_ns in steady.items() if name in self._near})

    def close(self) -> None:
        """Wait for nothing more; what is there can still be taken. Idempotent."""
        for epoll in self._epolls.values():
            epoll.close()


def _epoll(wakes: Sequence[Wake]) -> select.epoll:
    epoll = select.epoll()
    for wake in wakes:
        epoll.register(wake, select.EPOLLIN)
    return epoll
