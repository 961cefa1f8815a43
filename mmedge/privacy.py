"""What of pictures and sound may leave the device: nothing, no more than shapes, or all of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from mmedge.extras import require
from mmedge.types import ByteArray

Privacy: TypeAlias = Literal["none", "blur", "picture"]
CELLS = 24  # of the longer side of a blurred picture: a face that fills half of it has 12
_PURPOSE = "blurring pictures"


def shown(picture: ByteArray, privacy: Privacy) -> ByteArray | None:
    """Return what may be shown of a picture; None of one that may not leave.

    A blurred picture holds the mean colours of at most 24 x 24 cells and nothing else: it cannot be sharpened again.

    Args:
        picture: uint8 [height, width, 3].
        privacy: ``none``, ``blur`` or ``picture``.

    Example:
        >>> import numpy as np
        >>> shown(np.zeros((4, 4, 3), np.uint8), "none") is None
        True
    """
    if privacy == "none":
        return None
    if privacy == "picture":
        return picture
    height, width = picture.shape[:2]
    longer = max(height, width, CELLS)
    return blurred(picture, (max(1, height * CELLS // longer), max(1, width * CELLS // longer)))


def blurred(picture: ByteArray, cells: tuple[int, int]) -> ByteArray:
    """Return a picture, uint8 [height, width, channels], of which nothing is left but the means of rows x columns."""
    cv2 = require("cv2", _PURPOSE)
    small = cv2.resize(picture, cells[::-1], interpolation=cv2.INTER_AREA)
    smooth: ByteArray = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return smooth


def heard(privacy: Privacy) -> bool:
    """Tell whether sound may leave: what is said is not made unknown by blurring, so only where pictures are shown."""
    return privacy == "picture"
