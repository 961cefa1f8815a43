"""The sound that a result was made from: where it lies, and a copy of it while it is still there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mmedge.errors import FrameExpiredError


class Sound(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A stretch of one input's sound, the caller's own.

    Attributes:
        samples: float32 (n,), mono, -1..1; what was lost reads as silence.
        real: How many of them are known.
        rate_hz: Samples a second.
        end: Index after the last sample, counted from the start of the run.
        end_ns: When the instant after the last sample was sensed, on CLOCK_MONOTONIC.
        epoch: Rises when the source was opened again; its sound before that is another one.
    """

    samples: npt.NDArray[np.float32]
    real: int
    rate_hz: int
    end: int
    end_ns: int
    epoch: int


class SoundCut(msgspec.Struct, frozen=True, eq=False):
    """Where the window of one trigger lies in the ring of its input.

    Attributes:
        ring: The ``SampleRing``; its newest samples stay, so a cut lives for a moment, as a picture does.
        end: Index after the window's last sample.
        end_ns: When the instant after it was sensed.
        window: Samples of the window.
        rate_hz: Samples a second.
        epoch: Of the sound.
    """

    ring: Any
    end: int
    end_ns: int
    window: int
    rate_hz: int
    epoch: int

    def __call__(self, since: int | None = None) -> Sound:
        """Return a copy of the window, or of what came from index ``since`` on, as far as it is kept.

        Raises:
            FrameExpiredError: If the end of the window was overwritten by now.
        """
        n = self.window if since is None else min(max(self.end - since, 0), self.ring.capacity)
        samples = np.empty(n, np.float32)
        real = self.ring.read(self.end, samples)
        if self.end <= self.ring.begin:
            raise FrameExpiredError(
                f"the sound up to {self.end_ns} ns is gone", where="sound", fix="copy it as its result arrives"
            )
        return Sound(
            samples=samples, real=real, rate_hz=self.rate_hz, end=self.end, end_ns=self.end_ns, epoch=self.epoch
        )
