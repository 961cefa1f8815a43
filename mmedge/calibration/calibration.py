"""Measure the offset between a camera's and a microphone's times from pairs of flash and beep."""

from __future__ import annotations

import queue
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.calibration.flash import Rise, Rises, ToneLevel, brightness
from mmedge.calibration.offsets import Offset, device_name
from mmedge.capture import Source, open_sources
from mmedge.clock import now_ns
from mmedge.errors import CheckError, DeviceError, MmedgeError
from mmedge.types import NS_PER_S, Arrival, Block, ClockQuality, EndOfStream, Frame, Packet

FEWEST = 5  # pairs of flash and beep for an estimate
_RATE_HZ = 16_000
_INPUTS: dict[str, Input] = {
    "image": ImageInput(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "audio": AudioInput(sample_rate_hz=_RATE_HZ, window_ms=1000),
}
_SETTLE_NS = 3 * NS_PER_S  # a microphone's class of stamps is chosen after two seconds
_NOTHING_S = 30.0  # without a flash or beep, before the calibration gives up
_APART_NS = 3 * NS_PER_S  # between a flash and a beep that may be a pair
_SLACK_NS = 10_000_000  # added to the spread of pairs: how well a beep is found
_ALIKE = 0.8
# The estimate, in ms: the grid, the scales of noise it may have, the share of pairs that are none.
_STEP, _MARGIN = 0.05, 20.0
_SCALES = 0.1 * 2.0 ** np.arange(8)
_STRAY, _STRAY_SPAN = 0.01, 200.0
_TAIL = 0.005  # on each side of the interval: 99 % lie in it
_FLOOR_NS = 1_000_000  # how sharply a beep sets in

Progress = Callable[[int, int, int], None]
"""Told how many pairs, flashes and beeps were found so far."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A flash and the beep that belongs to it; the flash began after ``before_ns`` and not after ``after_ns``."""

    before_ns: int
    after_ns: int
    beep_ns: int

    @property
    def middle_ns(self) -> int:
        """The flash, taken as the middle of the two pictures, less the beep."""
        return (self.before_ns + self.after_ns) // 2 - self.beep_ns


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredOffset:
    """What was found.

    Attributes:
        offset: What is to be kept.
        pairs: The pairs it follows from.
        flashes: How many flashes were seen, with those that have no beep.
        beeps: How many beeps were heard, with those that have no flash.
        period_ns: Between the last dark and the first bright picture, at the median.
        image_quality: Class of the camera's stamps.
        audio_quality: Class of the microphone's stamps.
        in_step: Every flash fell at the same place of a frame: more of them add nothing.
        ambiguous: The flashes are so regular that an offset of one interval more would fit as well.
    """

    offset: Offset
    pairs: tuple[Pair, ...]
    flashes: int
    beeps: int
    period_ns: int
    image_quality: ClockQuality
    audio_quality: ClockQuality
    in_step: bool
    ambiguous: bool


def match(flashes: Sequence[Rise], beeps: Sequence[int]) -> tuple[list[Pair], bool]:
    """Find which beep belongs to which flash: the offset that most of them agree on.

    Args:
        flashes: Flashes in order of time.
        beeps: Onsets of beeps in ns, in order.

    Returns:
        The pairs, and whether another offset explains nearly as many (the flashes were too regular); the
        smallest of such offsets is taken.
    """
    if not flashes or not beeps:
        return [], False
    spread_ns = round(float(np.median([flash.after_ns - flash.before_ns for flash in flashes]))) + _SLACK_NS
    found: list[tuple[int, int]] = []  # (flash less beep, number of the flash)
    for number, flash in enumerate(flashes):
        middle_ns = (flash.before_ns + flash.after_ns) // 2
        near = slice(bisect_left(beeps, middle_ns - _APART_NS), bisect_right(beeps, middle_ns + _APART_NS))
        found += [(middle_ns - beep_ns, number) for beep_ns in beeps[near]]
    found.sort()
    differences = [difference_ns for difference_ns, _ in found]
    groups = [found[k : bisect_right(differences, low + spread_ns)] for k, low in enumerate(differences)]
    sizes = [len({number for _, number in group}) for group in groups]
    alike = [k for k, size in enumerate(sizes) if size >= _ALIKE * max(sizes)]
    if not alike:
        return [], False
    nearest = differences[min(alike, key=lambda k: abs(differences[k] + spread_ns // 2))]
    chosen = max((k for k in alike if abs(differences[k] - nearest) <= spread_ns), key=lambda k: sizes[k])
    group = groups[chosen]
    centre_ns = group[len(group) // 2][0]
    # Two beeps may be near one flash: the last entry, the one nearest to the centre, stands.
    best = {number: difference for difference, number in sorted(group, key=lambda one: -abs(one[0] - centre_ns))}
    pairs = [
        Pair(flash.before_ns, flash.after_ns, (flash.before_ns + flash.after_ns) // 2 - best[number])
        for number, flash in enumerate(flashes)
        if number in best
    ]
    return pairs, len(pairs) > 1 and any(abs(differences[k] - differences[chosen]) > 2 * spread_ns for k in alike)


def estimate(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Return (offset_ns, uncertainty_ns) of pairs whose flashes are known to lie between two pictures only.

    Each pair says that the offset lies in an interval as long as a frame. Flashes at irregular times fall
    at all places of a frame, and then only a short piece is in all intervals: the error falls with the
    number of pairs, not with its root. Here that is a posterior over offset and noise (logistic, unknown
    scale), with 1 % of strays: its median, and how far 99 % of it reach, plus 1 ms for the onset.

    Args:
        pairs: At least one.
    """
    origin_ns = pairs[0].middle_ns
    low = np.array([pair.before_ns - pair.beep_ns - origin_ns for pair in pairs]) / 1e6
    high = np.array([pair.after_ns - pair.beep_ns - origin_ns for pair in pairs]) / 1e6
    grid = np.arange(low.min() - _MARGIN, high.max() + _MARGIN, _STEP)
    logs = np.zeros((len(_SCALES), len(grid)))
    for a, b in zip(low, high, strict=True):
        inside = _logistic((b - grid) / _SCALES[:, None]) - _logistic((a - grid) / _SCALES[:, None])
        logs += np.log((1 - _STRAY) * inside + _STRAY * min(1.0, (b - a) / _STRAY_SPAN))
    mass = np.cumsum(np.exp(logs - logs.max()).sum(axis=0))
    left, middle, right = np.interp(np.array([_TAIL, 0.5, 1 - _TAIL]) * mass[-1], mass, grid)
    uncertainty_ms = max(right - middle, middle - left)
    return origin_ns + round(middle * 1e6), round(uncertainty_ms * 1e6) + _FLOOR_NS


def _logistic(
    x: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return 0.5 * (1 + np.tanh(x / 2))


class _Listener:
    """Takes the packets of both devices and keeps the flashes and beeps."""

    def __init__(self) -> None:
        self.flashes: list[Rise] = []
        self.beeps: list[int] = []
        self.quality: dict[str, ClockQuality] = {}
        self.ended: str | None = None
        self._found: queue.SimpleQueue[tuple[Packet, list[tuple[int, float]]]] = queue.SimpleQueue()
        self._light, self._sound = Rises(window=16, least=3.0), Rises(window=256, least=0.001)
        self._tone = ToneLevel(_RATE_HZ)
        self._epochs: dict[str, int] = {}
        self._settled_ns = 0

    def __call__(self, packet: Packet) -> None:
        """Take a packet, on a source's own thread."""
        if isinstance(packet, Arrival):
            return
        if isinstance(packet, Frame):
            points = [(packet.capture_ns, brightness(packet))]
            if packet.release is not None:
                packet.release()
        else:
            points = list(self._tone.feed(packet)) if isinstance(packet, Block) else []
        self._found.put((packet, points))

    def take(self, timeout_s: float) -> None:
        """Wait for packets and look at them."""
        try:
            packet, points = self._found.get(timeout=timeout_s)
        except queue.Empty:
            return
        if isinstance(packet, EndOfStream):
            self.ended = f"'{packet.stream}' has ended: {packet.reason or 'nothing more comes'}"
            return
        rises = self._light if isinstance(packet, Frame) else self._sound
        if packet.stream not in self.quality:  # both devices must run for a while
            self._settled_ns = packet.arrive_ns + _SETTLE_NS
        if self._epochs.setdefault(packet.stream, packet.epoch) != packet.epoch:
            self._epochs[packet.stream] = packet.epoch
            rises.restart()
        self.quality[packet.stream] = packet.quality
        for time_ns, level in points:
            rise = rises.feed(time_ns, level)
            if rise is None or rise.before_ns < self._settled_ns:
                continue
            if rises is self._light:
                self.flashes.append(rise)
            else:
                self.beeps.append(rise.at_ns)


def calibrate(
    image: str | Address, audio: str | Address, *, flashes: int = 20, progress: Progress | None = None
) -> MeasuredOffset:
    """Measure the constant offset between a camera and a microphone; nothing is written.

    Args:
        image: Address of the camera, which looks at the screen that flashes.
        audio: Address of the microphone, which hears its beeps (1 kHz).
        flashes: How many pairs are wanted, 5 to 200.
        progress: Told what was found so far.

    Returns:
        The offset and what it follows from.

    Raises:
        CheckError: If no flash or no beep is found within 30 s, or too few belong together.
        ConfigError: If an address is malformed, or is none of a live device.
        DeviceError: If a device is not there or delivers nothing.
        MissingDependencyError: If a package is not installed.

    Example:
        >>> calibrate("0", "mic://default").offset.offset_ns  # doctest: +SKIP
        31400000
    """
    names = device_name(image), device_name(audio)
    listener = _Listener()
    sources = open_sources(_INPUTS, {"image": Address(image), "audio": Address(audio)}, workers=True)
    try:
        began_ns = now_ns()
        for source in sources:
            source.start(listener)
        pairs: list[Pair] = []
        ambiguous, seen = False, 0
        while len(pairs) < flashes:
            listener.take(0.1)
            _check(listener, sources, (now_ns() - began_ns) / NS_PER_S, len(pairs), flashes)
            if (found := len(listener.flashes) + len(listener.beeps)) != seen:
                seen = found
                pairs, ambiguous = match(listener.flashes, listener.beeps)
                if progress is not None:
                    progress(len(pairs), len(listener.flashes), len(listener.beeps))
    finally:
        for source in sources:
            source.stop()
    offset_ns, uncertainty_ns = estimate(pairs)
    middles = np.array([pair.middle_ns for pair in pairs])
    mad_ns = round(float(np.median(np.abs(middles - np.median(middles)))))
    period_ns = round(float(np.median([pair.after_ns - pair.before_ns for pair in pairs])))
    offset = Offset(
        image=names[0],
        audio=names[1],
        offset_ns=offset_ns,
        uncertainty_ns=uncertainty_ns,
        mad_ns=mad_ns,
        pairs=len(pairs),
    )
    return MeasuredOffset(
        offset=offset,
        pairs=tuple(pairs),
        flashes=len(listener.flashes),
        beeps=len(listener.beeps),
        period_ns=period_ns,
        image_quality=listener.quality["image"],
        audio_quality=listener.quality["audio"],
        in_step=mad_ns < period_ns / 20,
        ambiguous=ambiguous,
    )


def _check(listener: _Listener, sources: Sequence[Source], passed_s: float, found: int, wanted: int) -> None:
    """Raise what is wrong, if it is time to say so."""
    broken: list[MmedgeError] = [source.error for source in sources if source.error is not None]
    if broken:
        raise broken[0]
    if listener.ended is not None:
        raise DeviceError(listener.ended, where="calibrate", fix="check the device: mmedge devices --probe")
    if passed_s < _NOTHING_S:
        return
    for source in sources:
        silent = [name for name in source.streams if name not in listener.quality]
        if silent:
            raise DeviceError(
                f"'{silent[0]}' has sent no data for {passed_s:.0f} s: {source.health().reason}",
                where=silent[0],
                fix="check the device: mmedge devices --probe",
            )
    show = "play the clip of `mmedge calibrate --write flash.mp4` in front of both"
    if not listener.flashes:
        raise CheckError(
            f"no flash was seen within {_NOTHING_S:g} s",
            where="--image",
            fix=f"{show}; let the screen fill the picture, at full brightness, away from the sun",
        )
    if not listener.beeps:
        raise CheckError(
            f"no beep of 1 kHz was heard within {_NOTHING_S:g} s",
            where="--audio",
            fix=f"{show}; turn up the volume, and switch off noise suppression in the microphone's settings",
        )
    if passed_s > _NOTHING_S + 3 * wanted:
        raise CheckError(
            f"only {found} of {wanted} pairs after {passed_s:.0f} s; {len(listener.flashes)} flashes were seen and "
            f"{len(listener.beeps)} beeps heard",
            where="calibrate",
            fix=f"{show}, from beginning to end, and keep the room quiet and the light constant",
        )
