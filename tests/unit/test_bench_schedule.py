"""The schedule of a benchmark: due times that nothing moves, streams out of step; and what is counted of it."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import count, pairwise, takewhile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bench.schedule import Feed, block_samples, make_feeds, packets, trigger_period_ns
from mmedge.bench.tally import Answer, OpenLoop
from mmedge.bundle import AudioInput, ImageInput
from mmedge.bundle.manifest import Input, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.pipeline import Histogram, values_needed
from mmedge.types import Result

S = 1_000_000_000
IMAGE = ImageInput(size=(4, 4), mean=(0.0,), std=(1.0,), color="gray", frame=(8, 8))
RATES = st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000])
FPS = st.one_of(st.integers(1, 240).map(float), st.sampled_from([23.976, 29.97, 59.94, 12.5]))


def inputs_of(rate_hz: int) -> dict[str, Input]:
    return {
        "image": IMAGE,
        "second": IMAGE,
        "audio": AudioInput(sample_rate_hz=rate_hz, window_ms=100),
        "imu": TensorInput(shape=(1, 6), rate_hz=100.0),
        "text": TextInput(max_tokens=8, tokenizer="tokenizer.json"),
    }


@given(fps=FPS, rate_hz=RATES, number=st.integers(0, 10**8))
def test_due_times_never_drift(fps: float, rate_hz: int, number: int) -> None:
    inputs = inputs_of(rate_hz)
    for feed in make_feeds(inputs, Sync(trigger="image"), fps):
        assert abs(feed.due_ns(number) - feed.first_ns - number * feed.period_ns) < 1
        assert 0 <= feed.first_ns <= 2 * feed.period_ns + 1
    image, audio = (feed for feed in make_feeds(inputs, Sync(trigger="image"), fps) if feed.name in ("image", "audio"))
    # A day on, pictures are where the rate says, and sound has as many samples as the clock.
    assert float(image.period_ns) == pytest.approx(1e9 / fps, rel=1e-9)
    assert audio.period_ns == Fraction(audio.samples * S, rate_hz)
    assert audio.first_ns >= audio.period_ns  # a block is due with its last sample, and none is older than the start


@given(fps=FPS, rate_hz=RATES, since_ns=st.integers(-S, 10 * S), seed=st.sampled_from([None, 1, 2]))
def test_the_first_packet_from_a_time_on(fps: float, rate_hz: int, since_ns: int, seed: int | None) -> None:
    arrivals: Any = "fixed" if seed is None else "poisson"
    for feed in make_feeds(inputs_of(rate_hz), Sync(trigger="image"), fps, arrivals=arrivals, seed=seed or 0):
        number = feed.first_from(since_ns)
        assert feed.due_ns(number) >= since_ns
        assert number == 0 or feed.due_ns(number - 1) < since_ns


@given(fps=FPS, rate_hz=RATES)
def test_packets_come_in_the_order_of_their_due_times_and_none_is_left_out(fps: float, rate_hz: int) -> None:
    feeds = make_feeds(inputs_of(rate_hz), Sync(trigger="image"), fps)
    found = list(takewhile(lambda packet: packet[0] < 5 + 2 * S, packets(feeds, 5)))
    assert all(a[0] <= b[0] for a, b in pairwise(found))
    for index, feed in enumerate(feeds):
        want = list(takewhile(lambda due: due < 5 + 2 * S, (5 + feed.due_ns(k) for k in count())))
        assert [due for due, i, _ in found if i == index] == want
        assert [k for _, i, k in found if i == index] == list(range(len(want)))


def gap_within(trigger: Feed, other: Feed, period_ns: Fraction) -> float:
    """Return the widest gap between the phases of the trigger within the other's period, 0..1, over a minute."""
    due = np.array([trigger.due_ns(k) for k in range(max(200, int(60 * S / trigger.period_ns)))])
    phases = np.sort((due - other.first_ns) % float(period_ns) / float(period_ns))
    return float(max(np.diff(phases).max(), 1 - phases[-1] + phases[0]))


