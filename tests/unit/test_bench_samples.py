"""Percentiles are exact, their intervals hold, and what n values cannot tell is not told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bench.compare import compare, ratio_between
from mmedge.bench.samples import Samples, inefficiency, levels
from mmedge.bench.warm_up import WarmUp


def samples_of(values_ms: list[float]) -> Samples:
    found = Samples()
    for value in values_ms:
        found.add(round(value * 1e6))
    return found


@given(
    values=st.lists(st.integers(0, 10**10), min_size=1, max_size=300), percent=st.sampled_from([50.0, 90.0, 99.0, 99.9])
)
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[int], percent: float) -> None:
    found = Samples()
    for value in values:
        found.add(value)
    told = round(found.percentile_ms(percent) * 1e6)
    assert told in values
    assert sum(value <= told for value in values) >= len(values) * percent / 100 - 1e-9
    assert sum(value < told for value in values) < len(values) * percent / 100
    low, high = found.interval_ms(percent)
    assert low is None or low * 1e6 <= told + 1
    assert high is None or high * 1e6 >= told - 1


@given(n=st.integers(1, 5000), share=st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_levels_hold_with_the_confidence_that_is_asked_for(n: int, share: float) -> None:
    low, high = (round(level * n) for level in levels(n, share))
    assert 0 <= low <= n * share <= high <= n + 1
    # The quantile lies between the order statistics: as many values below it as at least low, fewer than high.
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(low, min(high, n + 1))
    ]
    assert sum(map(math.exp, logs)) >= 0.95 - 1e-9


def test_few_values_bound_nothing() -> None:
    assert samples_of([1, 2, 3, 4, 5]).interval_ms(50) == (None, None)
    assert samples_of([3, 1, 2, 5, 4, 6] * 30).interval_ms(99.9)[1] is None
    assert samples_of([]).interval_ms(50) == (None, None)
    figures = samples_of([3, 1, 2] * 5).summary().to_dict()
    assert figures["p99"] is None
    assert set(figures["interval"]) == {"p50", "p90"}  # type: ignore[call-overload]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("percent", [50.0, 90.0])
def test_intervals_hold_in_bursts_as_well(correlation: float, percent: float) -> None:
    rng, held, runs, n = np.random.default_rng(7), 0, 150, 900
    exact = float(np.exp({50.0: 0.0, 90.0: 1.2815515655}[percent]))
    for _ in range(runs):
        noise, values = rng.normal(0, 1, n), np.empty(n)
        values[0] = noise[0]
        for k in range(1, n):
            values[k] = correlation * values[k - 1] + math.sqrt(1 - correlation**2) * noise[k]
        low, high = samples_of(np.exp(values).tolist()).interval_ms(percent)
        held += (low is None or low <= exact) and (high is None or exact <= high)
    assert held / runs >= 0.88  # of 0.95, which finite runs in bursts do not quite reach


def test_values_in_a_row_are_worth_fewer() -> None:
    rng = np.random.default_rng(3)
    steps = np.repeat(rng.normal(0, 1, 300), 10)
    assert 8 < inefficiency(steps) < 14
    assert inefficiency(rng.normal(0, 1, 3000)) < 1.5
    assert inefficiency(np.zeros(10)) == 1.0


def test_a_warm_up_ends_when_latencies_are_steady() -> None:
    rng = np.random.default_rng(0)
    falling = WarmUp(0, 10e6)
    over = next(k for k in range(3000) if falling.over(10_000_000 * k, 5 + 50 * math.exp(-k / 60) + rng.normal(0, 0.1)))
    assert falling.settled
    assert 250 < over < 700
    growing = WarmUp(0, 10e6, 6.0)  # a queue that grows never settles
    over = next(k for k in range(3000) if growing.over(10_000_000 * k, 5 + 0.5 * k))
    assert (over, growing.settled) == (600, False)


def report(scale: float, **conditions: str) -> dict[str, object]:
    figures = {
        "p50": 10 * scale,
        "p90": 12 * scale,
        "interval": {"p50": [9.8 * scale, 10.2 * scale], "p90": [11 * scale, None]},
    }
    told = {"end_to_end": figures, "overhead": figures, "steps": {}}
    return {"latency_ms": told, "stages_ms": {}, "problem": None, "conditions": {"machine": "a", **conditions}}


def test_a_regression_is_one_where_both_are_known_well_enough() -> None:
    assert ratio_between((None, 11.0), (10.0, 12.0)) == (None, 1.1)
    assert compare(report(1.0), report(1.0), 0.05).regressions == []
    slower = compare(report(1.2), report(1.0), 0.05)
    assert [change.what for change in slower.regressions] == ["end_to_end p50"]  # of the p90 no upper bound is known
    assert slower.regressions[0].interval == pytest.approx((1.2 * 9.8 / 10.2, 1.2 * 10.2 / 9.8))
    assert compare(report(1.05), report(1.0), 0.05).regressions == []  # it may be less
    elsewhere = compare(report(1.2), report(1.0, machine="b"), 0.05)
    assert elsewhere.regressions == []
    assert elsewhere.differences == ["machine: a here, b there"]
    assert not elsewhere.to_dict()["gated"]
