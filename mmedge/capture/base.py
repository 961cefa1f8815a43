"""The base of all sources: they emit packets, report their health, and report how they end."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from mmedge.address import scrub
from mmedge.capture.picture import SLOTS
from mmedge.capture.sound import Piece
from mmedge.clock import ClockReport, now_ns
from mmedge.errors import MmedgeError, SourceError, shortage, trace
from mmedge.ipc.sound import Found
from mmedge.ipc.wake import Wake
from mmedge.types import (
    FROZEN_NS,
    PLAIN,
    Arrival,
    Block,
    ByteArray,
    ClockQuality,
    Description,
    EndOfStream,
    Frame,
    Health,
    Packet,
    PixelFormat,
    Slot,
    Tensor,
    Text,
)

if TYPE_CHECKING:
    from mmedge.ipc.channel import PacketWriter

log = logging.getLogger("mmedge.capture")

Emit = Callable[[Packet], None]
STOP_S = 2.0  # for a reading thread to end
LATE_NS = 1_000_000_000  # age on arrival from which a live source is LATE
COUNTED: dict[type[Packet], str] = {t: f"{t.__name__.lower()}s" for t in (Arrival, Block, Frame, Tensor, Text)}
DAMAGED_NS = 1_000_000_000  # after a damaged picture, so that whoever looks ten times a second sees it


class SourceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is doing.

    Attributes:
        state: ``MISSING`` before the first packet and after the end.
        reason: Why it is not ``OK``.
        counters: Packets by kind, and everything that was lost, by cause.
        clocks: The clock of each stream whose time is estimated.
        nominal_hz: The rate of frames or samples that the device claims, of each stream for which it does.
    """

    state: Health
    reason: str | None
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    clocks: dict[str, ClockReport] = msgspec.field(default_factory=dict)
    nominal_hz: dict[str, float] = msgspec.field(default_factory=dict)


class Source(Protocol):
    """Feeds one or more inputs with packets, from threads of its own.

    Attributes:
        streams: Names of the inputs it feeds.
        live: True if data that is not taken in time is dropped; False if ``emit`` may block to hold it back.
        epoch: Epoch of the packets; set before ``start`` it is the first one.
        error: What ended it, None while all is well.
        refused: Why the newest of what was refused could not be taken; None while there is none.
        refused_streams: The inputs that ``refused`` is about.
    """

    streams: tuple[str, ...]
    live: bool
    epoch: int
    error: MmedgeError | None
    refused: SourceError | None
    refused_streams: tuple[str, ...]

    def start(self, emit: Emit) -> None:
        """Begin to call ``emit`` with every packet; the last of each stream is an ``EndOfStream``."""

    def stop(self) -> None:
        """End within about two seconds and free the device; may be called twice, and without a start."""

    def health(self) -> SourceHealth:
        """Return a copy of the present state."""


@runtime_checkable
class RingSource(Source, Protocol):
    """A source whose packets another process writes; they stay in its rings until somebody takes them.

    Attributes:
        wake: Set when something may be there to take that does not flow.
        flow: Set when something may be there to take that flows: sound, small tensors.
    """

    wake: Wake
    flow: Wake

    def supervise(self) -> None:
        """Begin without handing packets over."""

    def take(self, *, newest: bool = False) -> list[Packet]:
        """Return what is there, in order of arrival; of very many pictures and tensors the ``newest``."""

    def take_runs(self, *, newest: bool = False) -> list[Found]:
        """Return what ``take`` does as it was put, and blocks of sound that follow each other as a run."""


