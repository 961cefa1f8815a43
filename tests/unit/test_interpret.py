"""Interpretation: calibrated, smoothed, abstaining."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import Ema, Task
from mmedge.errors import EngineError
from mmedge.interpret import make_interpreter

LABELS = ("a", "b", "none")
BOTH = {"image": True, "audio": True}
MS = 1_000_000


def task(kind: str = "classification", **more: object) -> Task:
    return Task(kind=kind, output="s.y", labels="l.txt", **more)  # type: ignore[arg-type]


def logits(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_classification_scores_are_calibrated_probabilities() -> None:
    interpret = make_interpreter("t", task(temperature=2.0, top_k=2), LABELS)
    result = interpret(logits(4, 2, 0), 0, BOTH)
    exact = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert result.label == "a"
    assert result.score == pytest.approx(exact[0], abs=1e-4)
    assert [name for name, _ in result.top] == ["a", "b"]


def test_below_the_threshold_it_abstains_but_keeps_the_score() -> None:
    result = make_interpreter("t", task(threshold=0.9), LABELS)(logits(1, 0, 0), 0, BOTH)
    assert result.label is None
    assert result.score is not None
    assert 0.5 < result.score < 0.9


def test_smoothing_follows_capture_time_not_call_count() -> None:
    def after(steps: list[int]) -> float:
        interpret = make_interpreter("t", task(smoothing=Ema(tau_ms=200)), LABELS)
        interpret(logits(50, 0, 0), 0, BOTH)
        for t in steps:
            result = interpret(logits(0, 50, 0), t * MS, BOTH)
        return result.score if result.label == "b" else 1 - (result.score or 0)

    assert after([200]) == pytest.approx(1 - math.exp(-1), abs=1e-3)
    assert after([50, 100, 150, 200]) == pytest.approx(after([200]), abs=1e-3)


def test_verification_is_undefined_with_fewer_than_two_inputs() -> None:
    interpret = make_interpreter("t", task("verification", threshold=0.5), ("no", "yes"))
    assert interpret(logits(3), 0, BOTH).label == "yes"
    assert interpret(logits(-3), 0, BOTH).label == "no"
    alone = interpret(logits(3), 0, {"image": True, "audio": False})
    assert alone.label is None
    assert alone.score is None


@given(st.floats(-(2.0**99), 2.0**99, width=32))
def test_verification_score_is_a_probability(logit: float) -> None:
    result = make_interpreter("t", task("verification", threshold=0.5), ("no", "yes"))(logits(logit), 0, BOTH)
    assert result.score is not None
    assert 0 <= result.score <= 1


@pytest.mark.parametrize("bad", [logits(1, 2), logits(np.nan, 0, 0), logits(np.inf, 0, 0)])
def test_a_wrong_output_names_the_task(bad: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"values for|not finite") as caught:
        make_interpreter("digit", task(), LABELS)(bad, 0, BOTH)
    assert caught.value.where == "task 'digit'"
