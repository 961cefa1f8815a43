"""Decoders of a PyAV container: its first picture track and its first sound track, on the container's own time."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmedge.capture.picture import PictureTrack, copy_yuv420p
from mmedge.capture.sound import MonoTrack, Piece
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.types import ClockQuality, Frame

_S = 1_000_000_000
_LEAD_NS = 10 * _S
_BACKWARD_RUN = 50
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class Demuxer:
    """Gives each stream's packets in turn from one pass over a file, holding back those of the others."""

    def __init__(self, container: Any, streams: list[Any]) -> None:
        self._packets: Iterator[Any] = container.demux(streams)
        self._waiting: dict[int, deque[Any]] = {stream.index: deque() for stream in streams}
        self._done = False

    def packets(self, stream: Any) -> Iterator[Any | int]:
        """Yield the stream's packets; an int says that it has none before that time (ns), though others go on."""
        own = self._waiting[stream.index]
        while True:
            if own:
                yield own.popleft()
                continue
            if self._done:
                return
            packet = next(self._packets, None)
            if packet is None:
                self._done = True
                continue
            waiting = self._waiting[packet.stream.index]
            waiting.append(packet)
            first, last = packet_ns(waiting[0]), packet_ns(packet)
            if waiting is not own and first is not None and last is not None and last - first > _LEAD_NS:
                yield first


def packet_ns(packet: Any) -> int | None:
    """Return a packet's decoding (else presentation) time in ns."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None else int(ticks * packet.time_base * _S)


def decode(stream: Any, packet: Any, counters: Counter[str]) -> Iterator[Any]:
    """Yield the frames of a packet; a corrupt one is counted and gives none."""
    av = require("av", "reading media")
    try:
        yield from stream.decode(packet)
    except av.error.EOFError:
        return  # a second flush: nothing was left
    except av.error.InvalidDataError:
        counters["corrupt_packets"] += 1


class _Direction:
    """Notices time stamps that do not advance, and gives up when they have gone back for good."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._newest: int | None = None
        self._run = 0

    def back(self, time_ns: int) -> bool:
        if self._newest is None or time_ns > self._newest:
            self._newest, self._run = time_ns, 0
            return False
        self._run += 1
        if self._run >= _BACKWARD_RUN and self._newest - time_ns > _S:
            raise SourceError(
                f"time stamps went back by {(self._newest - time_ns) / _S:.1f} s and stayed there",
                where=self._where,
                fix="write the stream again with one timeline: ffmpeg -fflags +genpts -i IN -c copy OUT.mkv",
            )
        return True


