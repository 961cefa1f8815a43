"""Smoothing over capture time: what a recorded sequence gains and pays, and what always holds."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import Debounce, Ema, Hysteresis, Smoothing, Task
from mmedge.interpret import Interpreter, make_interpreter
from mmedge.interpret.smoothing import Smoother
from mmedge.types import Snapshot

# The shipped digits bundle without smoothing over its noisy clip: [ms, probability of each label] of every frame.
RECORDED = Path(__file__).parents[1] / "recorded" / "digits_noise.jsonl"
DIGITS = (*map(str, range(10)), "none")
TRUTH, SEGMENT_MS = "3141592653", 1600


def interpreter(*smoothing: Smoothing, threshold: float = 0.5, kind: str = "classification") -> Interpreter:
    labels = DIGITS if kind == "classification" else ("no", "yes")
    task = Task(  # type: ignore[arg-type]
        kind=kind, output="s.y", labels="l", scores="probabilities", threshold=threshold, smoothing=smoothing
    )
    return make_interpreter("t", task, labels)


def at(t_ms: float) -> Snapshot:
    return Snapshot(t_ns=round(t_ms * 1e6), seq=0, present={"image": True, "audio": True})


def play(*smoothing: Smoothing) -> tuple[int, float, float]:
    """Return how often the answer changes, the median ms until a new digit is told, the share of right answers."""
    interpret, told = interpreter(*smoothing), []
    for line in RECORDED.read_text().splitlines():
        t_ms, scores = json.loads(line)
        told.append((t_ms, interpret(np.array([scores], np.float32), at(t_ms)).label))
    first = [
        min((t - SEGMENT_MS * k for t, label in told if t // SEGMENT_MS == k and label == digit), default=SEGMENT_MS)
        for k, digit in enumerate(TRUTH)
    ]
    flips = sum(a != b for (_, a), (_, b) in pairwise(told))
    right = np.mean([label == TRUTH[min(t // SEGMENT_MS, 9)] for t, label in told])
    return flips, float(np.median(first)), float(right)


# Ten digits: nine changes are right.
@pytest.mark.parametrize(
    ("smoothing", "flips", "delay_ms", "right"),
    [
        ((), (30, 40), (0, 0), 0.9),
        ((Ema(tau_ms=200),), (15, 25), (80, 200), 0.8),
        ((Hysteresis(enter=0.8, leave=0.3),), (9, 15), (0, 40), 0.7),
        ((Debounce(hold_ms=200),), (9, 12), (200, 240), 0.75),
        ((Ema(tau_ms=100), Hysteresis(enter=0.7, leave=0.3), Debounce(hold_ms=120)), (9, 12), (160, 320), 0.65),
    ],
)
def test_a_recorded_sequence_gets_steadier_and_later(
    smoothing: tuple[Smoothing, ...], flips: tuple[int, int], delay_ms: tuple[float, float], right: float
) -> None:
    found, delay, share = play(*smoothing)
    assert flips[0] <= found <= flips[1]
    assert delay_ms[0] <= delay <= delay_ms[1]
    assert share >= right


def test_hysteresis_takes_up_keeps_and_drops() -> None:
    interpret = interpreter(Hysteresis(enter=0.7, leave=0.4))
    told = []
    for a, b in [(0.6, 0.2), (0.72, 0.1), (0.45, 0.5), (0.42, 0.6), (0.3, 0.6), (0.2, 0.72), (0.72, 0.2)]:
        scores = np.array([[a, b, *[0.0] * 9]], np.float32)
        told.append(interpret(scores, at(0)).label)
    assert told == [None, "0", "0", "0", None, "1", "0"]


def test_the_score_is_that_of_the_label_that_is_told() -> None:
    interpret = interpreter(Hysteresis(enter=0.7, leave=0.3), Debounce(hold_ms=100))
    for t_ms, told in [(0, (None, 0.8)), (90, (None, 0.8)), (100, ("0", 0.8))]:
        result = interpret(np.array([[0.8, *[0.0] * 10]], np.float32), at(t_ms))
        assert (result.label, result.score) == told
    result = interpret(np.array([[0.1, 0.9, *[0.0] * 9]], np.float32), at(120))
    assert (result.label, result.score) == ("0", 0.1)


def test_verification_is_smoothed_like_the_rest() -> None:
    interpret = interpreter(Hysteresis(enter=0.8, leave=0.4), Debounce(hold_ms=50), kind="verification")
    told = []
    for k, score in enumerate([0.7, 0.7, 0.7, 0.9, 0.5, 0.5, 0.3, 0.3, 0.3]):
        told.append(interpret(np.array([[score]], np.float32), at(40 * k)).label)
    assert told == [None, None, "no", "no", "no", "yes", "yes", "yes", "no"]


@pytest.mark.parametrize(
    "smoothing", [Ema(tau_ms=10_000), Hysteresis(enter=0.9, leave=0.1), Debounce(hold_ms=30)], ids=str
)
def test_a_reset_forgets(smoothing: Smoothing) -> None:
    sure, torn = np.eye(11, dtype=np.float32)[:1], np.full((1, 11), 0.2, np.float32)
    fresh, used = interpreter(smoothing), interpreter(smoothing)
    for t_ms in (0, 50):
        used(sure, at(t_ms))
    used.reset()
    assert used(torn, at(90)) == fresh(torn, at(90))


def test_verification_forgets_what_came_before_it_was_undefined() -> None:
    interpret = interpreter(Ema(tau_ms=10_000), kind="verification")
    interpret(np.ones((1, 1), np.float32), at(0))
    alone = Snapshot(t_ns=0, seq=0, present={"image": True, "audio": False})
    assert interpret(np.ones((1, 1), np.float32), alone).score is None
    assert interpret(np.full((1, 1), 0.25, np.float32), at(40)).score == 0.25


SHARES = st.floats(0, 1)


@given(SHARES, SHARES, st.data())
def test_hysteresis_never_flips_in_between(one: float, other: float, data: st.DataObject) -> None:
    leave, enter = sorted((one, other))
    smoother = Smoother(Hysteresis(enter=enter, leave=leave), 0.0, 2)
    between = st.floats(leave, enter, exclude_max=leave < enter)
    smoother.choose(np.array([1.0, 0.0]), 0)
    for _ in range(data.draw(st.integers(1, 20))):
        rival = data.draw(st.floats(0, enter, exclude_max=enter > 0)) if enter > 0 else 0.0
        assert smoother.choose(np.array([data.draw(between), rival]), 0) == 0 or enter == 0


@given(st.floats(1, 500), st.lists(st.tuples(st.integers(1, 200), st.sampled_from([None, 0, 1, 2])), min_size=1))
def test_debounce_never_tells_what_lasted_less(hold_ms: float, steps: list[tuple[int, int | None]]) -> None:
    smoother, t_ms = Smoother(Debounce(hold_ms=hold_ms), 0.0, 3), 0
    lasted: dict[int | None, int] = {}
    began, before = 0, object()
    for step, label in steps:
        t_ms += step
        if label != before:
            began, before = t_ms, label
        lasted[label] = max(lasted.get(label, 0), t_ms - began)
        told = smoother.tell(label, t_ms * 1_000_000)
        assert told is None or lasted[told] >= hold_ms
        if t_ms - began >= hold_ms:
            assert told == label
