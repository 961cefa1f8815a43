"""Distributions of magnitudes in constant memory, and where to cut them off: percentile, least square error, entropy.

Bins are 64 to a doubling, found from a number's own bits: no range has to be known before, so one pass is enough.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.types import FloatArray

_PER_OCTAVE_BITS = 6  # of the mantissa: a bin is 1.6 % wide at most
_LOWEST, _OCTAVES = -40, 64
BINS = _OCTAVES << _PER_OCTAVE_BITS
_LEVELS = 127
Counts = npt.NDArray[np.int64]


def count(values: FloatArray) -> Counts:
    """Return how many magnitudes lie in each bin, int64 [BINS]. ``values`` is float32 [...]; zeros are in the first."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32) & np.uint32(0x7FFFFFFF)
    codes = (bits >> np.uint32(23 - _PER_OCTAVE_BITS)).astype(np.int64) - ((127 + _LOWEST) << _PER_OCTAVE_BITS)
    return np.bincount(np.clip(codes, 0, BINS - 1), minlength=BINS).astype(np.int64)


def _centres() -> npt.NDArray[np.float64]:
    exponents, parts = np.divmod(np.arange(BINS), 1 << _PER_OCTAVE_BITS)
    centres: npt.NDArray[np.float64] = np.exp2(exponents + float(_LOWEST)) * (1 + (parts + 0.5) / 64)
    centres[0] = 0.0
    return centres


CENTRES = _centres()


def percentile(counts: Counts, share: float) -> float:
    """Return the magnitude that ``share`` of all values do not exceed. ``counts`` is int64 [BINS]."""
    total = np.cumsum(counts)
    return float(CENTRES[min(int(np.searchsorted(total, share * total[-1])), BINS - 1)])


def least_error(counts: Counts, largest: float) -> float:
    """Return the cut-off at which int8 has the least mean square error.

    ``counts`` is int64 [BINS].

    Args:
        counts: Of the magnitudes.
        largest: The largest magnitude of all.
    """
    candidates = largest * np.exp2(-np.arange(0, 6, 0.05))
    step = candidates[:, None] / _LEVELS
    used = np.flatnonzero(counts)
    x, n = CENTRES[used][None], counts[used][None]
    clipped = np.square(np.maximum(x - candidates[:, None], 0.0))
    inside = np.where(x < step / 2, np.square(x), np.square(step) / 12)
    error = (n * np.where(x > candidates[:, None], clipped, inside)).sum(axis=1)
    return float(candidates[int(error.argmin())])


def least_divergence(counts: Counts, largest: float, bins: int = 2048) -> float:
    """Return the cut-off at which what int8 keeps of the distribution diverges least (Kullback-Leibler, as TensorRT's).

    ``counts`` is int64 [BINS].

    Args:
        counts: Of the magnitudes.
        largest: The largest magnitude of all.
        bins: Equal bins of 0..largest that are compared.
    """
    places = np.minimum((CENTRES / largest * bins).astype(np.int64), bins - 1)
    linear = np.bincount(places[1:], weights=counts[1:], minlength=bins)  # zeros say nothing of the range
    # A bin of ours that is wider than these is spread over all that it covers.
    wide = np.convolve(linear, np.ones(3) / 3, mode="same")
    best, cut = np.inf, bins
    for end in range(128, bins + 1, 16):
        kept = wide[:end].copy()
        kept[-1] += wide[end:].sum()
        groups = np.linspace(0, end, 129).astype(np.int64)
        filled = wide[:end] > 0
        sums = np.add.reduceat(wide[:end], groups[:-1])
        numbers = np.maximum(np.add.reduceat(filled.astype(np.float64), groups[:-1]), 1.0)
        coarse = np.repeat(sums / numbers, np.diff(groups)) * filled
        if kept.sum() == 0 or coarse.sum() == 0:
            continue
        p, q = kept / kept.sum(), coarse / coarse.sum()
        both = p > 0
        divergence = float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())
        if divergence < best:
            best, cut = divergence, end
    return largest * cut / bins
