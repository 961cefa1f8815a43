"""Network streams by PyAV: low delay, own clock learnt, reopened until stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from errno import EIO
from typing import Any

from mmedge.capture.base import Emit, ThreadSource, log
from mmedge.capture.channels import Choice
from mmedge.capture.datagrams import LARGEST, Datagrams
from mmedge.capture.decode import PictureDecoder, SoundDecoder
from mmedge.capture.demux import choose_tracks
from mmedge.capture.kinds import KINDS
from mmedge.capture.network import FORMATS, open_network
from mmedge.capture.times import ticks_ns
from mmedge.capture.uri import Uri
from mmedge.clock import ClockReport, StreamClock, now_ns
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.types import NS_PER_S

_SILENCE_S = 1.5  # also bounds how long a stop can take
_BACKOFF_S = (0.2, 5.0)  # first and longest pause before a stream is opened again; it doubles
_BUFFERED_NS = 2_000_000  # a read that returns sooner gave what had been waiting
_BACK_NS = 1_000_000_000  # stamps that run back further start a new epoch
_JUMP_NS = 10_000_000_000  # between the steps of stamps and arrivals: a new epoch
_STUCK_NS, _STUCK_PACKETS = 1_000_000_000, 8  # of packets that give nothing, though they should
_MUTE_NS = 12_000_000_000  # without a picture: key frames are up to ten seconds apart
_FLOOR_NS = KINDS["network"].constant_ns["B"]


class _Stuck(OSError):  # noqa: N818  (no error: the stream is opened again)
    """Packets come, but nothing can be made of them."""


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """Yield the packets of some streams, of all without any."""
    packets = container.demux(streams or None)
    while True:
        try:
            packet = next(packets, None)
        except IndexError as error:  # PyAV cannot follow a container that grows
            raise _Stuck("the sender added a track") from error
        if packet is None:
            return
        yield packet


class _Progress:
    """Whether a track's packets become pictures or sound: the only sign that its sender is alive.

    A track that is joined between two key frames gives nothing until the next one, and a decoder may hold back a few.
    After a key frame, or where every packet can stand for itself, something must come.

    Args:
        what: What should come.
        keyed: Whether it begins at key frames.
    """

    def __init__(self, what: str, *, keyed: bool) -> None:
        self._what = what
        self._keyed = keyed
        self._since_ns = self._newest_ns = now_ns()
        self._from_ns: int | None = None if keyed else self._since_ns  # from when on something must come
        self._packets = self._failed = 0
        self.waits = False

    def note(self, packet: Any, came: bool, failed: bool, now: int) -> None:
        """Note a packet, whether something came of it and whether it was refused; raise when nothing will come."""
        silent_ns, self._newest_ns = now - self._newest_ns, now
        if silent_ns > _STUCK_NS // 2:  # what did not come could not be decoded
            self._since_ns += silent_ns
            self._from_ns = None if self._from_ns is None else self._from_ns + silent_ns
        if came:
            self._since_ns, self._packets, self._failed = now, 0, 0
            self._from_ns, self.waits = None if self._keyed else now, False
            return
        if self._from_ns is None and packet.is_keyframe and not packet.is_corrupt:
            self._from_ns, self._packets, self._failed = now, 0, 0
        self._packets += 1
        self._failed += failed
        refused = self._failed * 2 >= self._packets or not self._keyed
        due = self._from_ns is not None and now - self._from_ns > _STUCK_NS and self._packets >= _STUCK_PACKETS
        if (due and refused) or now - self._since_ns > _MUTE_NS:
            raise _Stuck(f"packets come, but no {self._what} for {(now - self._since_ns) / NS_PER_S:.1f} s")
        self.waits = now - self._since_ns > _STUCK_NS


class NetworkSource(ThreadSource):
    """Receives a network stream; when it falls silent it is opened again until ``stop``.

    Presentation times are placed on CLOCK_MONOTONIC by the lower envelope of their arrival.

    Args:
        uri: Parsed address of kind ``network``.
        images: Names of the inputs that take its pictures.
        sounds: Names and sample rates of the inputs that take its sound.
        choices: Which track and channels an input takes, by name.
    """

    def __init__(
        self,
        uri: Uri,
        *,
        images: tuple[str, ...] = (),
        sounds: Mapping[str, int] | None = None,
        choices: Mapping[str, Choice] | None = None,
    ) -> None:
        self._av: Any = require("av", "receiving network streams")
        self._sounds = dict(sounds or {})
        self._images = images
        self._choices = dict(choices or {})
        self._uri = uri
        self._next_ends = False
        self._clock = StreamClock(floor_ns=_FLOOR_NS)
        self._datagrams: Datagrams | None = None
        self._taught = False  # whether the clock has seen anything of this connection
        self._given_ns = 0  # when the last picture was emitted
        super().__init__((*images, *self._sounds), name=str(uri), live=True)

    def _close_impl(self) -> None:
        if self._datagrams is not None:
            self._datagrams.end()

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        backoff_s = _BACKOFF_S[0]
        opened = False
        while not stop.is_set():
            began_ns = now_ns()
            try:
                with self._open() as container:
                    if opened:
                        self.new_epoch()
                        self.counters["reconnects"] += 1
                    opened, backoff_s = True, _BACKOFF_S[0]
                    self._play(container, emit, stop)
                    reason = "the sender ended the stream"
            except (self._av.error.FFmpegError, OSError) as error:
                # FFmpeg reports a silent UDP port as an input/output error.
                silent = error.errno == EIO or isinstance(error, (self._av.error.ExitError, TimeoutError))
                reason = f"no packet for {_SILENCE_S} s" if silent else str(error.strerror or error)
            if not stop.is_set():
                self.set_state("RECONNECTING", f"{self.name}: {reason}")
                # Who listened in vain listens again at once, or the sender's first key frame could be missed.
                if now_ns() - began_ns < _SILENCE_S * NS_PER_S / 2:
                    stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_S[1])

    def _open(self) -> Any:
        target = self._uri.reveal()
        if not Datagrams.takes(target):
            return open_network(self._av, self._uri, _SILENCE_S, self._stop)
        self._datagrams = self._datagrams or Datagrams(target, _SILENCE_S)
        if self._stop.is_set():
            self._datagrams.end()
        options = {
            "analyzeduration": "200000",
            "fpsprobesize": "0",
            "protocol_whitelist": "none",  # nothing that a sender says opens a file or another host
            "format_whitelist": FORMATS,
        }
        return self._av.open(self._datagrams.begin(), buffer_size=LARGEST, options=options)

    def _play(self, container: Any, emit: Emit, stop: threading.Event) -> None:
        pictures, sounds = self._decoders(container, emit)
        decoders: dict[int, PictureDecoder | SoundDecoder] = {each.stream.index: each for each in pictures}
        decoders |= {each.stream.index: each for each in sounds}
        self._clock.restart()
        self._taught = False
        last: dict[int, tuple[int, int, Any]] = {}
        self._next_ends = container.format.name == "mpegts"
        buffered = True
        alive = {each.stream.index: _Progress("picture", keyed=True) for each in pictures}
        alive |= {each.stream.index: _Progress("sound", keyed=False) for each in sounds}
        before_ns = began_ns = now_ns()
        # Without a track that is wanted all are read: one that is silent, or changes, is opened again.
        for packet in _packets(container, [decoder.stream for decoder in decoders.values()]):
            arrive_ns = now_ns()
            if stop.is_set():
                return
            if not decoders and arrive_ns - began_ns > _MUTE_NS:
                raise _Stuck("it has no track that is wanted")
            if not decoders:
                continue
            # What came while the stream was being analysed is old: it is decoded, for the key frame in it,
            # but has no arrival time to learn from. The first read that had to wait ends it.
            buffered = buffered and arrive_ns - before_ns < _BUFFERED_NS
            if self._jumped(last, packet, arrive_ns):
                self._break("the sender's time jumped")
                self._clock.restart()
                self._taught = False
                for decoder in decoders.values():
                    decoder.restart()
            chosen, progress = decoders.get(packet.stream.index), alive.get(packet.stream.index)
            if isinstance(chosen, PictureDecoder) and progress is not None:
                before = chosen.decoded, chosen.failed
                self._pictures(chosen, packet, emit, stop, arrive_ns, buffered)
                progress.note(packet, chosen.decoded > before[0], chosen.failed > before[1], arrive_ns)
                if progress.waits and arrive_ns - self._given_ns > _STUCK_NS:  # damaged ones are no reason to wait
                    self.set_state("RECONNECTING", f"{self.name}: packets come, but no picture yet")
            elif isinstance(chosen, SoundDecoder) and progress is not None:
                came = self._sound(chosen, packet, emit, arrive_ns, buffered)
                progress.note(packet, came, not came, arrive_ns)
            before_ns = now_ns()

    def _decoders(self, container: Any, emit: Emit) -> tuple[list[PictureDecoder], list[SoundDecoder]]:
        """Return a decoder for each track that is wanted and there; an input whose track is not there ends."""
        numbers = {name: self._choices.get(name, Choice()).track for name in self.streams}
        pictures, blind = choose_tracks(container, "video", {name: numbers[name] for name in self._images})
        sounds, deaf = choose_tracks(container, "audio", {name: numbers[name] for name in self._sounds})
        lacking = blind | deaf
        if all(name in self._ended for _, names in pictures + sounds for name in names):
            # With its last input the source would end, but the sender may come back with what is lacking.
            if not pictures and not sounds:
                self.set_state("RECONNECTING", f"{self.name} has {next(iter(lacking.values()))[0]}")
            lacking = {name: what for name, what in lacking.items() if numbers[name] is not None}
        for name, (what, fix) in lacking.items():
            reason = f"{self.name} has {what}"
            if numbers[name] is None:
                log.warning("input '%s' is missing: %s", name, reason)
            else:
                error = SourceError(f"input '{name}' is missing: {reason}", where=self.name, fix=fix)
                self.refuse("no_track", error, (name,))
            self.end(emit, name, reason)
        for track, names in pictures:
            if track.average_rate:
                self.nominal_hz |= dict.fromkeys(names, float(track.average_rate))
        for track, names in sounds:
            self.nominal_hz |= dict.fromkeys(names, float(track.rate))
        return [PictureDecoder(self, track, names) for track, names in pictures], [
            SoundDecoder(self, track, {name: self._sounds[name] for name in names}, self._choices, low_delay=True)
            for track, names in sounds
        ]

    def _pictures(
        self,
        decoder: PictureDecoder,
        packet: Any,
        emit: Emit,
        stop: threading.Event,
        arrive_ns: int,
        buffered: bool,
    ) -> None:
        for picture in decoder.decode(packet):
            if buffered:
                self.counters["flushed_frames"] += 1
                continue
            self._given_ns = arrive_ns
            # In MPEG-TS a picture ends where the next begins, so it arrives one period after it was sent.
            if not picture.lost or not self._taught:
                self._learn(picture.newest_ns + (picture.period_ns if self._next_ends else 0), arrive_ns)
            for out in decoder.frames(
                picture.frame,
                stop,
                capture_ns=self._clock.to_monotonic(picture.time_ns),
                arrive_ns=arrive_ns,
                uncertainty_ns=self._clock.uncertainty_ns,
                damaged=picture.damaged,
            ):
                emit(out)

    def _sound(self, decoder: SoundDecoder, packet: Any, emit: Emit, arrive_ns: int, buffered: bool) -> bool:
        """Take a packet of sound; tell whether sound came of it, or could not be asked for."""
        if buffered:
            self.counters["flushed_blocks"] += 1
            return True
        if packet.pts is None:
            return True
        came = False
        self._learn(ticks_ns(packet.pts + (packet.duration or 0), packet.time_base), arrive_ns)
        for name, piece in decoder.decode(packet):
            capture_ns = self._clock.to_monotonic(piece.end_ns)
            emit(self.block(name, piece, capture_ns=capture_ns, uncertainty_ns=self._clock.uncertainty_ns, quality="B"))
            came = True
        return came

    @staticmethod
    def _jumped(last: dict[int, tuple[int, int, Any]], packet: Any, arrive_ns: int) -> bool:
        """Tell whether a track's time went on in another way than the clock did."""
        if packet.dts is None:
            return False
        before = last.get(packet.stream_index)
        base = packet.time_base if before is None else before[2]  # asked once: each answer is a new fraction
        time_ns = ticks_ns(packet.dts, base)
        last[packet.stream_index] = time_ns, arrive_ns, base
        if before is None:
            return False
        step_ns = time_ns - before[0]
        return step_ns < -_BACK_NS or abs(step_ns - (arrive_ns - before[1])) > _JUMP_NS

    def _learn(self, time_ns: int, arrive_ns: int) -> None:
        self._taught = True
        jump_ns = self._clock.observe(time_ns, arrive_ns)
        if jump_ns:
            self._break(f"its delay changed by {jump_ns / 1e6:.0f} ms")

    def _break(self, reason: str) -> None:
        log.warning("%s: %s; a new epoch starts", self.name, reason)
        self.counters["clock_jumps"] += 1
        self.new_epoch()

    def _clock_reports(self) -> dict[str, ClockReport]:
        return dict.fromkeys(self.streams, self._clock.report("B"))
