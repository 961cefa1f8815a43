"""A simulated device without a clock: the same seed and opening time give the same deliveries, faults and all."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from mmedge.capture.sound import PIECE_MS
from mmedge.errors import ConfigError
from mmedge.learn import learn
from mmedge.types import NS_PER_S

_ORIGIN_NS = 86_400 * NS_PER_S  # what the device's own clock shows when it is opened
_STALE_S = 2.0  # of right stamps before stale ones, without freeze_at_s
_XRUN_MS = (20, 100)  # least and most sound that one overrun loses
_WORST_JITTER = 10  # times jitter_ms: a tail of the exponential that no driver has
_NEEDS = {"stall_rate": "stall_ms", "gap_at_s": "gap_ms", "jump_at_s": "time_jump_ms"}

_Ms = Annotated[float, Meta(ge=0, le=10_000)]
_At = Annotated[float, Meta(ge=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a ``test://`` address. Seconds count from the opening of the device.

    Attributes:
        width: Columns of the picture, even.
        height: Rows of the picture, even.
        fps: Pictures per second.
        rate_hz: Sample rate of the device; 0: that of the input.
        seed: Of everything random.
        latency_ms: Delay that the device is known to have; it is subtracted.
        hidden_ms: Unknown delay: its capture times are late by this much.
        drift_ppm: How much faster than CLOCK_MONOTONIC the device's clocks run.
        jitter_ms: Mean of the exponential delay of each delivery.
        stall_ms: Longest of the stalls that ``stall_rate`` of the reads suffer.
        stall_rate: Share of the reads that stall.
        xrun: Reported overflows of the sound per minute; 20 to 100 ms vanish each time.
        gap_ms: Sound that vanishes at ``gap_at_s`` without a report.
        gap_at_s: See ``gap_ms``.
        unplug_at_s: The device vanishes.
        hang_at_s: Reading blocks until the source is stopped.
        freeze_at_s: The picture repeats bit for bit.
        stale: The device's stamps stand still from ``freeze_at_s`` on, or from 2 s.
        time_jump_ms: The device's stamps jump by so much at ``jump_at_s``.
        jump_at_s: See ``time_jump_ms``.
        burst: Deliveries come in groups of this many.
        resize_at_s: The picture shrinks to half its width and height.
    """

    width: Annotated[int, Meta(ge=160, le=4096, multiple_of=4)] = 640
    height: Annotated[int, Meta(ge=64, le=4096, multiple_of=4)] = 480
    fps: Annotated[int, Meta(ge=1, le=240)] = 30
    rate_hz: Annotated[int, Meta(ge=4000, le=192_000)] = 0
    seed: Annotated[int, Meta(ge=0, le=1 << 32)] = 0
    latency_ms: _Ms = 0.0
    hidden_ms: _Ms = 0.0
    drift_ppm: Annotated[float, Meta(ge=-1000, le=1000)] = 0.0
    jitter_ms: _Ms = 0.0
    stall_ms: _Ms = 0.0
    stall_rate: Annotated[float, Meta(ge=0, le=1)] = 0.02
    xrun: Annotated[float, Meta(ge=0, le=600)] = 0.0
    gap_ms: _Ms = 0.0
    gap_at_s: _At = 2.0
    unplug_at_s: _At = math.inf
    hang_at_s: _At = math.inf
    freeze_at_s: _At = math.inf
    stale: bool = False
    time_jump_ms: Annotated[float, Meta(ge=-86_400_000, le=86_400_000)] = 0.0
    jump_at_s: _At = 2.0
    burst: Annotated[int, Meta(ge=1, le=100)] = 1
    resize_at_s: _At = math.inf

    @property
    def pace(self) -> float:
        """How fast the device's clocks run: 1 without drift."""
        return 1 + self.drift_ppm * 1e-6

    @classmethod
    def read(cls, params: Mapping[str, str]) -> Settings:
        """Return the settings that the parameters of an address ask for.

        Raises:
            ConfigError: If one is unknown, no number, out of range, or without effect.
        """
        for name, needed in _NEEDS.items():
            if name in params and needed not in params:
                raise ConfigError(f"parameter '{name}' has no effect without '{needed}'")
        try:
            return msgspec.convert(dict(params), learn(cls), strict=False)
        except msgspec.ValidationError as error:
            expected, _, name = str(error).partition(" - at `$.")
            name = name.rstrip("`")
            raise ConfigError(f"parameter '{name}' is '{params.get(name)}': {expected}") from error


@dataclass(kw_only=True, slots=True)
class Delivery:
    """What the device hands over.

    Attributes:
        due_ns: When reading it returns.
        true_ns: When it was sensed; of sound, the instant after the last sample.
        stamp_ns: What the device's own clock says of that instant.
    """

    due_ns: int = 0
    true_ns: int
    stamp_ns: int


@dataclass(kw_only=True, slots=True)
class Shot(Delivery):
    """A picture; it shows the world at ``shown_ns``."""

    shown_ns: int
    width: int
    height: int


