"""How other frameworks pair a frame with a window of sound, on the same packets and time stamps as ours.

They know no time-indexed ring: sound is a queue of windows of fixed length, and a rule chooses one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Packets:
    """Packets of one stream: when it says they were captured, when they were, when they arrived; all in ms, rising."""

    stamp: Times
    true: Times
    arrive: Times


@dataclass(frozen=True)
class Pairs:
    """What a rule made of them, one entry for each pair; in ms.

    Attributes:
        skew: True time of the window's end less true time of the frame.
        wait: How long the frame or the window waited for the other, whichever came first.
    """

    skew: Times
    wait: Times


def _pairs(frames: Packets, windows: Packets, frame: npt.NDArray[np.intp], window: npt.NDArray[np.intp]) -> Pairs:
    wait = np.maximum(windows.arrive[window] - frames.arrive[frame], 0)
    return Pairs(windows.true[window] - frames.true[frame], wait)


def latest(frames: Packets, windows: Packets) -> Pairs:
    """Each frame with the newest window there is (NNStreamer ``tensor_mux sync-mode=refresh``)."""
    window = np.searchsorted(windows.arrive, frames.arrive, side="right") - 1
    frame = np.flatnonzero(window >= 0)
    return _pairs(frames, windows, frame, window[frame])


def _nearest(stamps: Times, to: Times) -> npt.NDArray[np.intp]:
    after = np.clip(np.searchsorted(stamps, to), 1, len(stamps) - 1)
    return np.where(to - stamps[after - 1] <= stamps[after] - to, after - 1, after)


def nearest(frames: Packets, windows: Packets) -> Pairs:
    """Each frame with the window that ends nearest to it, waiting where that is still to come."""
    return _pairs(frames, windows, np.arange(len(frames.stamp)), _nearest(windows.stamp, frames.stamp))


def slowest(frames: Packets, windows: Packets) -> Pairs:
    """Each window with the frame nearest to its end (NNStreamer ``sync-mode=slowest``)."""
    return _pairs(frames, windows, _nearest(frames.stamp, windows.stamp), np.arange(len(windows.stamp)))


def threshold(frames: Packets, windows: Packets, limit_ms: float = 10.0) -> Pairs:
    """Pairs within 10 ms of each other, each packet used once (DepthAI ``Sync`` with its default threshold)."""
    frame = _nearest(frames.stamp, windows.stamp)
    window = np.flatnonzero(np.abs(frames.stamp[frame] - windows.stamp) <= limit_ms)
    return _pairs(frames, windows, frame[window], window)


def equal(frames: Packets, windows: Packets) -> Pairs:
    """Packets of the same microsecond (MediaPipe's default input policy)."""
    return threshold(frames, windows, 0.0005)
