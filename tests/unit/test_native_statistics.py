"""The native statistics count and round as plain Python does, to the same bits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.pipeline import Histogram, Statistics
from tests.oracle import statistics as oracle

TIMES = st.one_of(st.integers(0, 10**9), st.integers(-(10**6), 10**16))


@given(st.lists(st.one_of(TIMES, st.integers(0, 45).map(lambda k: 1000 * 2**k)), max_size=40))
def test_a_histogram_counts_as_before(durations_ns: list[int]) -> None:
    ours, theirs = Histogram(), oracle.Histogram()
    for duration_ns in durations_ns:
        ours.add(duration_ns)
        theirs.add(duration_ns)
    assert ours.counts().tolist() == theirs.counts.tolist()
    assert (ours.n, ours.max_ns, ours.sum_ns) == (theirs.n, theirs.max_ns, theirs.sum_ns)
    copy = Histogram()
    copy.add(77)
    copy.load(ours.dump())
    assert copy.dump() == ours.dump()
    assert copy.n == ours.n
    sent = Histogram()
    sent.add(77)
    sent.unpack(ours.pack(), ours.sum_ns, ours.max_ns)
    assert (sent.dump(), sent.n) == (ours.dump(), ours.n)


def test_what_does_not_fit_is_as_long_as_can_be_told() -> None:
    histogram = Histogram()
    histogram.add(10**30)
    histogram.add(np.int64(5_000_000))  # type: ignore[arg-type]
    assert (histogram.n, histogram.max_ns, histogram.counts()[-1]) == (2, 2**63 - 1, 1)
    with pytest.raises(TypeError):
        histogram.add(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such bucket"):
        histogram.replace([2400], [1], 0, 0)
    with pytest.raises(ValueError, match="one count"):
        histogram.replace([1, 2], [1], 0, 0)
    for packed in (b"\0", b"\xff" * 30, histogram.pack() + b"\0\1", histogram.pack() + b"\0"):
        with pytest.raises(ValueError, match="not of a histogram"):
            histogram.unpack(packed, 0, 0)


@given(st.floats(), st.integers(0, 15))
@example(0.0005, 3)
@example(0.0625, 3)
@example(-0.00001, 4)
@example(4503599627370495.5, 1)
@example(1.7976931348623157e308, 15)
def test_rounding_is_that_of_python(value: float, digits: int) -> None:
    assert repr(core.round_decimals(value, digits)) == repr(round(value, digits))


@given(st.integers(-(10**7), 10**7), st.integers(0, 6))
def test_rounding_of_ties_is_that_of_python(number: int, digits: int) -> None:
    value = number / 2 / 10**digits
    assert repr(core.round_decimals(value, digits)) == repr(round(value, digits))
    assert core.round_values({"a": value, "b": 1.0}, digits) == {"a": round(value, digits), "b": 1.0}


@pytest.mark.parametrize("origin", ["capture", "delivery", "call"])
@given(data=st.data())
def test_the_times_of_a_trigger(origin: Literal["capture", "delivery", "call"], data: st.DataObject) -> None:
    capture, delivered, start, inferred, end, waited, preprocessing, engines, stamp = (
        data.draw(st.integers(0, 10**12)) for _ in range(9)
    )
    skew, uncertainty = (data.draw(st.floats(0, 1e4)) for _ in range(2))
    statistics = Statistics()
    from_ns, latency_ms = statistics.times(origin).add(
        capture, delivered, start, inferred, end, waited, preprocessing, engines, stamp, skew, uncertainty
    )
    wait = waited if origin != "call" else 0
    assert from_ns == {"capture": capture, "delivery": delivered, "call": start}[origin]
    end_to_end = max(end - from_ns, 0)
    deliver = max(delivered - from_ns, 0) if origin == "capture" else 0
    steps_ns = {
        "end_to_end": end_to_end,
        "overhead": max(end_to_end - engines - deliver - wait, 0),
        "deliver": deliver,
        "ready": wait,
        "preprocessed": preprocessing,
        "inferred": engines,
        "interpreted": end - inferred,
    }
    assert list(latency_ms.items()) == [(name, round(ns / 1e6, 3)) for name, ns in steps_ns.items()]
    told = {name: h.sum_ns for name, h in statistics.histograms.items() if h.n}
    told_ns = steps_ns | {"skew": round(skew * 1e6), "uncertainty": round(uncertainty * 1e6)}
    assert told == told_ns | ({"stamps": stamp} if origin == "capture" else {})


def test_times_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite times"):
        Statistics().times("capture").add(0, 0, 0, 0, 0, 0, 0, 0, 0, float("inf"), 0.0)
