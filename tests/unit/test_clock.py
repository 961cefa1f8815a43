"""The mapping of a stream's time to CLOCK_MONOTONIC, and the classes of stamps that feed it."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.capture.stamps import MicrophoneClock, Stamp
from mmedge.capture.v4l2 import CameraClock
from mmedge.clock import ClockReport, StreamClock, now_ns
from tests.oracle.microphone_clock import MicrophoneClock as PlainClock

MS = 1_000_000
S = 1000 * MS
HOUR = 3600 * S
LATENCY = 4 * MS
noises = st.sampled_from(["none", "jitter", "stalls"])
drifts = st.floats(-300, 300)


class Device:
    """Sends blocks of 10 ms by a clock that is wrong, to a reader that is late: 4 ms, and what ``noise`` adds."""

    def __init__(self, *, ppm: float = 0.0, noise: str = "stalls", seed: int = 0, per_s: int = 100) -> None:
        self.ppm, self.noise, self.per_s = ppm, noise, per_s
        self.random = random.Random(seed)
        self.k = 0
        self.lost_ns = 0  # what the stream's own time knows nothing of
        self.origin_ns = 0  # what it has jumped by
        self.arrived_ns = 0

    def next(self) -> tuple[int, int, int]:
        """Return (stream time, arrival, true time + latency)."""
        self.k += 1
        passed = self.k * S // self.per_s
        true = round(passed * (1 + self.ppm * 1e-6)) + 7 * S + self.lost_ns
        late = 0 if self.noise == "none" else round(self.random.expovariate(1) * 0.5 * MS)
        if self.noise == "stalls" and self.random.random() < 0.02:
            late += self.random.randrange(5 * MS, 80 * MS)
        self.arrived_ns = max(self.arrived_ns, true + LATENCY + late)
        return passed + self.origin_ns, self.arrived_ns, true + LATENCY

    def run(self, clock: StreamClock, seconds: float) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Feed a clock; return its errors and uncertainties in ms, and its jumps in ns."""
        errors, stated, jumps = [], [], []
        for _ in range(round(seconds * self.per_s)):
            stream, arrive, true = self.next()
            jump = clock.observe(stream, arrive)
            if jump:
                jumps.append(jump)
            errors.append((clock.to_monotonic(stream) - true) / MS)
            stated.append(clock.uncertainty_ns / MS)
        return np.array(errors), np.array(stated), jumps


