"""Network streams (udp, rtsp) by PyAV: low delay, own clock learnt, reopened until stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from errno import EIO
from typing import Any
from urllib.parse import urlsplit

from mmedge.capture.base import Emit, ThreadSource, log
from mmedge.capture.channels import Choice
from mmedge.capture.decode import PictureDecoder, SoundDecoder
from mmedge.capture.demux import choose_tracks
from mmedge.capture.kinds import KINDS
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
_FLOOR_NS = KINDS["network"].constant_ns["B"]


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
        super().__init__((*images, *self._sounds), name=str(uri), live=True)

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
        options = {"analyzeduration": "200000", "fpsprobesize": "0", "timeout": "1000000"}
        if self._uri.target.startswith("rtsp"):
            options["rtsp_flags"] = "prefer_tcp"
        else:
            options["overrun_nonfatal"] = "1"
            if urlsplit(self._uri.target).hostname in ("127.0.0.1", "localhost"):
                options["localaddr"] = "127.0.0.1"  # FFmpeg would listen on every interface
        return self._av.open(self._uri.target, timeout=(2 * _SILENCE_S, _SILENCE_S), options=options)

    def _play(self, container: Any, emit: Emit, stop: threading.Event) -> None:
        pictures, sounds = self._decoders(container, emit)
        decoders: dict[int, PictureDecoder | SoundDecoder] = {each.stream.index: each for each in pictures}
        decoders |= {each.stream.index: each for each in sounds}
        self._clock.restart()
        last: dict[int, tuple[int, int]] = {}
        self._next_ends = container.format.name == "mpegts"
        buffered = True
        before_ns = now_ns()
        for packet in container.demux([decoder.stream for decoder in decoders.values()]):
            arrive_ns = now_ns()
            if stop.is_set():
                return
            # What came while the stream was being analysed is old: it is decoded, for the key frame in it,
            # but has no arrival time to learn from. The first read that had to wait ends it.
            buffered = buffered and arrive_ns - before_ns < _BUFFERED_NS
            if self._jumped(last, packet, arrive_ns):
                self._break("the sender's time jumped")
                self._clock.restart()
                for decoder in decoders.values():
                    decoder.restart()
            chosen = decoders.get(packet.stream.index)
            if isinstance(chosen, PictureDecoder):
                self._pictures(chosen, packet, emit, stop, arrive_ns, buffered)
            elif chosen is not None:
                self._sound(chosen, packet, emit, arrive_ns, buffered)
            before_ns = now_ns()

    def _decoders(self, container: Any, emit: Emit) -> tuple[list[PictureDecoder], list[SoundDecoder]]:
        """Return a decoder for each track that is wanted and there; an input whose track is not there ends."""
        numbers = {name: self._choices.get(name, Choice()).track for name in self.streams}
        pictures, blind = choose_tracks(container, "video", {name: numbers[name] for name in self._images})
        sounds, deaf = choose_tracks(container, "audio", {name: numbers[name] for name in self._sounds})
        for name, (what, fix) in (blind | deaf).items():
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
        for time_ns, frame in decoder.decode(packet):
            if buffered:
                self.counters["flushed_frames"] += 1
                continue
            # In MPEG-TS a picture ends where the next begins, so it arrives one period after it was sent.
            period = frame.duration if self._next_ends and frame.duration else 0
            self._learn(time_ns + int(period * frame.time_base * NS_PER_S), arrive_ns)
            for out in decoder.frames(
                frame,
                stop,
                capture_ns=self._clock.to_monotonic(time_ns),
                arrive_ns=arrive_ns,
                uncertainty_ns=self._clock.uncertainty_ns,
            ):
                emit(out)

    def _sound(self, decoder: SoundDecoder, packet: Any, emit: Emit, arrive_ns: int, buffered: bool) -> None:
        if buffered:
            self.counters["flushed_blocks"] += 1
            return
        if packet.pts is None:
            return
        self._learn(int((packet.pts + (packet.duration or 0)) * packet.time_base * NS_PER_S), arrive_ns)
        for name, piece in decoder.decode(packet):
            capture_ns = self._clock.to_monotonic(piece.end_ns)
            emit(self.block(name, piece, capture_ns=capture_ns, uncertainty_ns=self._clock.uncertainty_ns, quality="B"))

    @staticmethod
    def _jumped(last: dict[int, tuple[int, int]], packet: Any, arrive_ns: int) -> bool:
        """Tell whether a track's time went on in another way than the clock did."""
        if packet.dts is None:
            return False
        time_ns = int(packet.dts * packet.time_base * NS_PER_S)
        before = last.get(packet.stream_index)
        last[packet.stream_index] = time_ns, arrive_ns
        if before is None:
            return False
        step_ns = time_ns - before[0]
        return step_ns < -_BACK_NS or abs(step_ns - (arrive_ns - before[1])) > _JUMP_NS

    def _learn(self, time_ns: int, arrive_ns: int) -> None:
        jump_ns = self._clock.observe(time_ns, arrive_ns)
        if jump_ns:
            self._break(f"its delay changed by {jump_ns / 1e6:.0f} ms")

    def _break(self, reason: str) -> None:
        log.warning("%s: %s; a new epoch starts", self.name, reason)
        self.counters["clock_jumps"] += 1
        self.new_epoch()

    def _clock_reports(self) -> dict[str, ClockReport]:
        return dict.fromkeys(self.streams, self._clock.report("B"))