@settings(deadline=None)
@given(fps=FPS, rate_hz=RATES)
def test_no_two_streams_are_in_step(fps: float, rate_hz: int) -> None:
    feeds = {feed.name: feed for feed in make_feeds(inputs_of(rate_hz), Sync(trigger="image"), fps)}
    for name in ("second", "audio", "imu"):
        assert gap_within(feeds["image"], feeds[name], feeds[name].period_ns) < 0.25, name


@given(rate_hz=st.integers(4000, 192_000), limit_ms=st.floats(1, 100), fps=FPS)
def test_blocks_are_no_longer_than_asked(rate_hz: int, limit_ms: float, fps: float) -> None:
    room = max(1, round(rate_hz * limit_ms / 1e3))
    samples = block_samples(rate_hz, limit_ms / 1e3, S / Fraction(fps))
    assert room // 2 < samples <= room


@pytest.mark.parametrize(
    ("trigger", "period_ms"), [("image", 20), ("second", 20), ("imu", 10), ("audio", 40), ("timer", 40), ("text", 1000)]
)
def test_the_trigger_comes_as_asked(trigger: str, period_ms: float) -> None:
    inputs = inputs_of(16_000)
    sync = Sync(trigger=trigger, every_ms=40.0)
    assert trigger_period_ns(inputs, sync, 50.0) == period_ms * 1_000_000
    own = [feed for feed in make_feeds(inputs, sync, 50.0) if feed.name == trigger and not feed.samples]
    assert [feed.period_ns for feed in own] == ([] if trigger in ("audio", "timer") else [period_ms * 1_000_000])


def result(t_ns: int, done_ns: int) -> Result:
    fields: dict[str, Any] = {"tasks": {}, "present": {}, "age_ms": {}, "epoch": {}}
    latency = {"end_to_end": (done_ns - t_ns) / 1e6, "inferred": 1.0, "deliver": 0.0, "ready": 0.0}
    return Result(t_ns=t_ns, unix_ns=t_ns, status="ok", skew_ms=0, uncertainty_ms=0, latency_ms=latency, **fields)


@settings(deadline=None)
@given(
    hops=st.booleans(),
    answered=st.lists(st.booleans(), min_size=20, max_size=60),
    took_ms=st.lists(st.integers(1, 400), min_size=60, max_size=60),
)
def test_every_due_trigger_lasts_until_an_answer_as_new_as_it(
    hops: bool, answered: list[bool], took_ms: list[int]
) -> None:
    period_ns, base = 33_333_333, 7 * S
    due = [base + k * period_ns for k in range(len(answered))]
    from_ns, until_ns = due[5], due[-5]
    answers, done = [], 0
    for t_ns, on, ms in zip(due, answered, took_ms, strict=False):
        if on:
            done = max(done, t_ns + ms * 1_000_000)  # they are given in order
            answers.append((t_ns, done))
    tally = OpenLoop(None if hops else iter(base + k * period_ns for k in count()), period_ns)
    tally.begin(from_ns, until_ns)
    for t_ns, done_ns in answers:
        tally.add(result(t_ns, done_ns))
    now_ns = max(done, due[-1]) + S
    tally.close(now_ns)
    inside = [t_ns for t_ns in due if from_ns <= t_ns < until_ns]
    if not hops or answers:
        want = [(next((d for t, d in answers if t >= t_ns), now_ns) - t_ns) / 1e6 for t_ns in inside]
        assert tally.due == len(inside)
        assert sorted(tally.latencies["end_to_end"].values_ms()) == pytest.approx(sorted(want))
        assert tally.missed == [t_ns for t_ns in inside if t_ns not in dict(answers)]
    assert tally.answered == sum(from_ns <= t_ns < until_ns for t_ns, _ in answers)
    assert tally.latencies["answered"].n == tally.answered