class PictureDecoder:
    """Decodes the picture track; every picture leaves as packed yuv420p of even size (an odd edge is cut off)."""

    def __init__(self, stream: Any, names: tuple[str, ...], counters: Counter[str], *, live: bool, where: str) -> None:
        self.stream = stream
        self.names = names
        self._counters = counters
        self._tracks = {name: PictureTrack(live=live) for name in names}
        self._direction = _Direction(where)
        self._last_ns: int | None = None
        self._reformat = require("av", "reading media").video.reformatter.VideoReformatter().reformat
        if live:
            codec = stream.codec_context
            codec.thread_count = 1  # frame threads add one frame of delay each
            codec.flags |= require("av", "reading media").codec.context.Flags.low_delay

    def decode(self, packet: Any) -> Iterator[tuple[int, Any]]:
        """Yield (time in ns, frame), strictly rising."""
        for frame in decode(self.stream, packet, self._counters):
            if frame.pts is not None:
                time_ns = int(frame.pts * frame.time_base * _S)
            else:  # raw H.264 has none: count frames
                rate = self.stream.average_rate or self.stream.guessed_rate or 25
                time_ns = 0 if self._last_ns is None else self._last_ns + int(_S / rate)
            if self._direction.back(time_ns):
                self._counters["backward_frames"] += 1
                continue
            self._last_ns = time_ns
            yield time_ns, frame

    def packets(
        self, frame: Any, stop: threading.Event, *, capture_ns: int, arrive_ns: int, uncertainty_ns: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Copy the picture into a slot per input; yield each input's name and its Frame's own fields."""
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith(("yuvj", "gray")) or frame.format.is_rgb
        if frame.format.name not in ("yuv420p", "yuvj420p"):
            frame = self._reformat(frame, format="yuv420p", dst_color_range="JPEG" if full else "MPEG")
        width, height = frame.width & ~1, frame.height & ~1
        for name, track in self._tracks.items():
            lent = track.slot((height * 3 // 2, width), stop)
            if lent is None:
                self._counters["dropped_frames"] += not stop.is_set()
                continue
            slot, release = lent
            copy_yuv420p(frame, slot, width, height)
            yield (
                name,
                {
                    "data": slot,
                    "format": "yuv420p",
                    "width": width,
                    "height": height,
                    "full_range": bool(full),
                    "release": release,
                    "unchanged_ns": track.unchanged_ns(slot[:height], capture_ns),
                    "capture_ns": capture_ns,
                    "arrive_ns": arrive_ns,
                    "uncertainty_ns": uncertainty_ns,
                },
            )


class SoundDecoder:
    """Decodes the sound track, mixes it down to mono and resamples it for each input."""

    def __init__(
        self, stream: Any, rates_hz: Mapping[str, int], counters: Counter[str], *, live: bool, where: str
    ) -> None:
        self.stream = stream
        self._rates_hz = dict(rates_hz)
        self._counters = counters
        self._live = live
        self._direction = _Direction(where)
        self._kind: tuple[str, str, int] | None = None
        self._mixer: Any = None
        self._tracks: dict[str, MonoTrack] = {}
        self._next_ns = 0

    def decode(self, packet: Any) -> Iterator[tuple[str, Piece]]:
        """Yield (name of the input, piece of sound)."""
        for frame in decode(self.stream, packet, self._counters):
            start_ns = self._next_ns if frame.pts is None else int(frame.pts * frame.time_base * _S)
            self._counters["backward_blocks"] += self._direction.back(start_ns)
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != self._kind:
                yield from self._adapt(kind)
            frame.pts = None  # our own count of samples keeps the time
            for mixed in self._mixer.resample(frame):
                samples = mixed.to_ndarray()[0].astype(np.float32, copy=False)
                for name, track in self._tracks.items():
                    for piece in track.feed(samples, start_ns):
                        yield name, piece
            self._next_ns = start_ns + frame.samples * _S // frame.sample_rate
        self._counters["lost_samples"] = sum(track.lost for track in self._tracks.values())
        self._counters["overlapped_samples"] = sum(track.overlapped for track in self._tracks.values())

    def hole(self, until_ns: int) -> Iterator[tuple[str, Piece]]:
        """Declare that there is no sound up to ``until_ns``."""
        for name, track in self._tracks.items():
            for piece in track.hole(until_ns):
                yield name, piece

    def finish(self) -> Iterator[tuple[str, Piece]]:
        """Yield what the resamplers still hold."""
        for name, track in self._tracks.items():
            for piece in track.finish():
                yield name, piece

    def _adapt(self, kind: tuple[str, str, int]) -> Iterator[tuple[str, Piece]]:
        """Follow a change of format, layout or rate."""
        yield from self.finish()
        resampler = require("av", "reading media").AudioResampler
        self._mixer = resampler(format="flt", layout="mono", rate=kind[2])
        if self._kind is None or self._kind[2] != kind[2]:
            self._tracks = {n: MonoTrack(kind[2], rate, live=self._live) for n, rate in self._rates_hz.items()}
        self._kind = kind


def choose_streams(container: Any) -> tuple[Any | None, Any | None]:
    """Return the first picture track (a cover image is none) and the first sound track."""
    cover = require("av", "reading media").stream.Disposition.attached_pic
    picture = next((s for s in container.streams.video if not s.disposition & cover), None)
    return picture, next(iter(container.streams.audio), None)


def frame_packet(stream: str, seq: int, epoch: int, quality: ClockQuality, fields: dict[str, Any]) -> Frame:
    """Build the Frame of one input."""
    return Frame(stream=stream, seq=seq, epoch=epoch, quality=quality, **fields)
