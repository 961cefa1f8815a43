"""Rows of an output that are of different units, as boxes in pixels beside scores: each is judged by its own range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmedge.types import AnyArray

MOST_ROWS = 1024  # an output with more is a picture, not a table
OTHER_UNIT = 0.01  # rows smaller than this share of the largest row are of another unit
_LEAST = 0.1  # of the largest of those: a class that was never seen is as exact as the others


def row_axis(shape: Sequence[int]) -> int | None:
    """Return the axis along which an array's rows may be of different units: the shortest that is longer than 1.

    Boxes with their classes are [1, 84, N] or [1, N, 84]. None where rows would be single numbers.
    """
    longer = [axis for axis, size in enumerate(shape) if size > 1]
    return min(longer, key=lambda axis: shape[axis]) if len(longer) > 1 else None


def row_sizes(sample: AnyArray) -> AnyArray | None:
    """Return the largest magnitude of each row of one sample, float64 [rows]; None where there are no rows to judge.

    Args:
        sample: Shape [...]; rows are judged of floats alone.
    """
    axis = row_axis(sample.shape)
    if axis is None or not sample.size or sample.dtype.kind != "f" or sample.shape[axis] > MOST_ROWS:
        return None
    return magnitude(sample, axis)


def row_scales(samples: Iterable[AnyArray]) -> AnyArray | None:
    """Return the range by which each row is judged, float64 [rows]; None where there are no rows to judge.

    Args:
        samples: What is right, at least one, all of one shape [...]; finite.

    Example:
        >>> row_scales([np.array([[600.0, 9.0], [0.5, 0.1], [0.0, 0.0]])]).round(3).tolist()
        [600.0, 0.5, 0.05]
    """
    sizes = [size for sample in samples if (size := row_sizes(sample)) is not None]
    if not sizes:
        return None
    largest: AnyArray = np.max(sizes, axis=0)
    whole = max(float(largest.max()), 1e-6)
    others = largest[largest < OTHER_UNIT * whole]
    if not others.size:
        return largest
    least = _LEAST * float(others.max()) or OTHER_UNIT * whole
    scales: AnyArray = np.maximum(largest, least)
    return scales


def gap(want: AnyArray, got: AnyArray) -> AnyArray:
    """Return ``got - want``, float64 (complex128 of complex numbers), of the one shape [...] and any types of both.

    It is the only copy that is made: outputs may be large.
    """
    difference: AnyArray = np.subtract(got, want, dtype=np.result_type(got, want, np.float64))
    return difference


def magnitude(array: AnyArray, axis: int | None = None) -> AnyArray:
    """Return the largest magnitude, float64: that of the whole [], or of each row along ``axis`` [rows].

    Args:
        array: Shape [...], of any type of numbers; NaN makes NaN, nothing makes 0.
        axis: That of the rows.
    """
    if array.dtype.kind == "c":
        array = np.abs(array)
    others = None if axis is None else tuple(other for other in range(array.ndim) if other != axis)
    high, low = (np.asarray(end(axis=others, initial=0), np.float64) for end in (array.max, array.min))
    largest: AnyArray = np.maximum(high, 0.0 - low)  # no -0.0 of what is all zero
    return largest
