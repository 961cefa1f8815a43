"""The microphone's clock in Python: which of PortAudio's time stamps to trust, at the start and while it runs."""

from __future__ import annotations

import statistics
from itertools import pairwise

from mmedge.capture.kinds import KINDS
from mmedge.capture.stamps import Stamp
from mmedge.clock import StreamClock
from mmedge.types import NS_PER_S, ClockQuality

_PROBE_NS = 2 * NS_PER_S
_GRACE_NS = 1_000_000  # a block's end is computed from its start
_MAX_AGE_NS = NS_PER_S // 2
_FLOOR_NS = KINDS["microphone"].constant_ns
_BREAK_NS = 30_000_000  # a stamp that leaves its line by more is broken
# A class is left after ten bad stamps in a row, or when more than every tenth is bad.
_FAULT, _FAULTS = 10, 100


def seen_ns(stamp: Stamp, quality: ClockQuality) -> int:
    """Return the time that a class of quality goes by."""
    return {"A": stamp.adc_ns, "B": stamp.current_ns, "C": stamp.entry_ns}[quality]


def trusted_qualities(stamps: list[Stamp], rate_hz: int) -> list[ClockQuality]:
    """Judge which of PortAudio's times can be trusted.

    ``A`` the converter's time, ``B`` the callback's time, ``C`` the entry of our callback. Times of
    another clock than CLOCK_MONOTONIC are never used: a step of the wall clock would move them.
    ``C`` does not subtract the latency PortAudio announces: a block is handed over when its last sample
    is there; behind PulseAudio the announced 20 ms are not in the data at all (measured).

    Args:
        stamps: Two seconds of blocks; the first quarter is not judged, as some drivers give zeros at first.
        rate_hz: Sample rate of the device.

    Returns:
        The classes whose times rise strictly, lie 0..0.5 s back and keep the pace of the blocks, best first.
    """
    stamps = stamps[len(stamps) // 4 :]

    def sane(times: list[int]) -> bool:
        steps = [b - a for a, b in pairwise(times)]
        paces = [round((b.samples - a.samples) * NS_PER_S / rate_hz) for a, b in pairwise(stamps)]
        ages = [stamp.entry_ns - time for stamp, time in zip(stamps, times, strict=True)]
        return (
            len(steps) > 10
            and min(steps) > 0
            and min(ages) >= -_GRACE_NS
            and max(ages) < _MAX_AGE_NS
            and statistics.median(abs(step - pace) for step, pace in zip(steps, paces, strict=True)) < 5_000_000
        )

    better: list[ClockQuality] = ["A", "B"]
    return [*(quality for quality in better if sane([seen_ns(stamp, quality) for stamp in stamps])), "C"]


class MicrophoneClock:
    """Places a microphone's count of samples on CLOCK_MONOTONIC by the best time there is.

    For two seconds ``C`` is used and every class is probed. Then the best one is used and watched: when
    its times stop, run back or are not near their arrival any more, the next class takes over. All
    classes are observed from the start, and how much later the worse ones are is learnt in the probe, so
    that the time goes on without a jump.

    Args:
        rate_hz: Sample rate of the device.

    Attributes:
        quality: The class in use.
    """

    def __init__(self, rate_hz: int) -> None:
        self.quality: ClockQuality = "C"
        self._rate_hz = rate_hz
        self._probe: list[Stamp] | None = []
        self._trusted: list[ClockQuality] = ["A", "B", "C"]
        self._clocks = {quality: StreamClock(floor_ns=_FLOOR_NS[quality]) for quality in self._trusted}
        self._lag_ns = dict.fromkeys(self._trusted, 0)
        self._before_ns = dict.fromkeys(self._trusted, 0)
        self._faults = dict.fromkeys(self._trusted, 0)

    def observe(self, stamp: Stamp, *, overflow: bool = False) -> tuple[int, bool]:
        """Learn from the next block.

        Args:
            stamp: Its times.
            overflow: The device says that samples are missing before it, not how many.

        Returns:
            How much is missing before the block, in ns, and whether a new epoch must begin, as what came
            before it was not where it seemed to be.
        """
        stream_ns = self.stream_ns(stamp.samples)
        jumps = {quality: self._observe(quality, stamp, stream_ns, overflow) for quality in self._trusted}
        jump_ns = jumps[self.quality]
        broken = jump_ns != 0 and not (overflow and jump_ns > 0)
        if self._probe is not None:
            self._probe.append(stamp)
            if stamp.entry_ns - self._probe[0].entry_ns >= _PROBE_NS:
                self._choose(self._probe)
                self._probe = None
        elif self._faults[self.quality] >= _FAULTS:
            broken |= abs(self._leave(stream_ns)) > _BREAK_NS
        return max(0, jump_ns), broken

    def _observe(self, quality: ClockQuality, stamp: Stamp, stream_ns: int, overflow: bool) -> int:
        time_ns, before_ns = seen_ns(stamp, quality), self._before_ns[quality]
        self._before_ns[quality] = time_ns
        if quality != "C" and not (before_ns < time_ns and -_GRACE_NS <= stamp.entry_ns - time_ns < _MAX_AGE_NS):
            self._faults[quality] = min(_FAULTS, self._faults[quality] + _FAULT)
            return 0
        if self._faults[quality] < _FAULTS:
            self._faults[quality] = max(0, self._faults[quality] - 1)
        return self._clocks[quality].observe(stream_ns, time_ns - self._lag_ns[quality], gap=overflow)

    def _choose(self, probe: list[Stamp]) -> None:
        self._trusted = trusted_qualities(probe, self._rate_hz)
        self.quality = self._trusted[0]
        self._faults = dict.fromkeys(self._faults, 0)
        for quality in self._trusted[1:]:
            self._lag_ns[quality] = self._clocks[quality].offset_ns - self._clocks[self.quality].offset_ns
            self._clocks[quality].shift(-self._lag_ns[quality])

    def _leave(self, stream_ns: int) -> int:
        """Go on with the next class; return the jump in ns."""
        before_ns = self.to_monotonic(stream_ns)
        self._trusted = [quality for quality in self._trusted if self._faults[quality] < _FAULTS]
        self.quality = self._trusted[0]
        return self.to_monotonic(stream_ns) - before_ns

    def stream_ns(self, samples: int) -> int:
        """Return the microphone's own time of a count of samples."""
        return samples * NS_PER_S // self._rate_hz

    def to_monotonic(self, stream_ns: int) -> int:
        """Return the time of ``stream_ns`` on CLOCK_MONOTONIC."""
        return self._clocks[self.quality].to_monotonic(stream_ns)

    @property
    def uncertainty_ns(self) -> int:
        """Bound on the error of the mapping, in ns."""
        return self._clocks[self.quality].uncertainty_ns
