"""Resampling on a timeline, and the microphone's choice of clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.capture.sound import MonoTrack, Piece
from mmedge.capture.stamps import MicrophoneClock, Stamp

S = 1_000_000_000


def bump(t: np.ndarray, at_s: float) -> np.ndarray:
    """Return a smooth bump, whose centre of mass tells the time."""
    return np.exp(-0.5 * ((t - at_s) / 0.003) ** 2).astype(np.float32)


def centre_s(pieces: list[Piece], rate_hz: int) -> float:
    times = np.concatenate(
        [p.end_ns / S - (len(p.samples) - np.arange(len(p.samples))) / rate_hz for p in pieces if len(p.samples)]
    )
    samples = np.concatenate([p.samples for p in pieces]).astype(np.float64)
    return float((times * samples).sum() / samples.sum())


@pytest.mark.parametrize(
    ("rate_in", "rate_out"), [(48000, 8000), (44100, 16000), (24000, 8000), (8000, 8000), (8000, 16000)]
)
@pytest.mark.parametrize("low_delay", [False, True])
def test_time_of_the_output_is_exact(rate_in: int, rate_out: int, low_delay: bool) -> None:
    track = MonoTrack(rate_in, rate_out, low_delay=low_delay)
    samples = bump(np.arange(rate_in) / rate_in, 0.5)
    pieces, worst_lag_ns = [], 0
    hop = rate_in // 100
    for first in range(0, rate_in, hop):
        chunk = samples[first : first + hop]
        pieces += list(track.feed(chunk, 3 * S + first * S // rate_in))
        if pieces:
            worst_lag_ns = max(worst_lag_ns, 3 * S + (first + len(chunk)) * S // rate_in - pieces[-1].end_ns)
    pieces += list(track.finish())
    limit_s = 2 / rate_out if low_delay else 1e-6
    assert centre_s(pieces, rate_out) == pytest.approx(3.5, abs=limit_s)
    assert sum(len(p.samples) for p in pieces) == rate_out
    assert max(len(p.samples) for p in pieces) <= rate_out // 100
    assert pieces[-1].end_ns == 4 * S
    if low_delay:
        assert worst_lag_ns < 45_000_000


def test_a_gap_is_counted_and_the_rest_stays_in_place() -> None:
    track = MonoTrack(48000, 8000)
    t = np.arange(48000) / 48000
    samples = bump(t, 0.8)
    pieces: list[Piece] = []
    for first in [*range(0, 14400, 480), *range(28800, 48000, 480)]:  # 0.3 s to 0.6 s are missing
        pieces += list(track.feed(samples[first : first + 480], first * S // 48000))
    pieces += list(track.finish())
    assert [p.lost for p in pieces if p.lost] == [2400]
    assert track.lost == 2400
    assert centre_s(pieces, 8000) == pytest.approx(0.8, abs=1e-6)
    for before, after in pairwise(pieces):
        assert after.end_ns - before.end_ns == pytest.approx((after.lost + len(after.samples)) * 125_000, abs=2)


def test_overlaps_are_cut_and_jitter_is_not_followed() -> None:
    track = MonoTrack(8000, 8000)
    samples = np.ones(800, np.float32)
    ends = [p.end_ns for p in track.feed(samples, 0)]
    assert list(track.feed(samples, 0)) == []  # the same block again
    ends += [p.end_ns for p in track.feed(samples, 50_000_000)]  # half of it is old
    assert ends[-1] == 150_000_000
    assert track.overlapped == 1200
    (piece,) = track.feed(samples[:80], 150_900_000)  # a rounded stamp
    assert abs(piece.end_ns - 160_000_000) < 10_000
    assert track.lost == 0


def test_a_hole_moves_the_time_without_samples() -> None:
    track = MonoTrack(8000, 8000)
    assert list(track.hole(S)) == []  # nothing came yet, so nothing is missing
    list(track.feed(np.ones(80, np.float32), S))
    (hole,) = track.hole(2 * S)
    assert (len(hole.samples), hole.end_ns, hole.lost) == (0, 2 * S, 7920)
    (piece,) = track.feed(np.ones(80, np.float32), 3 * S)
    assert piece.lost == 8000


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([8000, 16000, 22050]),
    st.lists(st.tuples(st.integers(1, 3000), st.integers(-40, 400)), min_size=1, max_size=30),
)
def test_samples_and_losses_account_for_all_time(rate_in: int, blocks: list[tuple[int, int]]) -> None:
    track = MonoTrack(rate_in, 8000)
    start = 0
    pieces: list[Piece] = []
    for count, gap_ms in blocks:
        start = max(0, start + gap_ms * 1_000_000)
        pieces += list(track.feed(np.zeros(count, np.float32), start))
        start += count * S // rate_in
    pieces += list(track.finish())
    for before, after in pairwise(pieces):
        span_ns = (after.lost + len(after.samples)) * 125_000
        assert after.end_ns - before.end_ns == pytest.approx(span_ns, abs=400_000)


def stamps(adc_age_ns: int | None, current_age_ns: int, origin_ns: int = 0) -> list[Stamp]:
    base = 1000 * S
    return [
        Stamp(
            samples=80 * k,
            entry_ns=base + k * 10_000_000,
            adc_ns=0 if adc_age_ns is None else base + origin_ns + k * 10_000_000 - adc_age_ns,
            current_ns=base + origin_ns + k * 10_000_000 - current_age_ns,
        )
        for k in range(1, 202)
    ]


def chosen(seen: list[Stamp]) -> str:
    clock = MicrophoneClock("mic", 8000)
    for stamp in seen:
        clock.observe(stamp)
    return clock.quality


def test_quality_ladder() -> None:
    assert chosen(stamps(8_000_000, 1_000_000)) == "A"
    assert chosen(stamps(None, 1_000_000)) == "B"
    assert chosen(stamps(900_000_000, 1_000_000)) == "B"  # too old to be true
    assert chosen(stamps(8_000_000, 1_000_000, origin_ns=10**18)) == "C"  # the wall clock
    doubled = [Stamp(s.samples, s.entry_ns, s.entry_ns - 5_000_000 * (k % 4), 0) for k, s in enumerate(stamps(0, 0))]
    assert chosen(doubled) == "C"  # keeps no pace
