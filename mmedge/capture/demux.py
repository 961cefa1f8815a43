"""One pass over a media file, its tracks read side by side in the order of their time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

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
    return None if ticks is None else int(ticks * packet.time_base * NS_PER_S)


def choose_streams(container: Any) -> tuple[Any | None, Any | None]:
    """Return the first picture track (a cover image is none) and the first sound track."""
    cover = require("av", "reading media").stream.Disposition.attached_pic
    picture = next((s for s in container.streams.video if not s.disposition & cover), None)
    return picture, next(iter(container.streams.audio), None)