@given(drifts, noises, st.integers(0, 99), st.sampled_from([25, 100]))
@settings(max_examples=30, deadline=None)
def test_the_error_is_small_and_honestly_stated_from_the_start(ppm: float, noise: str, seed: int, per_s: int) -> None:
    clock = StreamClock(floor_ns=MS // 2)
    errors, stated, jumps = Device(ppm=ppm, noise=noise, seed=seed, per_s=per_s).run(clock, 90)
    assert jumps == []
    assert np.mean(np.abs(errors) <= stated) >= 0.99
    assert np.abs(errors[2 * per_s :]).max() < 2.5
    assert np.abs(errors[40 * per_s :]).max() < 0.5
    assert np.median(stated) < 2
    assert abs(clock.ppm - ppm) < 2


@pytest.mark.parametrize(("ppm", "limit_ms"), [(60, 0.6), (-60, 0.6), (0, 0.3)])
def test_the_first_seconds_are_good_already(ppm: float, limit_ms: float) -> None:
    for seed in range(4):
        errors, _, _ = Device(ppm=ppm, seed=seed).run(StreamClock(floor_ns=MS // 2), 30)
        assert np.abs(errors[50:]).max() < limit_ms  # a stalled reader alone is off by up to 80 ms


@given(drifts, st.integers(-(4 * 10**18), 4 * 10**18), st.integers(0, 10**9))
@settings(max_examples=15, deadline=None)
def test_it_does_not_matter_what_the_clocks_show(ppm: float, stream_origin: int, whole_seconds: int) -> None:
    arrive_origin = whole_seconds * S  # whole buckets
    device, here, there = Device(ppm=ppm), StreamClock(floor_ns=MS), StreamClock(floor_ns=MS)
    for _ in range(1500):
        stream, arrive, _ = device.next()
        assert here.observe(stream, arrive) == there.observe(stream + stream_origin, arrive + arrive_origin)
        assert there.to_monotonic(stream + stream_origin) - here.to_monotonic(stream) == arrive_origin
        assert here.uncertainty_ns == there.uncertainty_ns


@given(st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(0, 300 * MS)), min_size=1, max_size=300))
def test_time_never_runs_back_but_by_a_jump_it_tells_of(steps: list[tuple[int, int]]) -> None:
    clock = StreamClock(floor_ns=MS)
    stream = 0
    last = -(1 << 62)
    for advance, late in steps:
        stream += advance
        jump = clock.observe(stream, stream + late)
        time_ns = clock.to_monotonic(stream)
        assert time_ns >= last or jump < 0
        last = time_ns


@given(st.lists(st.tuples(st.integers(-(10**19), 10**19), st.integers(0, 10**13)), min_size=1, max_size=50))
def test_nonsense_gives_finite_answers(observations: list[tuple[int, int]]) -> None:
    clock, arrive = StreamClock(floor_ns=MS), 0
    for stream, passed in observations:
        arrive += passed
        clock.observe(stream, arrive)
        assert clock.uncertainty_ns >= MS
        assert abs(clock.to_monotonic(stream)) < 1 << 70
    assert abs(clock.ppm) <= 500


@pytest.mark.parametrize("at_s", [5, 30.37, 61.99])
@pytest.mark.parametrize("ppm", [-100, 60])
def test_an_unreported_gap_is_found_and_measured(at_s: float, ppm: float) -> None:
    device, clock = Device(ppm=ppm), StreamClock(floor_ns=MS // 2)
    device.run(clock, at_s)
    device.lost_ns += 100 * MS
    errors, stated, jumps = device.run(clock, 20)
    (jump,) = jumps
    assert abs(jump - 100 * MS) < 2 * MS
    assert np.abs(errors[500:]).max() < 1  # after five seconds
    assert np.mean(np.abs(errors) <= stated) > 0.95  # all but half a second
    if at_s > 20:
        assert abs(clock.ppm - ppm) < 3  # the slope is kept


def test_a_reported_gap_is_taken_in_at_once() -> None:
    device, clock = Device(), StreamClock(floor_ns=MS)
    device.run(clock, 20)
    device.lost_ns += 100 * MS
    stream, arrive, true = device.next()
    assert clock.observe(stream, arrive, gap=True) == pytest.approx(100 * MS, abs=5 * MS)
    assert abs(clock.to_monotonic(stream) - true) < 5 * MS
    errors, _, jumps = device.run(clock, 20)
    assert jumps == []
    assert np.abs(errors[50:]).max() < 1
    assert clock.observe(*device.next()[:2], gap=True) < 5 * MS  # said, but nothing is missing


def test_a_known_gap_is_taken_in_exactly() -> None:
    device, clock = Device(), StreamClock(floor_ns=MS)
    device.run(clock, 20)
    before = clock.to_monotonic(20 * S)
    clock.shift(100 * MS)
    assert clock.to_monotonic(20 * S) - before == 100 * MS
    device.lost_ns += 100 * MS
    assert device.run(clock, 20)[2] == []


@pytest.mark.parametrize("jump_ns", [HOUR, -HOUR, 11 * S, -11 * S])
def test_a_stream_whose_time_jumps_goes_on_at_once(jump_ns: int) -> None:
    device, clock = Device(ppm=60), StreamClock(floor_ns=MS // 2)
    device.run(clock, 60)
    device.origin_ns += jump_ns
    errors, stated, jumps = device.run(clock, 30)
    (jump,) = jumps
    assert jump == pytest.approx(-jump_ns, abs=100 * MS)
    assert np.abs(errors[50:]).max() < 0.5
    assert np.mean(np.abs(errors) <= stated) >= 0.99
    assert abs(clock.ppm - 60) < 2


def test_an_early_packet_proves_that_the_others_were_late() -> None:
    device, clock = Device(), StreamClock(floor_ns=MS)
    device.lost_ns = 200 * MS
    device.run(clock, 5)
    device.lost_ns = device.arrived_ns = 0
    errors, _, jumps = device.run(clock, 5)
    (jump,) = jumps
    assert jump == pytest.approx(-200 * MS, abs=80 * MS)
    assert np.abs(errors[50:]).max() < 1


@pytest.mark.parametrize("stop_s", [0.5, 15])
def test_a_reader_that_was_stopped_is_only_late(stop_s: float) -> None:
    device, clock = Device(), StreamClock(floor_ns=MS)
    device.run(clock, 20)
    device.arrived_ns += round(stop_s * S)  # then what has gathered comes at once
    errors, _, jumps = device.run(clock, stop_s + 10)
    assert jumps == []
    assert np.abs(errors).max() < 1


@pytest.mark.parametrize("late_ms", [100, 500, 5000])
def test_a_backlog_from_the_start_is_worked_off(late_ms: int) -> None:
    device, clock = Device(noise="jitter"), StreamClock(floor_ns=MS)
    device.lost_ns = late_ms * MS
    device.run(clock, 10)
    device.lost_ns = 0  # arrivals bunch until the reader has caught up
    errors, _, jumps = device.run(clock, late_ms / 1000 + 10)
    assert sum(jumps) == pytest.approx(-late_ms * MS, abs=31 * MS)
    assert len(jumps) <= 4
    assert np.abs(errors[late_ms // 10 + 60 :]).max() < 1


def test_a_restart_forgets_the_offset_and_keeps_the_slope() -> None:
    device, clock = Device(ppm=100), StreamClock(floor_ns=MS // 2)
    device.run(clock, 60)
    clock.restart()
    device.origin_ns -= 3 * S
    errors, _, jumps = device.run(clock, 20)
    assert jumps == []
    assert np.abs(errors[50:]).max() < 0.4
    assert abs(clock.ppm - 100) < 2


def test_a_load_at_the_start_is_unlearnt() -> None:
    device, clock = Device(), StreamClock(floor_ns=MS // 2)
    device.lost_ns = 20 * MS
    device.run(clock, 3)
    device.lost_ns = device.arrived_ns = 0
    errors, stated, jumps = device.run(clock, 30)
    assert jumps == []
    assert np.mean(np.abs(errors) <= stated) > 0.98
    assert np.abs(errors[1500:]).max() < 1


def test_the_report_says_what_was_found() -> None:
    device, clock = Device(ppm=-40), StreamClock(floor_ns=MS)
    assert clock.report("C").jitter_ns == 0
    device.run(clock, 60)
    report = clock.report("B")
    assert report.quality == "B"
    assert abs(report.offset_ns - (7 * S + LATENCY - round(40e-6 * 60 * S))) < MS
    assert report.ppm == pytest.approx(-40, abs=2)
    assert 10 * MS < report.jitter_ns < 80 * MS  # two packets in a hundred are stalled
    assert report.uncertainty_ns == clock.uncertainty_ns
    assert msgspec.json.decode(msgspec.json.encode(report), type=ClockReport) == report


def test_it_costs_microseconds_and_keeps_nothing() -> None:
    device, clock = Device(), StreamClock(floor_ns=MS)
    device.run(clock, 120)
    observations = [device.next()[:2] for _ in range(20_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for stream, arrive in observations:
        clock.observe(stream, arrive)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 4096
    began = time.process_time()
    for stream, arrive in observations:
        clock.observe(stream + 200 * S, arrive + 200 * S)
        clock.to_monotonic(stream + 200 * S)
    assert (time.process_time() - began) / len(observations) < 50e-6  # about 4 us; a slow machine is no failure


RATE = 48_000


def stamp_of(k: int, *, adc_age_ns: int = 8 * MS, adc_jump_ns: int = 0, lost: int = 0, late_ns: int = 0) -> Stamp:
    """Return the stamp of the k-th block of 10 ms; ``lost`` samples before it were not counted."""
    true = 100 * S + k * 10 * MS
    entry = true + 12 * MS + late_ns
    return Stamp(480 * k - lost, entry, true + 8 * MS - adc_age_ns + adc_jump_ns, entry - MS)


def test_a_microphone_uses_the_best_time_after_two_seconds() -> None:
    clock = MicrophoneClock("mic", RATE)
    for k in range(1, 600):
        assert clock.observe(stamp_of(k)) == (0, False)
    assert clock.quality == "A"
    assert clock.to_monotonic(clock.stream_ns(480 * 599)) == pytest.approx(100 * S + 599 * 10 * MS, abs=MS // 10)
    assert clock.report().quality == "A"
    assert clock.uncertainty_ns < 2 * MS


@pytest.mark.parametrize("fault", ["constant", "hour", "backwards"])
def test_a_microphone_leaves_a_time_that_turns_insane(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = MicrophoneClock("mic", RATE)
    for k in range(1, 600):
        clock.observe(stamp_of(k))
    for k in range(600, 700):
        jump: Callable[[int], int] = {
            "constant": lambda k: -(k - 599) * 10 * MS,
            "hour": lambda _: HOUR,
            "backwards": lambda k: -(k - 599) * 20 * MS,
        }[fault]
        missing_ns, broken = clock.observe(stamp_of(k, adc_jump_ns=jump(k)))
        assert (missing_ns, broken) == (0, False)  # what the other classes lag behind was learnt
    assert clock.quality == "B"
    assert "no longer trusted" in caplog.text
    assert clock.to_monotonic(clock.stream_ns(480 * 699)) == pytest.approx(100 * S + 699 * 10 * MS, abs=MS)


def test_a_time_that_goes_wrong_slowly_ends_the_epoch() -> None:
    clock = MicrophoneClock("mic", RATE)
    outcomes = [clock.observe(stamp_of(k, adc_age_ns=8 * MS + k * 4000)) for k in range(1, 1000)]  # 400 ppm
    assert clock.quality == "A"
    outcomes += [
        clock.observe(stamp_of(k, adc_age_ns=8 * MS + 1000 * 4000 + (k - 1000) * 4 * MS)) for k in range(1000, 1400)
    ]
    assert clock.quality == "B"
    assert any(broken for _, broken in outcomes)
    assert clock.to_monotonic(clock.stream_ns(480 * 1399)) == pytest.approx(100 * S + 1399 * 10 * MS, abs=10 * MS)


@pytest.mark.parametrize("reported", [True, False])
def test_a_microphone_that_loses_samples(reported: bool) -> None:
    clock = MicrophoneClock("mic", RATE)
    for k in range(1, 600):
        clock.observe(stamp_of(k))
    outcomes = [clock.observe(stamp_of(k, lost=4800), overflow=reported and k == 610) for k in range(610, 1110)]
    found = [(missing_ns, broken) for missing_ns, broken in outcomes if missing_ns]
    assert found == [(pytest.approx(100 * MS, abs=MS), not reported)]
    assert outcomes.index(found[0]) <= (0 if reported else 400)
    true = 100 * S + 1109 * 10 * MS
    assert clock.to_monotonic(clock.stream_ns(480 * 1109 - 4800)) == pytest.approx(true, abs=MS)


def test_an_overflow_before_anything_was_heard_is_no_gap() -> None:
    assert MicrophoneClock("mic", RATE).observe(stamp_of(1), overflow=True) == (0, False)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_microphone_goes_as_its_oracle_does(data: st.DataObject) -> None:
    """Faults of both of PortAudio's times, late calls, losses that are reported or not, and wild jumps."""
    rng = random.Random(data.draw(st.integers(0, 1000)))
    faults = data.draw(st.lists(st.sampled_from(["adc", "current", "late", "lost", "overflow", "wild"]), unique=True))
    native, plain = MicrophoneClock("mic", RATE), PlainClock(RATE)
    lost, off = 0, {"adc": 0, "current": 0}
    for k in range(1, data.draw(st.integers(150, 900))):
        for name in off:
            if name in faults and rng.random() < 0.01:
                off[name] = rng.choice([0, -HOUR, 40 * MS, -k * 10 * MS])
        if rng.random() < 0.005 and "lost" in faults:
            lost += 480 * rng.randrange(1, 50)
        late_ns = rng.randrange(60 * MS) if "late" in faults and rng.random() < 0.1 else rng.randrange(MS)
        stamp = stamp_of(k, adc_jump_ns=off["adc"], lost=lost, late_ns=late_ns)
        stamp = Stamp(stamp.samples, stamp.entry_ns, stamp.adc_ns, stamp.current_ns + off["current"])
        if rng.random() < 0.01 and "wild" in faults:
            stamp = Stamp(stamp.samples, stamp.entry_ns, rng.choice([-(1 << 63), (1 << 63) - 1]), 0)
        overflow = "overflow" in faults and rng.random() < 0.01
        assert native.observe(stamp, overflow=overflow) == plain.observe(stamp, overflow=overflow)
        stream_ns = native.stream_ns(stamp.samples)
        assert stream_ns == plain.stream_ns(stamp.samples)
        assert native.quality == plain.quality
        assert native.to_monotonic(stream_ns) == plain.to_monotonic(stream_ns)
        assert native.uncertainty_ns == plain.uncertainty_ns


@pytest.mark.parametrize("jump_ns", [HOUR, -5 * S])
def test_a_camera_whose_stamps_jump_begins_an_epoch_and_stays_on_time(jump_ns: int) -> None:
    clock = CameraClock()
    for k in range(100):
        capture, _, quality = clock.capture(100 * S + k * 40 * MS, 100 * S + k * 40 * MS + 35 * MS)
        assert (quality, clock.broken) == ("A", False)
    broken = []
    for k in range(100, 200):
        true = 100 * S + k * 40 * MS
        capture, _, quality = clock.capture(true + jump_ns, true + 35 * MS)
        broken.append(clock.broken)
        assert quality == "B"
        assert capture == pytest.approx(true, abs=MS)  # the delay of its frames was learnt before
    assert broken == [True] + [False] * 99
    assert clock.report().quality == "B"
    assert clock.capture(100 * S + 200 * 40 * MS, 100 * S + 200 * 40 * MS + 35 * MS)[2] == "A"
    assert clock.broken


def test_now_is_the_monotonic_clock() -> None:
    first = now_ns()
    assert 0 <= now_ns() - first < S
