"""How others place a stream's packets in time, from the same arrivals. All times in seconds.

Each takes the stream's own times and the arrivals, and returns when it says each packet was captured.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def arrival(stream: Times, arrive: Times) -> Times:
    """The time of the callback."""
    return arrive


def count(stream: Times, arrive: Times) -> Times:
    """The first arrival, and from then on the stream's own time at its nominal rate."""
    return arrive[0] + stream - stream[0]


def dll(stream: Times, arrive: Times, bandwidth_hz: float = 0.05) -> Times:
    """A delay-locked loop of second order (Adriaensen, "Using a DLL to filter time"; JACK)."""
    period = float(np.median(np.diff(stream)))
    omega = 2 * math.pi * bandwidth_hz * period
    b, c = math.sqrt(2) * omega, omega * omega
    out = np.empty_like(arrive)
    seen = arrive.tolist()
    predicted, step = seen[0], period
    for k, time in enumerate(seen):
        error = time - predicted
        out[k] = predicted
        predicted += b * error + step
        step += c * error
    return out


def rls(stream: Times, arrive: Times, half_life_s: float = 90.0) -> Times:
    """Recursive least squares with exponential forgetting, held monotone (liblsl's time post-processor)."""
    forget = 0.5 ** (float(np.median(np.diff(stream))) / half_life_s)
    out = np.empty_like(arrive)
    # liblsl starts with a variance of 1e10: it believes the first packets.
    w0, w1 = 0.0, 0.0
    p00, p01, p11 = 1e10, 0.0, 1e10
    last = -math.inf
    for k, (u, y) in enumerate(zip((stream - stream[0]).tolist(), (arrive - arrive[0]).tolist(), strict=True)):
        pu0, pu1 = p00 + p01 * u, p01 + p11 * u
        scale = forget + pu0 + pu1 * u
        k0, k1 = pu0 / scale, pu1 / scale
        error = y - (w0 + w1 * u)
        w0, w1 = w0 + k0 * error, w1 + k1 * error
        p00, p01, p11 = (p00 - k0 * pu0) / forget, (p01 - k0 * pu1) / forget, (p11 - k1 * pu1) / forget
        last = max(last, w0 + w1 * u)
        out[k] = last
    return out + arrive[0]
