"""A network camera by PyAV, without the buffers and the frame threads that add delay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import numpy.typing as npt

_OPTIONS = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "analyzeduration": "200000",
    "fpsprobesize": "0",
    "overrun_nonfatal": "1",
    "timeout": "5000000",
    "localaddr": "127.0.0.1",
}


class Camera:
    """Iterates (time of the stream in ns, ``av.VideoFrame``)."""

    def __init__(self, uri: str) -> None:
        self._container = av.open(uri, options=_OPTIONS)
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.flags |= av.codec.context.Flags.low_delay

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for frame in self._container.decode(self._stream):
            if frame.pts is not None and frame.time_base is not None:
                yield int(frame.pts * frame.time_base * 1_000_000_000), frame


def luma_of(frame: Any) -> npt.NDArray[np.uint8]:
    """Return the brightness plane, uint8 [rows, columns], where it lies: valid as long as the frame is."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
