"""Capture in a process of its own, the parent's side: a device that dies or hangs is started again.

Whoever wants the packets reads them from the rings; a thread of this file only judges the worker, twice a second, by
the stamps that lie there: however busy the reader is, a healthy device does not look dead.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from mmedge.address import Address
from mmedge.bundle.manifest import Input
from mmedge.capture.base import Emit, SourceHealth
from mmedge.capture.kinds import KINDS
from mmedge.clock import now_ns
from mmedge.errors import DeviceError, MmedgeError, SourceError, internal
from mmedge.ipc.channel import PacketReader
from mmedge.ipc.control import Done, Ready, Ring, State, pack
from mmedge.ipc.process import Child
from mmedge.ipc.sound import Found, packets_of
from mmedge.ipc.wake import Wake
from mmedge.learn import learn
from mmedge.types import EndOfStream, Frame, Packet

log = logging.getLogger("mmedge.capture")
LOOK_S = 0.2  # between two looks of a worker at itself: it reports what has changed
HEARTBEAT_NS = 1_000_000_000  # between two reports of a worker with which nothing has changed
_TURN_S = 0.5  # at most, between two looks at a worker that says nothing
OPEN_S = 20.0  # for a device to open
STOP_S = 2.0  # for an orderly end; then the worker is killed
# A worker that says nothing for that long is held by its driver; a device that delivers nothing has hung.
_SILENT_NS = 3_000_000_000
_FIRST_NS = 10_000_000_000  # without any packet after the device has opened
_READ_NS = 2_000_000_000  # without a new packet after the first one
_FROZEN_NS = 5_000_000_000  # of bit-identical pictures, after which the device is opened again
_MAX_FROZEN_NS = 60_000_000_000  # that limit doubles up to here: the scene may be a test picture
_GOOD_NS = 10_000_000_000  # a worker that ran for longer starts with the shortest pause again
_AWAY_NS = 1_500_000_000  # between two turns of a loop of 0.5 s: this process was stopped
_SAY_NS = 60_000_000_000  # before the same reason is logged again
_BACKOFF_S = (0.1, 1.5)  # first and longest pause before a restart; it doubles


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture worker is to do: the inputs that one source feeds, its address, the epoch to begin with."""

    inputs: dict[str, Input]
    uris: dict[str, Address]
    hold_ns: int
    epoch: int


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture worker says each second, and when it has changed."""

    health: SourceHealth
    refused: tuple[str, str | None, str | None] | None = None  # message, where, fix
    refused_streams: tuple[str, ...] = ()


class _Delivered:
    """What one worker has delivered: its rings, and what was seen of its stamps.

    Attributes:
        reader: Of its rings.
        packet_ns: When its newest packet arrived.
        newest_ns: The highest capture time, 0 before the first.
        moved_ns: When that packet arrived.
        unchanged_ns: For how long its picture has been bit-identical.
        damage: What it left that cannot be; None while all is well.
    """

    def __init__(self, reader: PacketReader) -> None:
        self.reader = reader
        self.packet_ns = self.moved_ns = now_ns()
        self.newest_ns = self.unchanged_ns = 0
        self.damage: str | None = None

    def see(self, arrive_ns: int, capture_ns: int) -> None:
        """Take in the stamps of a packet."""
        self.packet_ns = max(self.packet_ns, arrive_ns)
        if capture_ns > self.newest_ns:
            self.newest_ns, self.moved_ns = capture_ns, max(self.moved_ns, arrive_ns)


class WorkerSource:
    """A live device, read by the same source in a worker process; itself a ``Source``.

    The worker is killed and started again, with growing pauses, when it dies, says nothing, delivers
    nothing, or repeats one picture; each start is a new epoch with the same settings. With ``start`` packets are handed
    over by its thread; with ``supervise`` they stay in the rings until ``take``.

    Args:
        inputs: The inputs it feeds.
        uris: Their address.
        name: The address as it may be shown.
        hold_ns: For how long the frames' reader may hold them.
        kind: Of the address: a key of ``KINDS``.

    Attributes:
        wake: Set when something may be there to take that does not flow.
        flow: Set when something may be there to take that flows: sound, small tensors.
    """

    live = True

    def __init__(
        self, inputs: Mapping[str, Input], uris: Mapping[str, Address], name: str, hold_ns: int, kind: str
    ) -> None:
        self.streams = tuple(inputs)
        self.name = name
        self.error: MmedgeError | None = None
        self.refused: SourceError | None = None
        self.refused_streams = self.streams
        self.epoch = 0
        self._hold_ns, self._kind = hold_ns, kind
        self._inputs, self._uris = dict(inputs), dict(uris)
        self.wake, self.flow, self._nudge = Wake(), Wake(), Wake()
        self._all: list[_Delivered] = []  # of workers that were replaced, too, until all of theirs is taken
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: str | None = None  # why nothing more will come, until whoever reads was told
        self._health = SourceHealth(state="MISSING", reason="nothing has arrived yet")
        self._before: Counter[str] = Counter()
        self._said, self._said_ns = "", 0
        self._backoff_s = _BACKOFF_S[0]
        self._frozen_limit_ns = _FROZEN_NS
        self._spawn()

    def _spawn(self) -> None:
        order = Order(inputs=self._inputs, uris=self._uris, hold_ns=self._hold_ns, epoch=self.epoch)
        fds = [self.wake.fileno(), self.flow.fileno()]
        modules = ("mmedge.capture.worker", *KINDS[self._kind].modules)
        self._child = Child("mmedge.capture.worker:main", pack(order), name=self.name, fds=fds, modules=modules)
        self._began_ns = self._heard_ns = now_ns()
        self._delivered = _Delivered(PacketReader(self.name, self.wake, self.flow))
        self._all.append(self._delivered)
        self._ready = self._ended = False

    def open(self) -> None:
        """Wait until the device is open.

        Raises:
            MmedgeError: What the worker says is wrong.
            DeviceError: If it has said nothing for 20 s.
        """
        try:
            while not self._ready:
                if now_ns() - self._began_ns > OPEN_S * 1e9:
                    raise DeviceError(
                        f"the device did not open within {OPEN_S:g} s", where=self.name, fix="check it: mmedge devices"
                    )
                self._listen(0.1)
        except EOFError:
            raise self._child.error or SourceError(
                self._child.reason(), where=self.name, fix="check it: mmedge devices"
            ) from None

    def start(self, emit: Emit) -> None:
        """Start the supervising thread; it hands packets over."""
        self._begin(emit)

    def supervise(self) -> None:
        """Start the supervising thread; packets are to be had by ``take``."""
        self._begin(None)

    def _begin(self, emit: Emit | None) -> None:
        self._thread = threading.Thread(target=self._run, args=(emit,), name=f"mmedge-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the worker; it has two seconds, then it is killed."""
        self._stop.set()
        self._nudge.set()
        if self._thread is not None:
            self._thread.join()
        self._child.stop(STOP_S)
        self._child.close()
        if self._health.state != "MISSING":
            self._health = replace(self._health, state="MISSING", reason=self._health.reason or "stopped")

    def health(self) -> SourceHealth:
        """Return a copy of the present state; counters run on over restarts."""
        health = self._health
        counters = self._before + Counter(health.counters) if self._before else health.counters
        return replace(health, counters=dict(counters))

    def take(self, *, newest: bool = False) -> list[Packet]:
        """Return what is there, in order of arrival, see ``PacketReader.take``; from one thread."""
        return sorted(packets_of(self.take_runs(newest=newest)), key=attrgetter("arrive_ns"))

    def take_runs(self, *, newest: bool = False) -> list[Found]:
        """Return what is there, see ``PacketReader.take_runs``; from one thread."""
        packets: list[Found] = []
        every = tuple(self._all)
        for delivered in every:
            if delivered.damage is None:
                try:
                    found = delivered.reader.take_runs(newest=newest)
                except SourceError as error:
                    delivered.damage = error.message
                    continue
                for packet in found:
                    if isinstance(packet, Frame):
                        self._see(delivered, packet)
                    if packet.stream in self.streams:
                        packets.append(packet)
                        continue
                    delivered.damage = "a packet is damaged: it names another stream"
                    if isinstance(packet, Frame) and packet.release is not None:
                        packet.release()
        for replaced in every[:-1]:  # they had ended before the next one began
            self._all.remove(replaced)
        if self._lost is not None:
            now = now_ns()
            stamp = {"seq": 0, "epoch": self.epoch, "capture_ns": now, "arrive_ns": now, "reason": self._lost}
            packets += [EndOfStream(stream=name, **stamp) for name in self.streams]  # type: ignore[arg-type]
            self._lost = None
        return packets

    def _see(self, delivered: _Delivered, frame: Frame) -> None:
        if not frame.damaged:
            delivered.unchanged_ns = frame.unchanged_ns
            if frame.unchanged_ns == 0 and frame.seq > 0:
                self._frozen_limit_ns = _FROZEN_NS

    def _run(self, emit: Emit | None) -> None:
        try:
            while (reason := self._serve(emit)) is not None:
                self._restart(reason, emit)
        except Exception as error:  # whatever it is must reach the user and not die with the thread
            log.exception("supervising '%s' failed", self.name)
            self.error = internal(error, where=self.name)
            self._child.kill()
            self._lost = str(error)
            self.wake.set()
            self._deliver(emit)

    def _serve(self, emit: Emit | None) -> str | None:
        """Watch the worker until it must be started again, for the reason returned; None at the end."""
        if self._stop.is_set():  # during the pause before a restart: there is no worker
            return None
        poll = select.poll()
        for waited in (self._nudge, self._child.control, *((self.wake, self.flow) if emit is not None else ())):
            poll.register(waited, select.POLLIN)
        before = now_ns()
        while not self._stop.is_set():
            poll.poll(1000 * _TURN_S)
            now = now_ns()
            if now - before > _AWAY_NS:  # this process itself was stopped, so it heard no worker
                self._heard_ns = self._delivered.packet_ns = self._delivered.moved_ns = now
            before = now
            reason = None
            try:
                self._listen(0)
            except EOFError:
                reason = self._child.reason()
            self._deliver(emit)
            reason = reason or self._delivered.damage or self._trouble(now)
            if reason is not None:
                return None if self._ended or self._stop.is_set() else reason
        return None

    def _deliver(self, emit: Emit | None) -> None:
        if emit is not None:
            self.wake.clear()
            self.flow.clear()
            for packet in self.take():
                emit(packet)

    def _listen(self, timeout_s: float) -> None:
        while (received := self._child.receive(timeout_s)) is not None:
            message, fds = received
            self._heard_ns = now_ns()
            if isinstance(message, Ring):
                try:
                    self._delivered.reader.add(message, fds[0])
                except (ValueError, LookupError, OSError) as error:
                    self._delivered.damage = f"a ring is damaged: {error}"
            elif isinstance(message, Ready):
                self._ready, self._delivered.packet_ns = True, self._heard_ns
            elif isinstance(message, State):
                pulse = msgspec.msgpack.decode(message.body, type=learn(Pulse))
                if pulse.refused is not None:
                    what, where, fix = pulse.refused
                    self.refused_streams, self.refused = pulse.refused_streams, SourceError(what, where=where, fix=fix)
                self._health = pulse.health
            elif isinstance(message, Done):
                self._ended = True
            for fd in fds:
                os.close(fd)
            timeout_s = 0

    def _trouble(self, now: int) -> str | None:
        """Say why the worker cannot be left as it is, None when it can."""
        if not self._ready:  # drivers may take their time to open
            return None if now - self._began_ns < OPEN_S * 1e9 else f"it did not open within {OPEN_S:g} s"
        if now - self._heard_ns > _SILENT_NS:
            return f"its driver has held the worker for {(now - self._heard_ns) / 1e9:.0f} s"
        if self._health.state == "RECONNECTING":  # the source does it itself
            return None
        delivered = self._delivered
        arrive_ns, capture_ns, _ = delivered.reader.newest
        delivered.see(arrive_ns, capture_ns)  # its reader may be busy with what came before
        quiet_ns = now - delivered.packet_ns
        if quiet_ns > (_READ_NS if delivered.newest_ns else _FIRST_NS):
            return f"it has delivered nothing for {quiet_ns / 1e9:.0f} s"
        if delivered.newest_ns and now - delivered.moved_ns > _READ_NS:
            return "its time stamps stand still"
        if delivered.unchanged_ns > self._frozen_limit_ns:
            self._frozen_limit_ns = min(2 * self._frozen_limit_ns, _MAX_FROZEN_NS)
            return f"the picture has not changed for {delivered.unchanged_ns / 1e9:.0f} s"
        return None

    def _restart(self, reason: str, emit: Emit | None) -> None:
        self._child.kill()
        self._deliver(emit)  # what was captured is not lost with the worker
        self._child.close()
        self.epoch = max(self.epoch, self._delivered.reader.newest[2])
        self._before += Counter(self._health.counters)
        if now_ns() - self._began_ns > _GOOD_NS:
            self._backoff_s = _BACKOFF_S[0]
        while True:
            # A spread of pauses, so that several devices of one hub are not all opened at once.
            pause_s = self._backoff_s * random.uniform(0.75, 1.25)
            self._backoff_s = min(2 * self._backoff_s, _BACKOFF_S[1])
            # A device may be away all night: said when the reason changes, and once a minute.
            quiet = reason == self._said and now_ns() - self._said_ns < _SAY_NS
            level = logging.DEBUG if quiet else logging.WARNING
            log.log(level, "%s: %s; opened again in %.1f s", self.name, reason, pause_s)
            if not quiet:
                self._said, self._said_ns = reason, now_ns()
            self._health = SourceHealth(state="RECONNECTING", reason=f"{self.name}: {reason}")
            self._before["restarts"] += 1
            if self._stop.wait(pause_s):
                return
            self.epoch += 1
            try:
                self._spawn()
            except (OSError, MmedgeError) as error:  # no memory, no descriptor: that may pass, too
                reason = f"no process can be started: {getattr(error, 'strerror', None) or error}"
            else:
                return
