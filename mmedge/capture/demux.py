"""One pass over a media file, its tracks read side by side in the order of their time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mmedge.capture.times import ticks_ns
from mmedge.extras import require
from mmedge.types import NS_PER_S

_LEAD_NS = 10 * NS_PER_S


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
    return None if ticks is None else ticks_ns(ticks, packet.time_base)


def choose_tracks(
    container: Any, kind: Literal["video", "audio"], wanted: Mapping[str, int | None]
) -> tuple[list[tuple[Any, tuple[str, ...]]], dict[str, tuple[str, str]]]:
    """Choose the tracks of one kind that inputs take.

    Args:
        container: An ``av.container.InputContainer``.
        kind: Pictures (a cover image is no track) or sound.
        wanted: Input name -> number of its track among those of the kind, from 0; None takes the one that the
            container calls the default, else the first.

    Returns:
        Each track with the names of its inputs; and for each other input what there is not, and the fix.
    """
    flag = require("av", "reading media").stream.Disposition
    tracks = [each for each in getattr(container.streams, kind) if not each.disposition & flag.attached_pic]
    known = [number for number, stream in enumerate(tracks) if stream.codec_context is not None]
    usual = next((n for n in known if tracks[n].disposition & flag.default), known[0] if known else 0)
    chosen: dict[int, list[str]] = {}
    absent: dict[str, tuple[str, str]] = {}
    for name, number in wanted.items():
        number = usual if number is None else number
        if number < len(tracks) and number not in known:
            what = f"{kind} track {number} in a coding that this FFmpeg cannot decode"
            absent[name] = what, "convert it: ffmpeg -i IN OUT.mkv"
        elif number < len(tracks):
            chosen.setdefault(number, []).append(name)
        elif tracks:
            last = f" to ?track={len(tracks) - 1}" if len(tracks) > 1 else ""
            absent[name] = f"no {kind} track {number}, but {len(tracks)}, counted from 0", f"use ?track=0{last}"
        else:
            absent[name] = f"no {kind} track", f"give '{name}' another source"
    return [(tracks[number], tuple(names)) for number, names in sorted(chosen.items())], absent
