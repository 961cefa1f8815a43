"""When a file's pictures were taken, as its container and its codec say it."""

from __future__ import annotations

from collections import deque
from typing import Any

from mmedge.extras import require
from mmedge.types import NS_PER_S


def ticks_ns(ticks: int, time_base: Any) -> int:
    """Return a count of ticks in ns, cut off towards zero.

    Args:
        ticks: The count.
        time_base: Seconds of one, a ``Fraction``: to multiply by it makes two more of them, dear at every packet.

    Example:
        >>> from fractions import Fraction
        >>> ticks_ns(-1, Fraction(1, 3))
        -333333333
    """
    numerator, parts = time_base.as_integer_ratio()
    scaled = ticks * int(numerator) * NS_PER_S
    return int(scaled // parts if scaled >= 0 else -(-scaled // parts))


def origin_ns(container: Any) -> int | None:
    """Return where a file begins: the first time that any of its sounds or pictures states; None if none does.

    Tracks that nothing takes count, too: whoever takes one track has the same time as whoever takes another.
    """
    cover = require("av", "reading media").stream.Disposition.attached_pic
    tracks = [s for s in container.streams if s.type in ("video", "audio") and not s.disposition & cover]
    starts = [ticks_ns(s.start_time, s.time_base) for s in tracks if s.start_time is not None]
    return min(starts) if starts else None


class PictureTimes:
    """The presentation times of the pictures of one decoder.

    A container may state presentation times, decoding times alone (AVI), or none (a bare stream). FFmpeg fills in what
    is not stated, so what it gives is used only as far as it was stated:

    - both kinds: the presentation times, unless they run back more often than the decoding times (FFmpeg's rule);
    - decoding times alone: their order is that of the packets, pictures leave in the order of presentation, so the
      first picture has the first time;
    - none: pictures are counted, at the rate that the codec's own headers state, else at that of the container.

    Args:
        stream: The PyAV stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._base = stream.time_base  # of its packets and pictures: each of them would make a new fraction of it
        form = stream.container.format
        flag = require("av", "reading media").format.Flags.no_timestamps
        self._counted = bool(form.flags & flag.value)
        self._in_order = form.name == "avi"
        self._times: deque[int] = deque()
        self._faulty = [0, 0]  # presentation times, decoding times
        self._newest: list[int | None] = [None, None]
        self._stated_ns = 0  # the last time that was stated
        self._since = -1  # pictures since then; -1: none was stated and none counted

    def sent(self, packet: Any) -> None:
        """Note a packet that is decoded next."""
        if self._in_order and packet.dts is not None and packet.size:
            self._times.append(packet.dts)

    def of_ns(self, frame: Any) -> int:
        """Return the time of the next picture that leaves the decoder, in ns."""
        ticks = None if self._counted else self._ordered() if self._in_order else self._best(frame.pts, frame.dts)
        return self._after(ticks)

    def lost_ns(self, ticks: int) -> int | None:
        """Return the time of a packet that gave no picture, in ns; None where that is not known."""
        if self._counted:  # it has its place among the others
            return self._after(None)
        if self._in_order:
            if ticks not in self._times or self._stream.codec_context.reorder_depth:
                return None
            self._times.remove(ticks)
            return self._after(ticks)
        return ticks_ns(ticks, self._base)

    def _after(self, ticks: int | None) -> int:
        self._since += 1
        if ticks is not None:
            self._stated_ns, self._since = ticks_ns(ticks, self._base), 0
        counted_ns: int = round(self._since * NS_PER_S / self._rate) if self._since else 0
        return self._stated_ns + counted_ns

    @property
    def _rate(self) -> Any:
        """Pictures a second, as the codec's headers or else the container state it."""
        stream = self._stream
        return stream.codec_context.framerate or stream.average_rate or stream.guessed_rate or 25

    def _ordered(self) -> int | None:
        while len(self._times) > self._stream.codec_context.reorder_depth + 1:
            self._times.popleft()  # no picture came of it
        return self._times.popleft() if self._times else None

    def _best(self, pts: int | None, dts: int | None) -> int | None:
        for which, ticks in enumerate((pts, dts)):
            before = self._newest[which]
            if ticks is not None:
                self._faulty[which] += before is not None and ticks <= before
            self._newest[which] = ticks if ticks is not None else (dts, pts)[which]
        return pts if pts is not None and (dts is None or self._faulty[0] <= self._faulty[1]) else dts