class StartTime:
    """The instant at which the timelines of all files of one run begin: the first to ask decides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ns: int | None = None

    def get(self) -> int:
        """Return the instant in ns on CLOCK_MONOTONIC."""
        with self._lock:
            if self._ns is None:
                self._ns = now_ns()
            return self._ns


class ThreadSource(ABC):
    """A source that reads in one thread.

    A subclass implements ``_read_impl``: return at the end of the stream, raise on failure, leave soon
    after ``stop`` is set. Whatever happens, each stream gets exactly one ``EndOfStream``, with the reason.

    Args:
        streams: Names of the inputs it feeds.
        name: What is read, as it may be shown.
        live: See ``Source``.

    Attributes:
        slots: How many frames of one input may be in use at once; set before ``start``.
        writer: What writes every packet that is emitted into the rings of another process, if it does; set before
            ``start``. A source may write there itself, without packets.
    """

    def __init__(self, streams: tuple[str, ...], *, name: str, live: bool) -> None:
        self.streams = streams
        self.name = name
        self.live = live
        self.error: MmedgeError | None = None
        self.refused: SourceError | None = None
        self.refused_streams = streams
        self.counters: Counter[str] = Counter()
        self.nominal_hz: dict[str, float] = {}
        self.epoch = 0
        self.slots = SLOTS
        self.writer: PacketWriter | None = None
        self._seq: Counter[str] = Counter()
        self._last_ns: dict[str, int] = {}
        self._ended: set[str] = set()
        self._state: Health = "MISSING"
        self._reason: str | None = "nothing has arrived yet"
        self._remarks: dict[str, str] = {}  # by cause: what no later packet makes undone
        self._damaged_ns: int | None = None  # capture time of the newest damaged picture
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        """Read until the end or until ``stop`` is set."""

    def _close_impl(self) -> None:  # noqa: B027  nothing to close is a fair answer
        """Wake a reader that is blocked, and free what was opened; called by ``stop``, also without a start."""

    def start(self, emit: Emit) -> None:
        """Start the reading thread."""
        if self._thread is not None:
            raise RuntimeError(f"source '{self.name}' was started twice")
        self._thread = threading.Thread(target=self._run, args=(emit,), name=f"mmedge-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits at most two seconds for it."""
        self._stop.set()
        self._close_impl()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)
            if thread.is_alive():
                log.warning("source '%s' did not stop within %g s; its thread is left behind", self.name, STOP_S)

    def health(self) -> SourceHealth:
        """Return a copy of the present state."""
        return SourceHealth(
            state=self._state,
            reason="; ".join(filter(None, (self._reason, *self._remarks.values()))) or None,
            counters=dict(self.counters),
            clocks=self._clock_reports(),
            nominal_hz=dict(self.nominal_hz),
        )

    def _clock_reports(self) -> dict[str, ClockReport]:
        """Return what is known of each stream's clock; called from other threads."""
        return {}

    def next_seq(self, stream: str) -> int:
        """Return the running number of the stream's next packet."""
        self._seq[stream] += 1
        return self._seq[stream] - 1

    def new_epoch(self) -> None:
        """Begin a new epoch: nothing is matched across it."""
        self.epoch += 1
        self._seq.clear()

    def set_state(self, state: Health, reason: str | None = None) -> None:
        """Set what ``health`` reports; a change is logged."""
        if (state, reason) != (self._state, self._reason):
            log.log(
                logging.WARNING if state == "RECONNECTING" else logging.INFO,
                "%s: %s %s",
                self.name,
                state,
                reason or "",
            )
        self._state, self._reason = state, reason

    def refuse(self, cause: str, error: SourceError, streams: tuple[str, ...]) -> None:
        """Count refused data of ``streams`` by cause and report it in ``health``; the first one is logged."""
        self.counters[f"refused_{cause}"] += 1
        if self.refused is None:
            log.warning("%s\n  further ones are only counted", error)
        self.refused_streams, self.refused, self._remarks["refused"] = streams, error, error.message

    def warn(self, cause: str, error: SourceError) -> None:
        """Log what is wrong with data that is taken all the same, once for each cause, and keep it in ``health``."""
        if cause not in self._remarks:
            self._remarks[cause] = f"{error.message} (fix: {error.fix})"
            log.warning("%s", error)

    def remark(self, text: str) -> None:
        """Report in ``health`` what is always so of this source; it is logged once."""
        if text not in self._remarks:
            self._remarks[text] = text
            log.warning("%s: %s", self.name, text)

    def block(self, stream: str, piece: Piece, *, capture_ns: int, uncertainty_ns: int, quality: ClockQuality) -> Block:
        """Return the packet of a piece of sound that arrives now."""
        return Block(
            stream=stream,
            seq=self.next_seq(stream),
            epoch=self.epoch,
            capture_ns=capture_ns,
            arrive_ns=now_ns(),
            uncertainty_ns=uncertainty_ns,
            quality=quality,
            samples=piece.samples,
            lost=piece.lost,
        )

    def frame(
        self,
        stream: str,
        data: ByteArray,
        release: Slot,
        *,
        format: PixelFormat,
        size: tuple[int, int],
        capture_ns: int,
        arrive_ns: int,
        uncertainty_ns: int,
        unchanged_ns: int,
        quality: ClockQuality = "B",
        description: Description = PLAIN,
        damaged: bool = False,
    ) -> Frame:
        """Return the packet of a picture of ``size`` (width, height) in a slot.

        ``data`` is uint8, of the shape [...] that ``format`` has, see ``Frame``.
        """
        return Frame(
            stream=stream,
            seq=self.next_seq(stream),
            epoch=self.epoch,
            capture_ns=capture_ns,
            arrive_ns=arrive_ns,
            uncertainty_ns=uncertainty_ns,
            quality=quality,
            data=data,
            format=format,
            width=size[0],
            height=size[1],
            description=description,
            release=release,
            unchanged_ns=unchanged_ns,
            damaged=damaged,
        )

    def went_by(self, newest: Packet) -> None:
        """Take in that packets of a stream were written without ``emit``, up to this one."""
        self.epoch, self._seq[newest.stream] = newest.epoch, newest.seq + 1
        self._last_ns[newest.stream] = newest.capture_ns
        self._judge(newest)

    def end(self, emit: Emit, stream: str, reason: str | None = None) -> None:
        """Emit the stream's ``EndOfStream``, once."""
        if stream in self._ended:
            return
        self._ended.add(stream)
        now = now_ns()
        emit(
            EndOfStream(
                stream=stream,
                seq=self.next_seq(stream),
                epoch=self.epoch,
                capture_ns=self._last_ns.get(stream, now),
                arrive_ns=now,
                reason=reason,
            )
        )

    def _judge(self, packet: Packet) -> None:
        if isinstance(packet, Frame) and packet.damaged:
            self.counters["damaged_frames"] += 1
            self._damaged_ns = packet.capture_ns
        if self._damaged_ns is not None and abs(packet.capture_ns - self._damaged_ns) < DAMAGED_NS:
            self.set_state("STALE", f"{self.name}: its pictures are damaged")
        elif isinstance(packet, Frame) and packet.unchanged_ns > FROZEN_NS:
            self.set_state("STALE", f"{self.name}: the picture does not change")
        elif self.live and packet.arrive_ns - packet.capture_ns > LATE_NS:
            self.set_state("LATE", f"{self.name}: its data is more than {LATE_NS / 1e9:g} s old on arrival")
        elif self._state != "OK":
            self.set_state("OK")

    def _run(self, emit: Emit) -> None:
        def counted(packet: Packet) -> None:
            if not isinstance(packet, EndOfStream):
                self.counters[COUNTED[type(packet)]] += 1
                self._last_ns[packet.stream] = packet.capture_ns
                self._ended.discard(packet.stream)  # a sender came back with it
                self._judge(packet)
            emit(packet)

        reason: str | None = None
        try:
            self._read_impl(counted, self._stop)
        except Exception as error:  # whatever it is must reach the user and not die with the thread
            if self._stop.is_set():  # closing a device under its reader fails the read: that is how it is woken
                log.debug("reading '%s' was cut off by stop\n%s", self.name, trace(error))
            elif isinstance(error, MmedgeError):
                self.error, reason = error, error.message
                log.error("%s", error)
            else:
                reason = scrub(f"{type(error).__name__}: {error}")
                what, fix = shortage(error) or (f"reading failed: {reason}", "the log has the details")
                self.error = SourceError(what, where=self.name, fix=fix)
                self.error.__cause__ = error
                # As text, of which secrets are taken: others may have put the address into what they raise.
                log.error("reading '%s' failed\n%s", self.name, trace(error), extra={"traced": True})
        # Why nothing came is what matters at the end of a run to which nothing came.
        self.set_state(
            "MISSING", reason or ((self._reason or "stopped") if self._stop.is_set() else "the stream ended")
        )
        if self._stop.is_set():
            return  # the reader has stopped, and emit may block
        try:
            for stream in self.streams:
                self.end(counted, stream, reason)
        except Exception:
            log.exception("the end of '%s' could not be delivered", self.name)
