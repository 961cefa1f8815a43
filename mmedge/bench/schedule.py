"""When the packets of a generated benchmark are due: an open loop, which the system that is measured cannot slow down.

Every due time follows from the packet's number alone, so that nothing drifts. No two streams run in step: a grid that
they share would decide for good how long each picture waits for its sound.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, pairwise
from operator import itemgetter
from typing import Literal, TypeAlias

import numpy as np

from mmedge.bundle import AudioInput, ImageInput
from mmedge.bundle.manifest import Input, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.types import NS_PER_S

BLOCK_MS = 10.0  # what our own microphone source delivers
TEXT_S = 1.0  # between two texts
Arrivals: TypeAlias = Literal["fixed", "poisson"]
_GAPS = 1024  # that are drawn at once
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it are spread evenly, however many there are
# Free-running devices of one nominal rate are never of one rate. Exaggerated, so that a run of seconds sees all phases.
_SLOWER = [1 + Fraction(permille, 1000) for permille in range(6, 60)]
_SEEN, _EVEN = 100, 0.1  # this many meetings leave no gap of phases wider than this share of a period


@dataclass(frozen=True, kw_only=True)
class Feed:
    """The packets of one input.

    Attributes:
        name: The input.
        period_ns: From one packet to the next.
        first_ns: When the first is due, after the start.
        samples: Of sound, how many are in a block; it is due with its last one.
    """

    name: str
    period_ns: Fraction
    first_ns: int
    samples: int = 0

    def due_ns(self, number: int) -> int:
        """Return when packet ``number`` is due, in ns after the start."""
        return self.first_ns + math.floor(number * self.period_ns)

    def first_from(self, since_ns: int) -> int:
        """Return the number of the first packet that is due at ``since_ns`` after the start, or later."""
        number = max(0, math.ceil((since_ns - self.first_ns) / self.period_ns))
        return number if self.due_ns(number) >= since_ns else number + 1  # what is due was rounded down


@dataclass(frozen=True, kw_only=True)
class PoissonFeed(Feed):
    """Packets that come at random and independently, at a mean rate: the gaps between them are exponential.

    Attributes:
        seed: Of the gaps; one seed is one schedule.
    """

    seed: int = 0
    _times_ns: list[int] = field(default_factory=list, repr=False, compare=False)

    def due_ns(self, number: int) -> int:
        """Return when packet ``number`` is due, in ns after the start."""
        times_ns = self._times_ns
        while len(times_ns) <= number:
            rng = np.random.default_rng((self.seed, len(times_ns)))
            last_ns = times_ns[-1] if times_ns else self.first_ns
            # Captures one instant apart are two nevertheless.
            gaps_ns = np.maximum(np.ceil(rng.exponential(float(self.period_ns), _GAPS)), 1).astype(np.int64)
            times_ns += (last_ns + np.cumsum(gaps_ns)).tolist()
        return times_ns[number]

    def first_from(self, since_ns: int) -> int:
        """Return the number of the first packet that is due at ``since_ns`` after the start, or later."""
        return next(number for number in count() if self.due_ns(number) >= since_ns)


def trigger_period_ns(inputs: Mapping[str, Input], sync: Sync, fps: float) -> Fraction:
    """Return the time from one trigger to the next, where nothing is wrong.

    Args:
        inputs: Those of the bundle.
        sync: Names the trigger, and the hop of audio and timer triggers.
        fps: Rate of pictures, and of tensors that have none of their own.
    """
    own = inputs.get(sync.trigger)
    if own is None or isinstance(own, AudioInput):
        return _exact(sync.every_ms * 1e6)
    if isinstance(own, TextInput):
        return _exact(TEXT_S * NS_PER_S)
    return NS_PER_S / _exact(own.rate_hz or fps if isinstance(own, TensorInput) else fps)


def make_feeds(
    inputs: Mapping[str, Input],
    sync: Sync,
    fps: float,
    block_ms: float = BLOCK_MS,
    arrivals: Arrivals = "fixed",
    seed: int = 0,
) -> tuple[Feed, ...]:
    """Return the feeds of all inputs: the trigger's exactly as asked, all others at phases that pass through it.

    Args:
        inputs: Those of the bundle.
        sync: Names the trigger.
        fps: Rate of pictures, and of tensors that have none of their own.
        block_ms: Longest block of sound, whatever the rate of pictures, so that figures can be compared.
        arrivals: ``fixed``: the trigger's packets come evenly; ``poisson``: at random, at the same mean rate.
        seed: Of random arrivals.

    Raises:
        ConfigError: If the arrivals are to be random and triggers are hops of sound or of a timer.
    """
    trigger_ns = trigger_period_ns(inputs, sync, fps)
    if arrivals == "poisson" and not isinstance(inputs.get(sync.trigger), (ImageInput, TensorInput, TextInput)):
        raise ConfigError(
            f"triggers of '{sync.trigger}' are hops of equal length: they cannot arrive at random",
            where="arrivals",
            fix="use arrivals 'fixed'",
        )
    feeds: list[Feed] = []
    for number, (name, spec) in enumerate(inputs.items(), 1):
        samples = 0
        if isinstance(spec, AudioInput):
            samples = block_samples(spec.sample_rate_hz, block_ms / 1e3, trigger_ns)
            period_ns = Fraction(samples * NS_PER_S, spec.sample_rate_hz)
        elif name == sync.trigger:
            period_ns = trigger_ns
        else:
            rate_hz = spec.rate_hz or fps if isinstance(spec, TensorInput) else fps
            nominal_ns = _exact(TEXT_S * NS_PER_S) if isinstance(spec, TextInput) else NS_PER_S / _exact(rate_hz)
            period_ns = _out_of_step([nominal_ns * slower for slower in _SLOWER], trigger_ns)
        turn = number * _GOLDEN % 1
        first_ns = round(turn * float(min(period_ns, trigger_ns))) + (math.ceil(period_ns) if samples else 0)
        if arrivals == "poisson" and name == sync.trigger:
            feeds.append(PoissonFeed(name=name, period_ns=period_ns, first_ns=first_ns, seed=seed))
        else:
            feeds.append(Feed(name=name, period_ns=period_ns, first_ns=first_ns, samples=samples))
    return tuple(feeds)


def block_samples(rate_hz: int, limit_s: float, trigger_ns: Fraction) -> int:
    """Return how many samples a block has: as many as there is room for, but not in step with the trigger.

    Args:
        rate_hz: Of the sound.
        limit_s: How long a block may be.
        trigger_ns: From one trigger to the next.
    """
    limit = max(1, round(rate_hz * limit_s))
    lengths = [Fraction(samples * NS_PER_S, rate_hz) for samples in range(limit, limit // 2, -1)]
    return round(_out_of_step(lengths, trigger_ns) * rate_hz / NS_PER_S)


def _out_of_step(periods_ns: list[Fraction], trigger_ns: Fraction) -> Fraction:
    """Return the first period whose phases are spread evenly, or the one that comes nearest to it."""
    spread = ((widest_gap(period_ns, trigger_ns), period_ns) for period_ns in periods_ns)
    found = []
    for gap, period_ns in spread:
        if gap <= _EVEN:
            return period_ns
        found.append((gap, period_ns))
    return min(found, key=itemgetter(0))[1]


def widest_gap(one_ns: Fraction, other_ns: Fraction) -> float:
    """Return the widest gap between the phases at which two streams meet, as a share of the shorter period."""
    step = float(max(one_ns, other_ns) / min(one_ns, other_ns) % 1)
    phases = sorted(number * step % 1 for number in range(_SEEN))
    return max(1 - phases[-1], *(after - before for before, after in pairwise(phases)))


def packets(feeds: tuple[Feed, ...], start_ns: int) -> Iterator[tuple[int, int, int]]:
    """Yield due time, number of the feed and number of the packet, in the order of the due times, without end."""

    def of(index: int, feed: Feed) -> Iterator[tuple[int, int, int]]:
        number = 0
        while True:
            yield start_ns + feed.due_ns(number), index, number
            number += 1

    return heapq.merge(*(of(index, feed) for index, feed in enumerate(feeds)))


def describe(feeds: tuple[Feed, ...]) -> str:
    """Return in a line what is generated."""
    told = [
        f"{f.name} {1e9 / float(f.period_ns):.4g} Hz"
        + (f" x {f.samples}" if f.samples else "")
        + (f" at random (seed {f.seed})" if isinstance(f, PoissonFeed) else "")
        for f in feeds
    ]
    return f"generated by an open loop, not in step: {', '.join(told)}"


def exact_period_ns(rate_hz: float) -> Fraction:
    """Return the time from one packet to the next."""
    return NS_PER_S / _exact(rate_hz)


def _exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1_000_000)
