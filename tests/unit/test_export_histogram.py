"""Rules that need a distribution get it in one pass: against what numpy finds with all values at hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.export.int8.histogram import BINS, CENTRES, count, least_divergence, least_error, percentile
from mmedge.export.int8.ranges import RULES, RangeCollector
from tests.unit.test_export_ranges import frames, model

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200)


@given(VALUES)
def test_every_value_is_counted_once_within_two_per_cent(values):
    array = np.array(values, np.float32)
    counts = count(array)
    assert counts.sum() == array.size
    for value in np.abs(array[np.abs(array) > 1e-9]):
        (near,) = np.flatnonzero(count(value[None]))
        assert CENTRES[near] == pytest.approx(value, rel=0.016)


@given(seed=st.integers(0, 500), share=st.floats(0.5, 1.0), scale=st.floats(1e-4, 1e4))
@settings(deadline=None)
def test_percentile_is_numpys(seed, share, scale):
    values = np.random.default_rng(seed).normal(0, scale, 5000).astype(np.float32)
    want = np.quantile(np.abs(values), share, method="inverted_cdf")
    assert percentile(count(values), share) == pytest.approx(want, rel=0.02)


def quantisation_error(values: np.ndarray, cut: float) -> float:
    step = cut / 127
    return float(np.square(np.clip(np.round(values / step), -127, 127) * step - values).mean())


@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "outlier"])
def test_least_error_is_as_good_as_a_search_over_all_values(shape):
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.normal(size=40000),
        "laplace": rng.laplace(size=40000),
        "relu": np.maximum(rng.normal(size=40000), 0),
        "outlier": np.r_[rng.normal(size=40000), 50.0],
    }[shape].astype(np.float32)
    largest = float(np.abs(values).max())
    best = min(quantisation_error(values, largest * 2.0**-k) for k in np.arange(0, 6, 0.05))
    assert quantisation_error(values, least_error(count(values), largest)) < 1.05 * best


def test_least_divergence_cuts_a_far_outlier_and_little_else():
    values = np.random.default_rng(2).normal(size=100000).astype(np.float32)
    plain = least_divergence(count(values), float(np.abs(values).max()))
    assert 2.0 < plain <= np.abs(values).max() * 1.001
    far = np.r_[values, np.float32(60)]
    assert least_divergence(count(far), 60.0) < 30


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_each_tensor_a_range_within_what_was_seen(rule):
    collector = RangeCollector(model(), ["x", "m", "y"], values=True, shapes=dict.fromkeys("xmy", (1, 1000)))
    for x in frames(20):
        collector({"x": x})
    found, largest = collector.thresholds(rule), collector.largest
    assert found.keys() == largest.keys()
    for name in found:
        assert 0 < found[name] <= largest[name] * 1.001
        assert found[name] > largest[name] / 10


@pytest.mark.parametrize("size", [10, 16384, 16385, 100_000, 3_000_001])
def test_a_large_tensor_is_sampled_to_a_bounded_number_of_its_values(size):
    from mmedge.export.int8.ranges import _VALUES, _add_sample
    from mmedge.export.judge import judge
    from tests.unit.test_export_kinds import NODE, net

    network = net([NODE("Relu", ["x"], ["y"], name="r")], [1, size], {})
    network.graph.initializer.add(name="mmedge/flat", data_type=7, dims=[1]).int64_data.append(-1)
    _add_sample(network.graph, "y", "mmedge/sample0", "mmedge/flat", size)
    del network.graph.output[0]
    with judge(network) as engine:
        sample = engine({"x": np.arange(size, dtype=np.float32)[None]})["mmedge/sample0"]
    assert min(size, _VALUES // 3) <= sample.size <= _VALUES
    steps = np.diff(sample)
    assert steps.size == 0 or (steps == steps[0]).all()
    assert sample[-1] >= size - 1 - max(1, steps.max(initial=0))


def test_bins_are_few():
    assert BINS == 4096
