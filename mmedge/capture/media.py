"""Media files: the tracks of a clip on one timeline, at the speed of the clip or of the reader."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mmedge.capture.base import Emit, StartTime, ThreadSource, log
from mmedge.capture.channels import Choice, channel_count
from mmedge.capture.decode import PictureDecoder, SoundDecoder
from mmedge.capture.demux import Demuxer, choose_tracks
from mmedge.capture.interlace import Picture
from mmedge.capture.sound import Piece
from mmedge.capture.times import origin_ns
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, MmedgeError, SourceError
from mmedge.extras import require
from mmedge.types import NS_PER_S

_HOLE_NS = 20_000_000  # of sound that a file lacks: less is rounding
_Item = tuple[int, Callable[[Emit, int], None]]  # (time in the file, what to do when it is due)


class MediaSource(ThreadSource):
    """Reads a media file by PyAV: pictures as yuv420p, sound as mono float32 at each input's rate.

    Packets leave in the order of their time, whatever the file's own order, and lie on the timeline
    ``base + (pts - first pts)``, where base is the start of the run and the first pts is that of all its tracks.

    Args:
        path: The file.
        images: Names of the inputs that take its pictures.
        sounds: Names and sample rates of the inputs that take its sound.
        choices: Which track and channels an input takes, by name.
        realtime: Deliver nothing before its time has come; otherwise as fast as ``emit`` accepts.
        speed: How many times faster than the clip real time runs.
        base: The start of the run, shared by all its files.

    Raises:
        ConfigError: If there is no such file, or it has not the track or the channel that an input chose.
        SourceError: If it is not a media file.
    """

    def __init__(
        self,
        path: str,
        *,
        images: tuple[str, ...] = (),
        sounds: Mapping[str, int] | None = None,
        choices: Mapping[str, Choice] | None = None,
        realtime: bool = True,
        speed: float = 1.0,
        base: StartTime | None = None,
    ) -> None:
        sounds = sounds or {}
        super().__init__((*images, *sounds), name=path, live=realtime)
        self._realtime = realtime
        self._speed = speed
        self._base = base or StartTime()
        self._container = open_file(path)
        self._first_ns = origin_ns(self._container)
        self._stated = self._first_ns is not None
        try:
            self._choose(Path(path).name, images, sounds, choices or {})
        except MmedgeError:
            self._container.close()
            raise

    def _choose(
        self, file: str, images: tuple[str, ...], sounds: Mapping[str, int], choices: Mapping[str, Choice]
    ) -> None:
        numbers = {name: choices.get(name, Choice()).track for name in self.streams}
        pictures, blind = choose_tracks(self._container, "video", {name: numbers[name] for name in images})
        tracks, deaf = choose_tracks(self._container, "audio", {name: numbers[name] for name in sounds})
        self._absent = {name: f"{file} has {what}" for name, (what, _) in (blind | deaf).items()}
        for name, (what, fix) in (blind | deaf).items():
            if numbers[name] is not None:
                raise ConfigError(f"input '{name}': {file} has {what}", where=self.name, fix=fix)
        if not any(choose_tracks(self._container, kind, {"": None})[0] for kind in ("video", "audio")):
            what = "the file has neither a picture nor a sound track"
            raise SourceError(what, where=self.name, fix="give a media file")
        for track, names in tracks:
            for name in names:
                choice, what = choices.get(name, Choice()), f"the sound of {file}"
                lack = choice.lack(channel_count(track), what)
                # What was seen last while the file was analysed need not be what it begins with.
                if lack is not None and choice.lack(_first_channels(self.name, track.index), what) is not None:
                    raise ConfigError(f"input '{name}': {lack[0]}", where=self.name, fix=lack[1])
        self._pictures = [PictureDecoder(self, track, names) for track, names in pictures]
        # A file is read ahead, so the exact filter's delay costs nothing.
        self._sounds = [
            SoundDecoder(self, track, {name: sounds[name] for name in names}, choices, low_delay=False)
            for track, names in tracks
        ]

    def _close_impl(self) -> None:
        if self._thread is None:  # a running reader closes the file itself
            self._container.close()

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        for name, reason in self._absent.items():
            log.warning("input '%s' is missing: %s", name, reason)
            self.end(emit, name, reason)
        base_ns = self._base.get()
        with self._container:
            tracks: list[Iterator[_Item]] = []
            streams = [each.stream for each in self._pictures] + [each.stream for each in self._sounds]
            demuxer = Demuxer(self._container, streams)
            tracks += [self._picture_items(decoder, demuxer, stop) for decoder in self._pictures]
            tracks += [self._sound_items(decoder, demuxer) for decoder in self._sounds]
            for time_ns, deliver in heapq.merge(*tracks, key=itemgetter(0)):
                since_ns = time_ns - (self._first_ns or 0)
                early_ns = base_ns + since_ns / self._speed - now_ns() if self._realtime else 0
                if (early_ns > 0 and stop.wait(early_ns / NS_PER_S)) or stop.is_set():
                    return
                deliver(emit, base_ns + since_ns)

    def _picture_items(self, decoder: PictureDecoder, demuxer: Demuxer, stop: threading.Event) -> Iterator[_Item]:
        time_ns, none = 0, True
        for packet in demuxer.packets(decoder.stream):
            if isinstance(packet, int):
                continue
            for picture in decoder.decode(packet):
                time_ns, none = picture.time_ns, False
                self._begin(time_ns)
                yield time_ns, partial(self._deliver_frame, decoder, picture, stop)
        failed = none and decoder.failed
        yield time_ns, self._deliver_end(decoder.names, "none of its pictures can be decoded" if failed else None)

    def _deliver_frame(
        self, decoder: PictureDecoder, picture: Picture, stop: threading.Event, emit: Emit, capture_ns: int
    ) -> None:
        arrive_ns, damaged = now_ns(), picture.damaged
        for packet in decoder.frames(picture.frame, stop, capture_ns=capture_ns, arrive_ns=arrive_ns, damaged=damaged):
            emit(packet)

    def _sound_items(self, decoder: SoundDecoder, demuxer: Demuxer) -> Iterator[_Item]:
        ends_ns = dict.fromkeys(decoder.rates_hz, self._first_ns)
        time_ns = 0
        for packet in demuxer.packets(decoder.stream):
            for name, piece in decoder.hole(packet) if isinstance(packet, int) else decoder.decode(packet):
                start_ns = piece.end_ns - len(piece.samples) * NS_PER_S // decoder.rates_hz[name]
                self._begin(start_ns - piece.lost * NS_PER_S // decoder.rates_hz[name])
                end_ns = ends_ns[name]
                if not self._realtime and end_ns is not None and start_ns - end_ns > _HOLE_NS:
                    # Said where it begins: pictures of the hole wait for sound, and may not wait until its end.
                    hole = Piece(samples=piece.samples[:0], end_ns=start_ns, lost=piece.lost)
                    yield end_ns, partial(self._deliver_hole, name, hole, start_ns - end_ns)
                    piece = replace(piece, lost=0)
                time_ns = ends_ns[name] = piece.end_ns
                yield time_ns, partial(self._deliver_block, name, piece)
        for name, piece in decoder.finish():
            time_ns = piece.end_ns
            yield time_ns, partial(self._deliver_block, name, piece)
        yield time_ns, self._deliver_end(tuple(decoder.rates_hz))

    def _deliver_block(self, name: str, piece: Piece, emit: Emit, capture_ns: int) -> None:
        emit(self.block(name, piece, capture_ns=capture_ns, uncertainty_ns=0, quality="B"))

    def _deliver_hole(self, name: str, hole: Piece, length_ns: int, emit: Emit, capture_ns: int) -> None:
        self._deliver_block(name, hole, emit, capture_ns + length_ns)

    def _deliver_end(self, names: tuple[str, ...], reason: str | None = None) -> Callable[[Emit, int], None]:
        def deliver(emit: Emit, capture_ns: int) -> None:
            for name in names:
                self.end(emit, name, reason)

        return deliver

    def _begin(self, time_ns: int) -> None:
        """Learn where a file begins that does not say so; both tracks are asked before an item of one leaves."""
        if self._stated:
            return
        self._first_ns = time_ns if self._first_ns is None else min(self._first_ns, time_ns)


def _first_channels(path: str, index: int) -> int:
    """Return how many channels the first sound of a track has; 0 if none can be read."""
    errors = require("av", "reading media files").error
    with open_file(path) as container, suppress(errors.FFmpegError):
        channel_count(container.streams[index])
        return next((int(f.layout.nb_channels) for f in container.decode(container.streams[index])), 0)
    return 0


def open_file(path: str) -> Any:
    """Open a media file.

    Args:
        path: The file.

    Returns:
        The ``av.container.InputContainer``; close it.

    Raises:
        ConfigError: If there is no such file.
        SourceError: If it is damaged or not a media file.
    """
    av = require("av", "reading media files")
    if not Path(path).exists():
        raise ConfigError(f"there is no file '{path}'", where=path, fix="check the path")
    if Path(path).is_dir():
        raise ConfigError(f"'{path}' is a folder", where=path, fix="name one media file")
    try:
        # Never as another protocol, whatever its name and whatever it names.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(
            f"'{path}' cannot be read as media: {error.strerror}", where=path, fix="check it with: ffprobe " + path
        ) from error
