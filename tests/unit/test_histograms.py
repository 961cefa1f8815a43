"""The statistics' histograms, for other programs: nothing is lost, and bounds are true."""

from __future__ import annotations

import copy
import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmedge.pipeline import Histogram, Statistics


@given(st.lists(st.integers(0, 10**13), max_size=60))
def test_buckets_hold_what_was_added(durations_ns: list[int]) -> None:
    histogram = Histogram()
    for duration_ns in durations_ns:
        histogram.add(duration_ns)
    upper_ms, counts = histogram.buckets()
    assert counts.sum() == histogram.n == len(durations_ns)
    assert (counts > 0).all()
    assert (np.diff(upper_ms) > 0).all()
    assert histogram.sum_ms == sum(durations_ns) / 1e6
    for duration_ns in durations_ns:
        holding = int(np.searchsorted(upper_ms * (1 + 1e-9), max(duration_ns, 1000) / 1e6))
        assert holding < len(upper_ms) or duration_ns > 6 * 3600 * 10**9
    counts[...] = 0
    assert histogram.buckets()[1].sum() == histogram.n


def test_every_histogram_has_its_name() -> None:
    statistics = Statistics()
    statistics.received.add(5_000_000)
    assert statistics.histograms["received"].n == 1
    assert {"end_to_end", "overhead", "skew", "sink", "inferred", "deliver"} <= statistics.histograms.keys()


def test_statistics_are_copied_and_kept() -> None:
    statistics = Statistics()
    statistics.received.add(2_000_000)
    copies = copy.deepcopy(statistics), pickle.loads(pickle.dumps(statistics))
    statistics.received.add(5_000_000)
    assert [copied.received.n for copied in copies] == [1, 1]
    assert statistics.received.n == 2
