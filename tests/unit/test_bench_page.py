"""The page of a report: restarts and drops are on its time line, names of others are text, and it stays small."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bench.charts import Bar, histogram, ticks, time_line, waterfall
from mmedge.bench.page import bars_of, page
from mmedge.bench.report import Rate, Report
from mmedge.bench.samples import Samples
from mmedge.bench.sweep import Point, Sweep, sweep
from mmedge.bench.tally import OpenLoop, Tally, read_answer
from mmedge.bench.watch import Event
from mmedge.errors import ConfigError
from mmedge.pipeline import Statistics
from mmedge.types import Result

MS = 1_000_000


def result(number: int, *, epoch: int = 0) -> Result:
    """Return that of a trigger every 10 ms: 2 ms to the runtime, 1 ms of waiting, two stages of 1 ms, one behind."""
    t_ns = 1000 * MS + 10 * number * MS
    delivered = t_ns + 2 * MS
    head = struct.pack("=5q", delivered, MS, t_ns + 3 * MS, t_ns + 6 * MS, t_ns + 7 * MS)
    runs = [(0, 3.0, 3.5, 3.5, 4.5), (1, 4.5, 5.0, 5.0, 6.0), (2, -25.0, -24.0, -24.0, -1.0)]
    spans = b"".join(struct.pack("=5q", place, *(t_ns + round(at * MS) for at in times)) for place, *times in runs)
    latency = {"end_to_end": 7.0, "received": 7.5, "inferred": 2.0, "deliver": 2.0, "ready": 1.0, "overhead": 2.0}
    fields: dict[str, Any] = {"tasks": {}, "present": {}, "age_ms": {"image": 0.0}, "epoch": {"image": epoch}}
    made = Result(t_ns=t_ns, unix_ns=t_ns, status="ok", skew_ms=0.1, uncertainty_ms=0.1, latency_ms=latency, **fields)
    return made.attach({}, from_ns=t_ns, spans=head + spans)


def report(answers: int, name: str = "a bundle", stages: tuple[str, ...] = ("eye", "ear", "slow")) -> Report:
    tally = OpenLoop((1000 * MS + 10 * k * MS for k in count()), 10 * MS, stages)
    tally.begin(1000 * MS, 1000 * MS + 10 * MS * answers)
    for number in range(answers):
        if number % 10 != 4:
            tally.add(result(number, epoch=number // (answers // 2)))
    tally.close(1000 * MS + 10 * MS * answers)
    rate = Rate(asked_hz=100.0, measured_s=answers / 100, due=tally.due, answered=tally.answered)
    return Report(
        bundle=name,
        conditions={"machine": "a board", "settled": True},
        statistics=Statistics(),
        tally=tally,
        rate=rate,
        startup_ms={"engines": 100.0, "until settled": 1500.0},
        processes=[{"name": "runtime", "cpu_share": 0.1, "pss_mib": 50.0}],
        events=[Event(1100 * MS, "image: RECONNECTING")],
    )


def test_drops_restarts_and_events_are_on_the_time_line() -> None:
    found = report(100)
    assert found.tally.marks == [(1000 * MS + 500 * MS, "restart of image")]
    text = page(found)
    assert text.count('class="lost"') == 10
    for what in ("restart of image", "image: RECONNECTING", "NOT VALID", "100 / 90"):
        assert what in text
    for chart in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(chart)  # well-formed


# 7 ms end to end, of which 2 to the runtime and 1 until it is ready; engines 2 ms.
@pytest.mark.parametrize(
    ("complete_ms", "share", "others"),
    [(0.0, 3.5, None), (2.25, 2.375, (2, 2.25)), (2.75, 2.125, (2, 2.75)), (9.0, 2.0, (2, 3)), (None, 2.0, (2, 3))],
)
def test_what_passes_once_all_was_handed_over_is_the_runtimes_own(
    complete_ms: float | None, share: float, others: tuple[float, float] | None
) -> None:
    complete_ns = None if complete_ms is None else lambda t_ns: t_ns + round(complete_ms * MS)
    due_ns = (1000 * MS + 10 * k * MS for k in count())
    tally = OpenLoop(due_ns, 10 * MS, ("eye", "ear", "slow"), complete_ns=complete_ns)
    tally.begin(1000 * MS, 2000 * MS)
    for number in range(10):
        tally.add(result(number))
    assert tally.share.percentile_ms(50) == share
    bars = {bar.name: bar for bar in bars_of(tally.answers[0], tally.names)}
    waited = bars.get("the other inputs")
    assert (waited and (waited.from_ms, waited.until_ms)) == others
    own = bars.get("into the runtime")
    assert (own and (own.from_ms, own.until_ms)) == (None if others == (2, 3) else ((others or (2, 2))[1], 3))
    assert {bar.kind for bar in bars.values()} == {"wait", "rest", "feed", "engine"}


@pytest.mark.parametrize(("alone", "share"), [(False, 2.0), (True, 2.5)])
def test_with_sources_of_ones_own_the_way_of_the_data_is_waiting(alone: bool, share: float) -> None:
    tally = Tally(("eye", "ear", "slow"), alone=alone)
    tally.begin(0)
    tally.add(result(0))
    assert tally.share.percentile_ms(50) == share


@pytest.mark.parametrize("kept", [(True, True, False, False), (True, True), (False,)])
def test_the_page_of_a_sweep_shows_the_knee(kept: tuple[bool, ...], tmp_path: Path) -> None:
    points = []
    for number, is_kept in enumerate(kept, 1):
        made = report(200)
        due = made.rate.answered if is_kept else made.rate.due
        points.append(Point(30.0 * number, replace(made, rate=replace(made.rate, due=due))))
    found = Sweep(tuple(points))
    text = found.save(tmp_path / "sweep.html").read_text()
    (chart,) = re.findall(r"<svg.*?</svg>", text)
    tree = ElementTree.fromstring(chart)
    classes = [element.get("class", "") for element in tree.iter("circle")]
    assert sum(each.endswith("kept") for each in classes) == 3 * sum(kept)  # p50, p90, p99
    assert sum(each.endswith("missed") for each in classes) == 3 * (len(kept) - sum(kept))
    marks = [element for element in tree.iter("line") if element.get("class") == "mark"]
    assert len(marks) == (found.knee_hz is not None)
    assert ("NOT VALID" in text) == (found.knee_hz is None)
    assert json.loads(found.save(tmp_path / "sweep.json").read_text())["knee_hz"] == found.knee_hz
    for part in ("<script", "nan", "http:"):
        assert part not in text
    with pytest.raises(ConfigError, match="cannot be written as"):
        found.save(tmp_path / "sweep.txt")


MADE = report(200)  # a tenth of its triggers was missed


@given(low_hz=st.floats(0.001, 999), width=st.floats(1.0001, 1e6), knee=st.floats(0, 1))
def test_a_sweep_asks_for_no_rate_beyond_its_ends(low_hz: float, width: float, knee: float) -> None:
    high_hz = min(low_hz * width, 1000.0)
    asked: list[float] = []

    def measure(rate_hz: float) -> Report:
        asked.append(rate_hz)
        is_kept = rate_hz <= low_hz + knee * (high_hz - low_hz)
        return replace(MADE, rate=replace(MADE.rate, due=MADE.rate.answered) if is_kept else MADE.rate)

    found = sweep(low_hz, high_hz, measure)
    assert all(low_hz <= rate_hz <= high_hz for rate_hz in asked)
    assert asked[0] == low_hz
    assert found.missed_hz is not None or max(asked) == high_hz


def test_the_page_does_not_grow_with_the_run() -> None:
    assert len(page(report(20_000))) < 2.5 * len(page(report(3_000)))


def test_a_name_of_somebody_else_is_text() -> None:
    text = page(report(20, "<script>alert(1)</script>", ("<b>eye", "ear\u202e", "slow")))
    assert "<script" not in text
    assert "<b>eye" not in text
    assert "\u202e" not in text


def test_the_waterfall_has_each_part_where_it_was() -> None:
    bars = bars_of(read_answer(result(0)), ("eye", "ear", "slow"))
    assert [(bar.name, bar.from_ms, bar.until_ms) for bar in bars] == [
        ("to the runtime", 0, 2),
        ("the other inputs", 2, 3),
        ("eye: tensors", 3, 3.5),
        ("eye: engine", 3.5, 4.5),
        ("ear: tensors", 4.5, 5),
        ("ear: engine", 5, 6),
        ("interpreting", 6, 7),
        ("to the reader", 7, 7.5),
    ]  # and not what a background stage did long before


@given(
    values=st.lists(st.integers(0, 10**12), min_size=1, max_size=50),
    missed=st.lists(st.floats(0, 1e4), max_size=5),
    label=st.text(max_size=20),
)
def test_charts_of_whatever_comes_are_well_formed(values: list[int], missed: list[float], label: str) -> None:
    samples = Samples()
    for value in values:
        samples.add(value)
    times = np.arange(len(values), dtype=np.float64)
    for chart in (
        histogram(samples, label),
        time_line(times, samples.values_ms(), missed, [(1.0, label)]),
        time_line(times[:0], samples.values_ms()[:0], missed, []),
        waterfall([Bar(label, 0.0, value / 1e6, "engine") for value in values], label),
    ):
        ElementTree.fromstring(chart)
        assert "nan" not in chart.replace(label, "")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4000), (0.001, 0.0012), (5, 5)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