@dataclass(kw_only=True, slots=True)
class Take(Delivery):
    """Sound: ``samples`` from number ``first`` on, sensed from ``start_ns``; ``lost`` vanished before it."""

    start_ns: int
    first: int
    samples: int
    lost: int
    overflow: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The device is unplugged, or reading from it hangs."""

    due_ns: int
    hangs: bool


_D = TypeVar("_D", Shot, Take)


class Simulator:
    """Says what a device delivers, and when.

    Exposures lie on the world's own seconds, so that one of them sees each flash; drift shows in their
    stamps. The sound is sampled by the drifting clock.

    Args:
        settings: What the device is like.
        rate_hz: Sample rate of its sound, None for no sound.
        pictures: Whether it gives pictures.
    """

    def __init__(self, settings: Settings, *, rate_hz: int | None, pictures: bool) -> None:
        self.settings = settings
        self.rate_hz = rate_hz
        self.pictures = pictures
        self.pace = settings.pace

    def events(self, opened_ns: int) -> Iterator[Shot | Take | Ending]:
        """Yield every delivery of a device that is opened at ``opened_ns``, in the order of ``due_ns``, without end."""
        settings, tracks = self.settings, list[Iterator[Shot | Take]]()
        if self.rate_hz is not None:
            rng = random.Random(f"sound {settings.seed}")
            tracks.append(self._delivered(self._takes(opened_ns, self.rate_hz, rng), rng))
        if self.pictures:
            tracks.append(self._delivered(self._shots(opened_ns), random.Random(f"picture {settings.seed}")))
        end_s = min(settings.unplug_at_s, settings.hang_at_s)
        for delivery in heapq.merge(*tracks, key=attrgetter("due_ns")):
            if delivery.due_ns - opened_ns >= end_s * NS_PER_S:
                yield Ending(due_ns=opened_ns + round(end_s * NS_PER_S), hangs=settings.hang_at_s == end_s)
                return
            yield delivery

    def _delivered(self, sensed: Iterator[_D], rng: random.Random) -> Iterator[_D]:
        settings, due_ns = self.settings, 0
        while group := list(islice(sensed, settings.burst)):
            for delivery in group:
                late_ms = settings.latency_ms + settings.hidden_ms
                if settings.jitter_ms:
                    late_ms += settings.jitter_ms * min(_WORST_JITTER, rng.expovariate(1))
                if settings.stall_ms and rng.random() < settings.stall_rate:
                    late_ms += rng.uniform(0, settings.stall_ms)
                due_ns = max(due_ns, group[-1].true_ns + round(late_ms * 1e6))
                delivery.due_ns = due_ns
                yield delivery

    def _shots(self, opened_ns: int) -> Iterator[Shot]:
        settings = self.settings
        fps, width, height = settings.fps, settings.width, settings.height
        number = opened_ns * fps // NS_PER_S + 1  # of the first exposure since the world began
        frozen_ns: int | None = None
        while True:
            true_ns = number // fps * NS_PER_S + number % fps * NS_PER_S // fps
            since_ns, number = true_ns - opened_ns, number + 1
            if since_ns >= settings.resize_at_s * NS_PER_S:
                width, height = settings.width // 2, settings.height // 2
            if frozen_ns is None and since_ns >= settings.freeze_at_s * NS_PER_S:
                frozen_ns = true_ns
            yield Shot(
                true_ns=true_ns,
                stamp_ns=self._stamp(round(since_ns * self.pace), since_ns),
                shown_ns=frozen_ns or true_ns,
                width=width,
                height=height,
            )

    def _takes(self, opened_ns: int, rate_hz: int, rng: random.Random) -> Iterator[Take]:
        settings, size = self.settings, rate_hz * PIECE_MS // 1000
        per_second = settings.xrun / 60
        overflow_ns = rng.expovariate(per_second) * NS_PER_S if per_second else math.inf
        gap_ns = settings.gap_at_s * NS_PER_S if settings.gap_ms else math.inf
        end = counted = 0  # samples sensed, and those that the device knows of
        while True:
            begin, now_ns = end, self._sensed_ns(end, rate_hz)
            overflow = now_ns >= overflow_ns
            if overflow:
                end += rng.randint(*_XRUN_MS) * rate_hz // 1000
                overflow_ns = now_ns + rng.expovariate(per_second) * NS_PER_S
            if now_ns >= gap_ns:
                end += round(settings.gap_ms * rate_hz / 1000)
                gap_ns = math.inf
            first, end, counted = end, end + size, counted + size
            since_ns = self._sensed_ns(end, rate_hz)
            yield Take(
                true_ns=opened_ns + since_ns,
                stamp_ns=self._stamp(counted * NS_PER_S // rate_hz, since_ns),
                start_ns=opened_ns + self._sensed_ns(first, rate_hz),
                first=first,
                samples=size,
                lost=first - begin,
                overflow=overflow,
            )

    def _sensed_ns(self, sample: int, rate_hz: int) -> int:
        return round(sample * NS_PER_S / (rate_hz * self.pace))

    def _stamp(self, device_ns: int, since_ns: int) -> int:
        settings = self.settings
        if settings.stale:
            begin_s = _STALE_S if settings.freeze_at_s == math.inf else settings.freeze_at_s
            device_ns = min(device_ns, round(begin_s * NS_PER_S))
        jump_ns = round(settings.time_jump_ms * 1e6) if since_ns >= settings.jump_at_s * NS_PER_S else 0
        return _ORIGIN_NS + device_ns + jump_ns