def test_what_was_due_before_the_measured_time_is_not_counted() -> None:
    tally = OpenLoop(iter(k * 100_000_000 for k in count()), 1e8)
    tally.add(result(0, 5_000_000))
    tally.begin(250_000_000, 450_000_000)  # settled, while the second and third wait
    tally.add(result(200_000_000, 260_000_000))
    assert (tally.answered, tally.due, tally.latencies["end_to_end"].n) == (0, 0, 0)
    tally.add(result(400_000_000, 420_000_000))
    tally.add(result(500_000_000, 510_000_000))
    assert (tally.answered, tally.due) == (1, 2)
    assert tally.latencies["end_to_end"].values_ms().tolist() == [120, 20]


@given(fps=st.floats(1, 240), seed=st.integers(0, 99))
def test_random_arrivals_have_the_mean_rate_and_exponential_gaps(fps: float, seed: int) -> None:
    feed, _ = make_feeds(
        {"image": IMAGE, "text": inputs_of(8000)["text"]}, Sync(trigger="image"), fps, arrivals="poisson", seed=seed
    )
    again, _ = make_feeds(
        {"image": IMAGE, "text": inputs_of(8000)["text"]}, Sync(trigger="image"), fps, arrivals="poisson", seed=seed
    )
    assert again.due_ns(1500) == feed.due_ns(1500)  # whatever was asked before
    gaps_ns = np.diff([feed.due_ns(number) for number in range(3000)])
    assert gaps_ns.min() >= 1
    assert gaps_ns.mean() * fps / S == pytest.approx(1, abs=0.1)
    assert (gaps_ns > S / fps).mean() == pytest.approx(math.exp(-1), abs=0.05)


def test_hops_cannot_come_at_random() -> None:
    for trigger in ("audio", "timer"):
        with pytest.raises(ConfigError, match="hops of equal length"):
            make_feeds(inputs_of(8000), Sync(trigger=trigger, every_ms=40.0), 30.0, arrivals="poisson")


def test_an_answer_to_no_picture_is_none_to_those_that_were_due() -> None:
    tally = OpenLoop(iter(k * 100_000_000 for k in count()), 1e8)
    tally.begin(0, 10 * S)
    tally.add(result(0, 5_000_000))
    tally.add(result(150_000_000, 155_000_000))  # a hop while the camera was thought missing
    assert (tally.answered, tally.due) == (1, 1)
    tally.add(result(200_000_000, 310_000_000))
    assert (tally.answered, tally.due) == (2, 3)
    assert tally.latencies["end_to_end"].max_ns == 210_000_000
    assert tally.missed == [100_000_000]


@given(percent=st.sampled_from([50.0, 90.0, 99.0, 99.9]), extra=st.integers(-40, 40))
def test_a_percentile_is_told_where_a_value_is_expected_above_it(percent: float, extra: int) -> None:
    needed = values_needed(percent)
    assert needed * (1 - percent / 100) == pytest.approx(1)
    histogram = Histogram()
    for number in range(max(0, needed + extra)):
        histogram.add(1_000_000 + number)
    name = {50.0: "p50", 90.0: "p90", 99.0: "p99", 99.9: "p99.9"}[percent]
    value = histogram.summary().to_dict()[name]
    assert (value is None) == (extra < 0)
    assert math.isnan(getattr(histogram.summary(), name.replace("99.9", "999"))) == (extra < 0)
    assert histogram.summary().n == histogram.n


def test_a_long_run_keeps_few_of_its_answers_and_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.bench.tally.MOST", 100)
    tally = OpenLoop((k * 1_000_000 for k in count()), 1e6, ("network",))
    tally.begin(0, 10 * S)
    for k in range(1000):
        start = k * 1_000_000
        tally.note(Answer.of_call(start, start, start + 10, start + (900 if k == 777 else 500)))
    assert 50 <= len(tally.answers) <= 100
    gaps_ns = np.diff([answer.t_ns for answer in tally.answers])
    assert gaps_ns.min() == gaps_ns.max() == 16_000_000  # evenly
    assert tally.worst is not None
    assert tally.worst.t_ns == 777_000_000
    assert tally.stages["network"].engine.n == tally.answered == 1000  # figures are of all of them
