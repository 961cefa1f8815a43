"""How what a seat gives lies for what a network takes: axes moved, dimensions added, open ones filled."""

from __future__ import annotations

import numpy as np

from mmedge.bundle.seats import PictureLayout

# From [1, channels, height, width].
AXES: dict[PictureLayout, tuple[int, ...]] = {
    "nchw": (0, 1, 2, 3),
    "nhwc": (0, 2, 3, 1),
    "ncwh": (0, 1, 3, 2),
    "nwhc": (0, 3, 2, 1),
}
Dims = tuple[int | None, ...]


def matches(want: Dims, shape: tuple[int, ...]) -> bool:
    """Tell whether a shape is one that a network's input takes."""
    return len(want) == len(shape) and all(w in (None, s) for w, s in zip(want, shape, strict=True))


def lay_out(want: Dims, shape: tuple[int, ...]) -> tuple[bool, tuple[int, ...]] | None:
    """Return whether what has ``shape`` is turned for ``want``, and what its shape then is; None if it does not fit."""
    if len(shape) != 3 or len(want) < 3:
        known = _resolve(want, int(np.prod(shape)))
        return None if known is None else (False, known)
    # Log-mel features: another shape of as many values would mix frames and bands.
    first, frames, bands = shape
    for is_turned, (rows, columns) in ((False, (frames, bands)), (True, (bands, frames))):
        for inner in ((first, rows, columns), (first, 1, rows, columns), (first, rows, columns, 1)):
            if matches(want, inner):
                return is_turned, inner
    return None


def _resolve(want: Dims, size: int) -> tuple[int, ...] | None:
    """Return ``want`` with its open dimensions filled so that it has ``size`` values; None where that is a guess.

    One of them takes what is left; of two the first is the batch, 1.
    """
    known = int(np.prod([dim for dim in want if dim is not None]))
    free = [axis for axis, dim in enumerate(want) if dim is None]
    if known == 0 or size % known or (not free and known != size):
        return None
    if size > known and len(free) > 1 + (free[0] == 0):
        return None
    return tuple(
        dim if dim is not None else (size // known if axis == free[-1] else 1) for axis, dim in enumerate(want)
    )
