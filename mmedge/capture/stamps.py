"""Which of PortAudio's time stamps a microphone goes by (native/clock/microphone_clock), and what is said of it."""

from __future__ import annotations

from typing import get_args

import msgspec

from mmedge._native import core
from mmedge.capture.base import log
from mmedge.capture.kinds import KINDS
from mmedge.clock import ClockReport
from mmedge.types import ClockQuality

QUALITIES: tuple[ClockQuality, ...] = get_args(ClockQuality)
"""Classes of time stamps by their numbers in the native core."""
_FLOOR_NS = KINDS["microphone"].constant_ns
FLOORS_NS = _FLOOR_NS["A"], _FLOOR_NS["B"], _FLOOR_NS["C"]
"""Of each class the smallest uncertainty to claim."""
_LEFT = 2


class Stamp(msgspec.Struct, frozen=True):
    """What the callback saw of one block.

    Attributes:
        samples: Device samples counted up to the end of the block.
        entry_ns: CLOCK_MONOTONIC at the entry of the callback.
        adc_ns: PortAudio's time of the block's last sample.
        current_ns: PortAudio's time of the callback, taken before the interpreter was asked for.
    """

    samples: int
    entry_ns: int
    adc_ns: int
    current_ns: int


class MicrophoneClock:
    """Places a microphone's count of samples on CLOCK_MONOTONIC by the best time there is.

    ``A`` the converter's time, ``B`` PortAudio's time of the callback, ``C`` the entry of our callback. For two
    seconds ``C`` is used and every class is probed. Then the best one is used and watched: when its times stop, run
    back or are not near their arrival any more, the next class takes over, without a jump of the time.

    Args:
        name: What is read, for the log.
        rate_hz: Sample rate of the device.
    """

    def __init__(self, name: str, rate_hz: int) -> None:
        self._name = name
        self._clock = core.MicrophoneClock(rate_hz, *FLOORS_NS)
        self.stream_ns = self._clock.stream_ns
        self.to_monotonic = self._clock.to_monotonic

    def observe(self, stamp: Stamp, *, overflow: bool = False) -> tuple[int, bool]:
        """Learn from the next block.

        Args:
            stamp: Its times.
            overflow: The device says that samples are missing before it, not how many.

        Returns:
            How much is missing before the block, in ns, and whether a new epoch must begin, as what came
            before it was not where it seemed to be.
        """
        before = self.quality
        gap_ns, broken, change = self._clock.observe(
            stamp.samples, stamp.entry_ns, stamp.adc_ns, stamp.current_ns, overflow
        )
        if change:
            say_quality(self._name, change, before, self.quality)
        return gap_ns, broken

    @property
    def quality(self) -> ClockQuality:
        """The class in use."""
        return QUALITIES[self._clock.quality]

    @property
    def uncertainty_ns(self) -> int:
        """Bound on the error of the mapping, in ns."""
        return self._clock.uncertainty_ns

    def report(self) -> ClockReport:
        """Return the present state for a health report."""
        return clock_report(self._clock.report)


def say_quality(name: str, change: int, before: ClockQuality, now: ClockQuality) -> None:
    """Log that a microphone goes by another class of stamps than before; ``change`` as the native clock tells it."""
    if change == _LEFT:
        log.warning("%s: its time stamps of quality %s are no longer trusted; using %s", name, before, now)
    else:
        log.info("%s: clock quality %s", name, now)


def say_jump(name: str, gap_ns: int) -> None:
    """Log that a microphone's clock has jumped, and how much is missing."""
    log.warning("%s: its clock jumped (%.0f ms are missing); a new epoch starts", name, gap_ns / 1e6)


def clock_report(told: tuple[int, int, float, int, int]) -> ClockReport:
    """Return what the native clock tells of itself as a report."""
    number, offset_ns, ppm, jitter_ns, uncertainty_ns = told
    return ClockReport(
        quality=QUALITIES[number],
        offset_ns=offset_ns,
        ppm=round(ppm, 2),
        jitter_ns=jitter_ns,
        uncertainty_ns=uncertainty_ns,
    )
