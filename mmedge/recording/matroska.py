"""The frames of one Matroska file of a recording, decoded in order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from mmedge.errors import SourceError
from mmedge.extras import require

PURPOSE = "recording and replaying"


class MatroskaFrames:
    """The decoded frames of one Matroska file, in order, found by their times.

    Args:
        path: The file.
        kind: Which of its streams: the first of this kind.

    Raises:
        SourceError: If it cannot be read, or holds nothing of the kind.
    """

    def __init__(self, path: Path, kind: Literal["video", "audio"]) -> None:
        self._path = path
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._base: Fraction | None = None
        av = require("av", PURPOSE)
        self._failures = (av.error.FFmpegError, OSError, ValueError)
        try:
            self._container = av.open(f"file:{path}", format="matroska", metadata_errors="replace")
            stream = getattr(self._container.streams, kind)[0]
            stream.thread_type = "AUTO"  # on all cores: nothing waits for the next one alone
            self._frames = self._container.decode(stream)
        except IndexError:
            self.close()
            raise self._cut("holds nothing") from None
        except self._failures as error:
            raise self._cut(f"cannot be read: {error}") from error

    def at(self, at_ms: int) -> Any:
        """Return the frame whose time is ``at_ms``; those before it are gone."""
        while True:
            try:
                frame = next(self._frames, None)
            except self._failures as error:
                raise self._cut(f"is damaged: {error}") from error
            if frame is None or frame.pts is None:
                raise self._cut(f"ends before {at_ms} ms")
            if self._base is None:
                self._base = frame.time_base  # the same of all: it is made anew whenever it is asked for
            time_ms = _ms(frame.pts, self._base)
            if time_ms == at_ms:
                return frame
            if time_ms > at_ms:
                raise self._cut(f"has nothing at {at_ms} ms")

    def _cut(self, what: str) -> SourceError:
        return SourceError(f"'{self._path.name}' {what}", where=str(self._path), fix="replay the part that is there")

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._container is not None:
            self._container.close()


def _ms(pts: int, time_base: Fraction) -> int:
    """Return a time in ms; Matroska counts in them."""
    scaled = pts * 1000 * time_base.numerator
    return scaled // time_base.denominator if scaled % time_base.denominator == 0 else round(pts * time_base * 1000)
