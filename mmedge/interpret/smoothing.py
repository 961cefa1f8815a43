"""Smoothing of scores over capture time."""

from __future__ import annotations

import math

import numpy as np

from mmedge.types import FloatArray


class Ema:
    """Exponential moving average in time: an old score weighs exp(-dt / tau).

    Args:
        tau_ms: Time constant.
    """

    def __init__(self, tau_ms: float) -> None:
        self._tau_ns = tau_ms * 1e6
        self._value: FloatArray | None = None
        self._t_ns = 0

    def __call__(self, scores: FloatArray, t_ns: int) -> FloatArray:
        """Return the smoothed scores at ``t_ns``; a view, valid until the next call."""
        if self._value is None:
            self._value = scores.copy()
        else:
            keep = math.exp(-max(t_ns - self._t_ns, 0) / self._tau_ns)
            self._value *= keep
            self._value += (1.0 - keep) * scores
        self._t_ns = t_ns
        return self._value

    def reset(self) -> None:
        """Forget the past, at a new epoch or after an undefined score."""
        self._value = None


def softmax(logits: FloatArray, temperature: float) -> FloatArray:
    """Return the probabilities of ``logits`` (n,), divided by ``temperature`` first."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum()
    return scaled.astype(np.float32)
