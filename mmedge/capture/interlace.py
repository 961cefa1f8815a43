"""Interlaced pictures: two instants woven into one, made into whole pictures by FFmpeg's filter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmedge.extras import require

_FILTERS = ("bwdif", "yadif")  # the better one first
_LEAST = 16  # rows and columns; the filters refuse planes of fewer than four, and chroma has a quarter at the least


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        time_ns: Its time on the stream's clock.
        frame: The PyAV frame; of a picture that could not be decoded at all, one of the size it had.
        damaged: Whether it is damaged.
        newest_ns: Time of the newest picture that was decoded when it left: a filter may have held it back.
        period_ns: For how long that one is shown, 0 if that is not known.
        lost: No picture came of it, so when it left says nothing of when it came.
    """

    time_ns: int
    frame: Any
    damaged: bool
    newest_ns: int
    period_ns: int
    lost: bool = False


class Deinterlacer:
    """Makes one whole picture of each interlaced one; the pictures of a progressive stream pass untouched.

    The filter looks at the pictures before and after, so from the first interlaced picture on every one leaves when the
    next has come, with its own time, and is damaged when one of its neighbours is.

    Args:
        remark: Called once with what there is to say.
    """

    def __init__(self, remark: Callable[[str], None]) -> None:
        self._av = require("av", "reading media")
        self._remark = remark
        known = self._av.filter.filters_available
        self._filter = next((name for name in _FILTERS if name in known), None)
        self._graph: Any = None
        self._kind: tuple[Any, ...] = ()
        self._waiting: deque[Picture] = deque()  # those in the filter
        self._hurt = False  # whether the one before them is damaged

    def pass_on(self, picture: Picture) -> Iterator[Picture]:
        """Take a picture; yield those that are ready."""
        frame = picture.frame
        if self._graph is None and not frame.interlaced_frame:
            yield picture
            return
        if self._filter is None:
            self._remark("its pictures are interlaced and used as they are: this FFmpeg has no filter for them")
            yield picture
            return
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if kind != self._kind:
            yield from self.finish()
            if min(frame.width, frame.height) < _LEAST:
                yield picture
                return
            self._begin(frame, kind)
            self._remark(f"its pictures are interlaced: {self._filter} makes whole ones of them")
        self._waiting.append(picture)
        self._graph.push(frame)
        yield from self._ready(picture)

    def finish(self) -> Iterator[Picture]:
        """Yield what the filter still holds; progressive pictures pass untouched again."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready(self._waiting[-1] if self._waiting else None)
        self.restart()

    def restart(self) -> None:
        """Forget what the filter holds."""
        self._graph, self._kind, self._hurt = None, (), False
        self._waiting.clear()

    def _begin(self, frame: Any, kind: tuple[Any, ...]) -> None:
        width, height, pixels, space, extent = kind
        self._graph, self._kind = self._av.filter.Graph(), kind
        base = frame.time_base or "1/1000"
        source = self._graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={pixels}:time_base={base}:colorspace={space}:range={extent}",
        )
        work = self._graph.add(self._filter, "mode=send_frame:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(work)
        work.link_to(sink)
        self._graph.configure()

    def _ready(self, newest: Picture | None) -> Iterator[Picture]:
        while self._waiting and newest is not None:
            try:
                frame = self._graph.pull()
            except (self._av.error.BlockingIOError, self._av.error.EOFError):
                return
            done = self._waiting.popleft()
            damaged = self._hurt or done.damaged or (bool(self._waiting) and self._waiting[0].damaged)
            self._hurt = done.damaged
            yield Picture(done.time_ns, frame, damaged, newest.newest_ns, newest.period_ns, newest.lost)
