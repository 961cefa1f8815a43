"""What a recording keeps of pictures and sound that may not leave the device as they are."""

from __future__ import annotations

import numpy as np

from mmedge.capture.picture import DEEP, planes_of
from mmedge.privacy import CELLS, Privacy, blurred
from mmedge.recording.event_log import BlockEvent, FrameEvent
from mmedge.recording.frames import samples
from mmedge.types import AnyArray


def conceal(data: AnyArray, event: FrameEvent | BlockEvent, privacy: Privacy) -> None:
    """Change a picture or a sound in place into what may be kept.

    ``blur`` keeps the mean of each of at most 24 x 24 cells of a picture, ``none`` makes it black; both make sound
    silent.

    Args:
        data: A picture, uint8 [...] of its format, or sound, float32 [n].
        event: What it is.
        privacy: What may be kept.
    """
    if privacy == "picture":
        return
    if isinstance(event, BlockEvent):
        data[...] = 0
        return
    if event.format in ("yuyv422", *DEEP):
        _conceal_samples(data, event, privacy)
        return
    colours = event.format in ("rgb24", "bgr24")
    (height, width), at = _cells(event), 0
    flat = data.reshape(-1)
    for number, (rows, across) in enumerate(planes_of(event.format, event.height, event.width)):
        channels = 3 if colours else 2 if event.format == "nv12" and number else 1
        plane = flat[at : at + rows * across].reshape(rows, across // channels, channels)
        at += rows * across
        if privacy == "none":
            plane[...] = 128 if number else 0 if colours or event.described.full_range else 16
        else:
            plane[...] = blurred(plane, (min(height, rows), min(width, across // channels))).reshape(plane.shape)


def _cells(event: FrameEvent) -> tuple[int, int]:
    longer = max(event.height, event.width, CELLS)
    return max(1, event.height * CELLS // longer), max(1, event.width * CELLS // longer)


def _conceal_samples(data: AnyArray, event: FrameEvent, privacy: Privacy) -> None:
    """The same of formats whose samples do not lie as bytes of one plane."""
    to_8_bits = {"p010le": 8, "yuv420p10le": 2}.get(event.format, 0)
    height, width = _cells(event)
    for number, plane in enumerate(samples(data, event.format, event.height)):
        if privacy == "none":
            plane[...] = (128 if number else 0 if event.described.full_range else 16) << to_8_bits
        else:
            whole = (plane >> to_8_bits & 255).astype(np.uint8)
            made = blurred(whole, (min(height, plane.shape[0]), min(width, plane.shape[1])))
            plane[...] = made.reshape(plane.shape).astype(plane.dtype) << to_8_bits
