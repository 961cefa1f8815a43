"""Which presence masks a bundle may run with: each is measured on the samples that have all its inputs.

A sample without an input says nothing of a mask that has it: counted there, it would stand for a smaller mask.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor

from ..recipe import Recipe
from ..tasks import KINDS
from .masks import all_masks

# Of 30 samples the 95 % interval is up to 34 points wide already, of fewer it says next to nothing; and the normal
# approximation behind most published intervals is commonly held to need as many.
MIN_SAMPLES = 30
Z_95 = 1.959964  # two-sided 95 % of the normal distribution
_log = logging.getLogger(__name__)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How well one task does under one mask: how often it is right, or by how much it errs.

    Attributes:
        total: Right answers, or the sum of the errors.
        samples: Samples that have all inputs of the mask, and whose target is certain; at least one.
        spread: Standard deviation of the errors; None where answers are right or wrong.
    """

    total: float
    samples: int
    spread: float | None = None

    @property
    def mean(self) -> float:
        """Share of right answers, or mean error, rounded to four digits."""
        return round(self.total / self.samples, 4)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``mean``, rounded to four digits: Wilson's of a share, the normal one of an error."""
        if self.spread is None:
            return wilson(self.total, self.samples)
        mean, half = self.total / self.samples, Z_95 * self.spread / math.sqrt(self.samples)
        return round(max(mean - half, 0.0), 4), round(mean + half, 4)

    @property
    def enough(self) -> bool:
        """Whether a mask may be called validated by it."""
        return self.samples >= MIN_SAMPLES


def wilson(right: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score (1927), rounded to four digits.

    Args:
        right: How many of the samples count.
        samples: How many there are, at least one.

    Example:
        >>> wilson(27, 30)
        (0.7438, 0.9654)
    """
    share, z2 = right / samples, Z_95 * Z_95 / samples
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples)) / (1 + z2)
    return round(max(middle - half, 0.0), 4), round(min(middle + half, 1.0), 4)


def has_all(present: Tensor, mask: Tensor) -> Tensor:
    """Return which samples a mask is measured on, bool [n]: those that have all its inputs.

    Args:
        present: float32 [n, n_inputs], what the samples have.
        mask: float32 [n_inputs].
    """
    return (present >= mask).all(1)


def mask_figures(recipe: Recipe, rows: Mapping[str, Mapping[str, Judged]]) -> list[dict[str, Any]]:
    """Return what the manifest says of every validated mask: how often the first classification task is right with it.

    A recipe that classifies nothing tells of its first task, where that is defined. A mask with fewer than
    ``MIN_SAMPLES`` samples is not validated, and a warning says so.

    Args:
        recipe: The tasks.
        rows: Task -> mask (``image+audio``) -> count.
    """
    kinds = {name: task.kind for name, task in recipe.tasks.items()}
    first = next((name for name, kind in kinds.items() if kind == "classification"), next(iter(kinds), ""))
    if first not in kinds or not KINDS[kinds[first]].trained:
        return []  # a detection has no accuracy here
    metric = KINDS[kinds[first]].metric
    found = rows.get(first, {})
    # A run without these gives no results; and whether inputs agree is defined where there are two.
    needed = {name for name, missing in recipe.missing.items() if missing.policy in ("fail", "skip")}
    asked = [
        mask for mask in all_masks(tuple(recipe.inputs)) if needed.issubset(mask) and len(mask) + (metric == "top1") > 1
    ]
    numbers = {mask: found[joined].samples if (joined := "+".join(mask)) in found else 0 for mask in asked}
    few = {mask: number for mask, number in numbers.items() if number < MIN_SAMPLES}
    if few:
        told = ", ".join(f"{' + '.join(mask)} ({number})" for mask, number in few.items())
        _log.warning(
            "not validated, because fewer than %d samples have all their inputs and a certain answer: %s; "
            "add such samples to the validation split",
            MIN_SAMPLES,
            told,
        )
    return [
        {
            "present": mask.split("+"),
            "metric": metric,
            "value": count.mean,
            "samples": count.samples,
            "low": count.interval[0],
            "high": count.interval[1],
        }
        for mask, count in found.items()
        if count.enough
    ]
