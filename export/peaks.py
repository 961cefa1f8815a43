"""Which data are far outside the usual, and how long that lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

FEW = 3  # in a row: what a fault of a sensor or of its bus takes


def beyond(maxima: npt.NDArray[np.floating], least: float = 0.0) -> npt.NDArray[np.bool_]:
    """Tell which magnitudes are beyond ten times the usual spread, and more than twice the usual one.

    ``maxima`` is float [n], the result bool [n].

    Args:
        maxima: The largest magnitudes of some arrays.
        least: What is not larger than this is not.
    """
    median = np.median(maxima) if len(maxima) else 0.0
    spread = np.median(np.abs(maxima - median)) if len(maxima) else 0.0
    return maxima > max(median + 10.0 * spread, 2.0 * median, least)


def lasting(peaks: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Tell at which triggers an input is far outside the usual for longer than a glitch lasts, bool [triggers] each.

    Samples may be seconds apart, so that what lasts half a second looks like a single frame among them.

    Args:
        peaks: Input -> at each trigger of a recording, when its newest data were captured in ns, and their largest
            magnitude.

    Example:
        >>> lasting({"imu": [(t, 9.0 if t in (3, 4, 5, 6) else 1.0 + 0.01 * (t % 2)) for t in range(30)]})["imu"].sum()
        np.int64(4)
    """
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for name, at in peaks.items():
        changes = np.diff([t_ns for t_ns, _ in at], prepend=at[0][0] - 1) != 0 if at else np.zeros(0, np.bool_)
        arrays = np.cumsum(changes) - 1  # of each trigger: slow data are the newest at several of them
        unusual = beyond(np.array([largest for (_, largest), new in zip(at, changes, strict=True) if new]))
        lasts = np.zeros(len(unusual), np.bool_)
        end = 0
        for is_unusual, run in groupby(unusual):
            start, end = end, end + len(list(run))
            lasts[start:end] = is_unusual and end - start > FEW
        found[name] = lasts[arrays]
    return found
