"""A picture for the page: turned and shaped as its stream says, of bounded size, JPEG."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmedge.bundle.manifest import ImageInput
from mmedge.extras import require
from mmedge.preprocess import ImagePreprocessor
from mmedge.preprocess.fit import Seen
from mmedge.privacy import Privacy, shown
from mmedge.types import Frame

LONGEST = 512  # pixels of the longer side
_QUALITY = 72


class Jpeg(NamedTuple):
    """A picture as the page gets it."""

    data: bytes
    width: int
    height: int


class PictureMaker:
    """Makes the pictures of one input.

    Args:
        privacy: What may be shown.
        longest: Pixels of the longer side, at most.
    """

    def __init__(self, privacy: Privacy, longest: int = LONGEST) -> None:
        self._privacy, self._longest = privacy, longest
        self._seat: tuple[Seen, ImagePreprocessor] | None = None

    def __call__(self, frame: Frame) -> Jpeg | None:
        """Return what may be shown of a frame of any format; None where nothing may."""
        if self._privacy == "none":
            return None
        seen = Seen.of(frame)
        if self._seat is None or self._seat[0] != seen:
            size = shown_size(seen, self._longest)
            spec = ImageInput(size=size, frame=size, color="bgr", fit="stretch", mean=(0.0,) * 3, std=(1.0,) * 3)
            self._seat = seen, ImagePreprocessor(spec)
        preprocess = self._seat[1]
        height, width = preprocess.spec.size
        pixels = np.empty((1, height, width, 3), np.uint8)
        preprocess.raw(frame, pixels)
        picture = shown(pixels[0], self._privacy)
        cv2 = require("cv2", "pictures on the page")
        _, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
        return Jpeg(data.tobytes(), width, height)


def shown_size(seen: Seen, longest: int) -> tuple[int, int]:
    """Return height and width in which a picture is shown: of its displayed aspect, and not larger than it is.

    Example:
        >>> from mmedge.types import PLAIN
        >>> shown_size(Seen(1080, 1920, PLAIN), 640), shown_size(Seen(48, 64, PLAIN), 640)
        ((360, 640), (48, 64))
    """
    down, across = seen.units
    scale = min(1.0, longest / max(seen.shown)) * max(seen.shown) / max(down, across)
    return max(1, round(down * scale)), max(1, round(across * scale))
