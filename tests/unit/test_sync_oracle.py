"""The native synchroniser and clock say what the plain ones in Python say, whatever sources do."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import Missing, Sync
from mmedge.clock import StreamClock
from mmedge.sync import Synchronizer
from mmedge.types import Arrival, Block, EndOfStream, Frame, Packet, Tensor, Text
from tests.oracle.stream_clock import StreamClock as PlainClock
from tests.oracle.synchronizer import Synchronizer as PlainSynchronizer
from tests.sync_model import HOUR, MS, PIXELS, Setup, encode, names, policies, syncs

# Arrival after the one before, capture before arrival, what is pushed, whether it is odd; 3 s and more are jumps.
gaps_ms = st.one_of(st.integers(0, 50), st.integers(0, 50), st.sampled_from([300, 2500, 6000]))
lags_ms = st.one_of(
    st.integers(-20, 60), st.integers(-20, 60), st.sampled_from([400, -3000, 3000, -3_600_000, 2010, -1970, -70, 130])
)
kinds = st.sampled_from(["data"] * 8 + ["let go", "end", "broken", "reconnect", "old", "time"])
events = st.lists(st.tuples(names, kinds, gaps_ms, lags_ms, st.integers(0, 9)), min_size=60, max_size=150)


class Feed:
    """One synchroniser, and all that can be seen of it."""

    def __init__(self, sync: Any, attached: dict[str, bool]) -> None:
        self.sync, self.attached = sync, attached
        self.released: list[tuple[str, int]] = []
        self.epoch: Counter[str] = Counter()
        self.now, self.seq = 0, 0

    def packet(self, name: str, kind: str, lag_ms: int, odd: int) -> Packet:
        self.seq += 1
        seq, epoch = self.seq, self.epoch[name] - (kind == "old")
        capture_ns = self.now - lag_ms * MS + self.seq * 137_011 % MS
        stamp: dict[str, Any] = {"stream": name, "seq": seq, "capture_ns": capture_ns, "arrive_ns": self.now}
        stamp |= {"epoch": epoch, "uncertainty_ns": odd * 100_000}
        if kind == "let go":
            return Arrival(**stamp)
        if kind == "end":
            return EndOfStream(**stamp, reason=None if odd % 2 else "unplugged")
        if name == "audio":
            samples = np.arange(seq * 64, seq * 64 + 10 * (odd % 4), dtype=np.float32)
            return Block(**stamp, samples=samples, lost=(0, 0, 0, 7, 150)[odd % 5])
        if name == "text":
            return Text(**stamp, text=" " if kind == "broken" else "seven")
        if name == "imu":
            return Tensor(**stamp, data=PIXELS)
        shape: dict[str, Any] = {"data": PIXELS, "format": "gray8", "width": 8, "height": 8}
        shape |= {"unchanged_ns": 1200 * MS if odd == 9 else 0, "damaged": kind == "broken"}
        return Frame(**stamp, **shape, release=lambda: self.released.append((name, seq)))  # type: ignore[arg-type]

    def step(self, name: str, kind: str, gap_ms: int, lag_ms: int, odd: int) -> tuple[object, ...]:
        self.now += gap_ms * MS
        if kind == "reconnect":
            self.epoch[name] += 1
        if name in self.attached and kind != "time":
            packet = self.packet(name, kind, lag_ms, odd)
            self.sync.push(packet)
            others = tuple(other for other in self.attached if other != name)
            ahead = self.sync.ahead_ns(packet, others)
        else:
            ahead = 0
        if odd % 3 == 0:  # not each time: what has gathered is polled at once
            return ahead, self.look()
        self.sync.advance(self.now)
        snapshots = self.sync.poll()
        told = [encode(self.sync, snapshot) for snapshot in snapshots]
        sounds = [(s.end, s.end_ns, s.epoch) for shot in snapshots for s in self.sync.sounds(shot).values()]
        failed = [self.sync.failed(snapshot) for snapshot in snapshots]
        if odd % 2:
            self.sync.trim()
        return ahead, told, sounds, failed, self.look()

    def look(self) -> tuple[object, ...]:
        sync = self.sync
        counts = list(sync.drops.items()), list(sync.refused.items()), sync.lost_samples()
        state = sync.triggers, sync.pending, sync.period_ns, sync.finished, sync.next_deadline_ns()
        silence = [sync.silence_ns(name, self.now) for name in self.attached]
        return counts, state, silence, sync.steady(self.now), list(self.released)


BURST = [("image", "data", 1000 if lag == 800 else 0, lag, 1) for lag in (800, 600, 400, 200, 0)]
GAPS = [*BURST * 45, ("image", "time", 1950, 0, 1)]  # a camera that sends bursts: its usual gaps become long


@settings(max_examples=80, deadline=None)
@example(attached={"image": True}, missing={}, sync=Sync(trigger="image"), lossless=False, script=GAPS)
@given(
    attached=st.dictionaries(names, st.sampled_from([True, True, True, False]), min_size=1),
    missing=st.dictionaries(names, policies.filter(lambda policy: policy is not None)),
    sync=syncs,
    lossless=st.sampled_from([False, False, False, True]),
    script=events,
)
def test_the_native_synchroniser_decides_as_the_plain_one(
    attached: dict[str, bool], missing: dict[str, Missing], sync: Sync, lossless: bool, script: list[Any]
) -> None:
    setup = Setup(attached, missing, sync, lossless)
    native, plain = (Feed(setup.make(cls), attached) for cls in (Synchronizer, PlainSynchronizer))
    for event in script:
        if not (lossless and abs(event[3]) > 10_000):  # an hour of a file is an hour to wait for
            assert native.step(*event) == plain.step(*event), event
    for feed in (native, plain):
        feed.sync.close()
    assert native.released == plain.released


walks = st.lists(
    st.tuples(
        st.sampled_from([1, 10, 100, 400]),  # packets
        st.sampled_from([0, 0, 2, 40, 200]),  # ms of noise
        st.sampled_from(
            ["none", "none", "gap", "shift", "restart", "later", "creep", "earlier", "jump", "leap", "stop"]
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(walks, st.floats(-300, 300), st.integers(0, 999), st.sampled_from([10, 33, 100]))
def test_the_native_clock_draws_the_line_of_the_plain_one(
    walk: list[Any], ppm: float, seed: int, period_ms: int
) -> None:
    """To 10 ns: sums of floats are rounded in another order, in numpy by the CPU."""
    native, plain = StreamClock(floor_ns=MS), PlainClock(floor_ns=MS)
    draw, stream, origin, late, arrived = random.Random(seed), 0, 0, 4 * MS, 0
    for packets, noise_ms, then in walk:
        if then == "shift":
            native.shift(60 * MS), plain.shift(60 * MS)
        elif then == "restart":
            native.restart(), plain.restart()
        late += {"later": 100 * MS, "creep": 30_500_000, "earlier": -70 * MS}.get(then, 0)
        arrived += 3000 * MS if then == "stop" else 0
        origin += {"jump": HOUR, "leap": 9500 * MS}.get(then, 0)
        for k in range(packets):
            stream += period_ms * MS
            true = round(stream * (1 + ppm * 1e-6)) + late
            arrived = max(arrived, true + round(draw.expovariate(1) * noise_ms * MS))
            gap = then == "gap" and k == 0
            jumps = native.observe(stream + origin, arrived, gap=gap), plain.observe(stream + origin, arrived, gap=gap)
            times = native.to_monotonic(stream + origin), plain.to_monotonic(stream + origin)
            assert abs(jumps[0] - jumps[1]) <= 10
            assert abs(times[0] - times[1]) <= 10
            assert abs(native.uncertainty_ns - plain.uncertainty_ns) <= 10
        assert abs(native.ppm - plain.ppm) < 1e-6
        assert abs(native.jitter_ns - plain.jitter_ns) <= 10
        assert abs(native.offset_ns - plain.offset_ns) <= 10
