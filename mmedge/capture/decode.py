"""Decoders of a PyAV container: a picture track and a sound track each, on the container's own time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mmedge.capture.base import ThreadSource
from mmedge.capture.channels import Choice, Mixer, RowReader, channel_count
from mmedge.capture.damage import CheckedDecoder
from mmedge.capture.description import Describer, layout_of
from mmedge.capture.interlace import Deinterlacer, Picture
from mmedge.capture.picture import PictureTrack, copy_planes, even_sides, frame_shape
from mmedge.capture.sound import MonoTrack, Piece
from mmedge.capture.times import PictureTimes, ticks_ns
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.types import NS_PER_S, Description, FloatArray, Frame, PixelFormat

_BACKWARD_RUN = 50  # packets in a row that run back: two seconds at 25 fps
_COLOURS = {"bt601": "ITU601", "bt709": "ITU709", "fcc": "FCC", "smpte240m": "SMPTE240M", "bt2020": "BT2020"}


def _decode(stream: Any, packet: Any, counters: Counter[str]) -> Iterator[Any]:
    """Yield the frames of a packet; a corrupt one is counted and gives none."""
    av = require("av", "reading media")
    if not packet.size and (packet.pts is not None or packet.dts is not None):
        return  # to a decoder it would mean the end
    try:
        yield from stream.decode(packet)
    except av.error.EOFError:
        return  # a second flush: nothing was left
    except av.error.FFmpegError:  # damage also leads to what a decoder does not know, or takes for a misuse
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
        if self._run >= _BACKWARD_RUN and self._newest - time_ns > NS_PER_S:
            raise SourceError(
                f"time stamps jumped back by {(self._newest - time_ns) / NS_PER_S:.1f} s and stayed there",
                where=self._where,
                fix="rewrite the stream with one timeline: ffmpeg -fflags +genpts -i IN -c copy OUT.mkv",
            )
        return True


# The layout of frames, the format to bring a picture to before, and height, width and shape that are taken of it.
_Layout: TypeAlias = tuple[PixelFormat, str, int, int, tuple[int, ...]]


def _layout_of(frame: Any) -> _Layout:
    layout, format = layout_of(frame.format)
    if 0 in even_sides(layout, frame.height, frame.width):  # nothing would be left of it
        layout, format = "yuv444p", "yuv444p16le" if frame.format.components[0].bits > 8 else "yuv444p"
    height, width = even_sides(layout, frame.height, frame.width)
    return layout, format, height, width, frame_shape(layout, height, width)


class PictureDecoder:
    """Decodes the picture track; every picture leaves packed, with what its stream says of it.

    Its layout is its own or the nearest that ``Frame`` knows; where chroma is shared an odd edge is cut off.
    """

    def __init__(self, source: ThreadSource, stream: Any, names: tuple[str, ...]) -> None:
        av = require("av", "reading media")
        self.stream = stream
        self.names = names
        self._source = source
        self._tracks = {name: PictureTrack(live=source.live, slots=lambda: source.slots) for name in names}
        self._direction = _Direction(source.name)
        self._last: Any = None
        self._base = stream.time_base
        self._kind: tuple[str, int, int] | None = None  # of the newest picture: format, height, width
        self._layout: _Layout = "gray8", "gray", 0, 0, ()
        if source.live:
            stream.codec_context.thread_count = 1  # frame threads add one frame of delay each
            stream.codec_context.flags |= av.codec.context.Flags.low_delay
        self._checked = CheckedDecoder(stream, source.counters)
        self._times = PictureTimes(stream)
        self._whole = Deinterlacer(source.remark)
        self.decoded = 0  # pictures that came out of the decoder, also those that are not given
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._describe = Describer(source, stream, self._checked.aspect_of)

    def decode(self, packet: Any) -> Iterator[Picture]:
        """Yield the pictures, their times strictly rising."""
        self._times.sent(packet)
        for frame, damaged, lost in self._checked.decode(packet):
            self.decoded += frame is not None
            time_ns = self._times.of_ns(frame) if lost is None else self._times.lost_ns(lost)
            if time_ns is None:
                continue
            if self._direction.back(time_ns):
                self._source.counters["backward_frames"] += frame is not None
                continue
            self._last = last = frame or self._last or self._blank()
            period_ns = ticks_ns(frame.duration, self._base) if frame and frame.duration else 0
            yield from self._whole.pass_on(Picture(time_ns, last, damaged, time_ns, period_ns, frame is None))
        if not packet.size and packet.pts is None and packet.dts is None:
            yield from self._whole.finish()
        if self._checked.remark is not None:
            self._source.remark(self._checked.remark)

    @property
    def failed(self) -> int:
        """Packets that the decoder refused."""
        return self._checked.failed

    def _blank(self) -> Any:
        """Return a picture of the size that the stream states, for those that are lost before the first one."""
        context = self.stream.codec_context
        size = max(2, context.height & ~1) * 3 // 2, max(2, context.width & ~1)
        return require("av", "reading media").VideoFrame.from_ndarray(np.zeros(size, np.uint8), format="yuv420p")

    def restart(self) -> None:
        """The sender's time begins anew."""
        self._direction, self._times = _Direction(self._source.name), PictureTimes(self.stream)
        self._checked.restart()
        self._whole.restart()

    def frames(
        self,
        frame: Any,
        stop: threading.Event,
        *,
        capture_ns: int,
        arrive_ns: int,
        uncertainty_ns: int = 0,
        damaged: bool = False,
    ) -> Iterator[Frame]:
        """Copy the picture into a slot for each input; an input without a free slot gets none."""
        said = self._describe(frame)
        kind = frame.format.name, frame.height, frame.width
        if kind != self._kind:
            self._kind, self._layout = kind, _layout_of(frame)
        layout, format, height, width, shape = self._layout
        if min([plane.line_size for plane in frame.planes]) < 0:
            frame = self._righted(frame)
        if format != kind[0]:
            frame = self._brought(frame, format, said)
        for name, track in self._tracks.items():
            lent = track.slot(shape, stop)
            if lent is None:
                self._source.counters["dropped_frames"] += not stop.is_set()
                continue
            slot, release = lent
            copy_planes(frame, slot, layout, height, width, full_range=said.full_range)
            yield self._source.frame(
                name,
                slot,
                release,
                format=layout,
                size=(width, height),
                capture_ns=capture_ns,
                arrive_ns=arrive_ns,
                uncertainty_ns=uncertainty_ns,
                unchanged_ns=track.unchanged_ns(slot[:height], capture_ns),
                description=said,
                damaged=damaged,
            )

    def _righted(self, frame: Any) -> Any:
        """Return a picture whose rows lie upside down in memory with its rows in order."""
        graph = require("av", "reading media").filter.Graph()
        buffer = graph.add(
            "buffer", f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
        )
        graph.link_nodes(buffer, graph.add("copy"), graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull()

    def _brought(self, frame: Any, format: str, said: Description) -> Any:
        """Return the picture in another format, of the same matrix and range."""
        matrix, span = _COLOURS[said.matrix], "JPEG" if said.full_range else "MPEG"
        return self._reformatter.reformat(
            frame,
            format=format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=span,
            dst_color_range=span,
        )


class SoundDecoder:
    """Decodes a sound track, mixes what each input takes of it down to mono and resamples that.

    Args:
        source: Whose track it is; it counts and reports what is lost or refused.
        stream: The ``av.audio.stream.AudioStream``.
        rates_hz: Names and sample rates of the inputs.
        choices: Which channels an input takes, by name; all of them where it is not here.
        low_delay: See ``MonoTrack``.
    """

    def __init__(
        self,
        source: ThreadSource,
        stream: Any,
        rates_hz: Mapping[str, int],
        choices: Mapping[str, Choice],
        *,
        low_delay: bool,
    ) -> None:
        self.stream = stream
        self.rates_hz = dict(rates_hz)
        self._source = source
        self._direction = _Direction(source.name)
        self._rate_hz = 0
        self._rows = RowReader()
        channel_count(stream)  # makes its layout safe to decode
        self._mixers = {name: Mixer(source, name, choices.get(name, Choice())) for name in rates_hz}
        grain_ns = float(stream.time_base * NS_PER_S)
        self._tracks = {n: MonoTrack(hz, hz, low_delay=low_delay, grain_ns=grain_ns) for n, hz in rates_hz.items()}
        self._next_ns = 0

    def decode(self, packet: Any) -> Iterator[tuple[str, Piece]]:
        """Yield (name of the input, piece of sound)."""
        counters = self._source.counters
        lost, overlapped = self._gone()
        for frame in _decode(self.stream, packet, counters):
            start_ns = self._next_ns if frame.pts is None else ticks_ns(frame.pts, frame.time_base)
            counters["backward_blocks"] += self._direction.back(start_ns)
            self._next_ns = start_ns + frame.samples * NS_PER_S // frame.sample_rate
            if frame.sample_rate != self._rate_hz:
                yield from self.finish()
                self._rate_hz = frame.sample_rate
                for track in self._tracks.values():
                    track.in_rate_hz = frame.sample_rate
            sounds = self._mix(self._rows.read(frame), start_ns)
            for name, track in self._tracks.items():
                pieces = track.feed(sounds[name], start_ns) if name in sounds else track.hole(self._next_ns, start_ns)
                for piece in pieces:
                    yield name, piece
        lost_now, overlapped_now = self._gone()
        counters["lost_samples"] += lost_now - lost  # several tracks of a source count in one place
        counters["overlapped_samples"] += overlapped_now - overlapped

    def hole(self, until_ns: int) -> Iterator[tuple[str, Piece]]:
        """Declare that there is no sound up to ``until_ns``."""
        return self._each(partial(MonoTrack.hole, until_ns=until_ns))

    def restart(self) -> None:
        """The sender's time begins anew."""
        self._direction = _Direction(self._source.name)
        for track in self._tracks.values():
            track.restart()

    def finish(self) -> Iterator[tuple[str, Piece]]:
        """Yield what the resamplers still hold."""
        return self._each(MonoTrack.finish)

    def _each(self, take: Callable[[MonoTrack], Iterator[Piece]]) -> Iterator[tuple[str, Piece]]:
        for name, track in self._tracks.items():
            for piece in take(track):
                yield name, piece

    def _gone(self) -> tuple[int, int]:
        tracks = self._tracks.values()
        return sum(track.lost for track in tracks), sum(track.overlapped for track in tracks)

    def _mix(self, rows: FloatArray, start_ns: int) -> dict[str, FloatArray]:
        """Return the mono of each input; one whose channels are not there, or not finite, has none."""
        mixed: dict[str, FloatArray] = {}
        broken: list[str] = []
        for name, mixer in self._mixers.items():
            lack = mixer.choice.lack(len(rows), "its sound")
            if lack is not None:
                self._refuse("no_channel", (name,), lack[0], start_ns, lack[1])
                continue
            samples = mixer.mix(rows, self._rate_hz)
            if np.isfinite(samples).all():
                mixed[name] = samples
            else:
                broken.append(name)
        if broken:
            fix = "correct the program that makes it; the whole block is discarded"
            self._refuse("not_finite", tuple(broken), "it has samples that are not finite", start_ns, fix)
        return mixed

    def _refuse(self, cause: str, names: tuple[str, ...], why: str, start_ns: int, fix: str) -> None:
        inputs = ", ".join(f"'{name}'" for name in names)
        where = f"{self._source.name}: {start_ns / NS_PER_S:.3f} s"
        error = SourceError(f"sound of input {inputs} was refused: {why}", where=where, fix=fix)
        self._source.refuse(cause, error, names)
