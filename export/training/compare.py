"""Is a task that fuses several inputs better than the best single one? Asked of the same samples, in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from ..recipe import Recipe
from ..tasks import KINDS
from .evaluate import Mask, Predictions, judge
from .validated_masks import Z_95

_LEVEL = 0.05


class Rivalry(msgspec.Struct, frozen=True, kw_only=True):
    """A task with all inputs beside the same task with the one input that serves it best, on the same samples.

    Attributes:
        task: Its name.
        inputs: All of them.
        best: The single input that does best.
        samples: How many samples were judged both ways.
        fused: Accuracy, or mean error, with all inputs.
        single: With ``best`` alone.
        low: Lower end of the 95 % interval of how much better the fused task is; below 0 it is worse.
        high: Its upper end.
        p: How likely so large a difference is by chance, if there is none: McNemar's exact test of right and wrong
            answers, a normal approximation of errors; times the number of single inputs, of which the best was chosen.
        lower_is_better: The figures are errors.
    """

    task: str
    inputs: Mask
    best: str
    samples: int
    fused: float
    single: float
    low: float
    high: float
    p: float
    lower_is_better: bool

    @property
    def lags(self) -> bool:
        """Whether the fused task does worse, be it by chance."""
        return self.fused > self.single if self.lower_is_better else self.fused < self.single

    @property
    def worse(self) -> bool:
        """Whether it does worse by more than chance explains."""
        return self.lags and self.p < _LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        verdict = "worse" if self.worse else "not distinguishable" if self.lags else "better or equal"
        fields = {name: getattr(self, name) for name in ("task", "best", "samples", "fused", "single", "low", "high")}
        advice = self.advice if self.lags else None
        return {**fields, "p": self.p, "verdict": verdict, "advice": advice}

    @property
    def advice(self) -> str:
        """What to try."""
        rule = '"callable": "mmedge.fusion.rules:weighted_log_probs" over the single networks\' probabilities'
        if self.lower_is_better:
            rule = "a rule that averages the single networks' answers"
        return (
            "try more data, another train.modality_dropout, a larger loss_weight of this task, a smaller fusion "
            f"network or embedding, or late fusion ({rule})"
        )

    def __str__(self) -> str:
        def told(value: float) -> str:
            return f"{value:.4g}" if self.lower_is_better else f"{100 * value:.1f} %"

        scale, unit = (1.0, "") if self.lower_is_better else (100.0, " points")
        what, of = ("errs by", "on") if self.lower_is_better else ("is right on", "of")
        found = "is worse than" if self.worse else "is not shown to be better than"
        chance = "" if self.worse else ": that may be chance"
        return (
            f"task '{self.task}' with {' + '.join(self.inputs)} {found} '{self.best}' alone: it {what} "
            f"{told(self.fused)} {of} {self.samples} validation samples, '{self.best}' alone {told(self.single)} "
            f"(gain {scale * self.low:+.3g} to {scale * self.high:+.3g}{unit} at 95 %, p = {self.p:.2g}{chance}); "
            f"{self.advice}"
        )


def rivalries(recipe: Recipe, found: Mapping[Mask, Predictions], none: int | None) -> list[Rivalry]:
    """Return for every trained task how it does with all inputs and with the best one, on samples that have them all.

    A task that is not defined with a single input, or with fewer than two inputs, has no rival.

    Args:
        recipe: The tasks.
        found: Predictions of the validation split, by mask.
        none: Class that means nothing is shown.
    """
    names = tuple(recipe.inputs)
    full = found.get(names)
    if full is None or len(names) < 2:
        return []
    rows: list[Rivalry] = []
    for name, task in recipe.tasks.items():
        kind = KINDS[task.kind]
        if not kind.trained:
            continue
        rivals: list[Rivalry] = []
        for single in names:
            alone = found[(single,)].take(full.index)
            both = kind.certain(task, full.logits[name], full.truth(name, none)) & kind.certain(
                task, alone.logits[name], alone.truth(name, none)
            )
            if int(both.sum()) < 2:
                continue
            pair = [judge(task, name, part.where(both), none).double() for part in (full, alone)]
            rivals.append(_rivalry(name, names, single, pair[0], pair[1], counted=kind.counted))
        if rivals:
            sign = 1 if rivals[0].lower_is_better else -1
            best = min(rivals, key=lambda rival: sign * rival.single)
            rows.append(msgspec.structs.replace(best, p=min(best.p * len(rivals), 1.0)))
    return rows


def _rivalry(
    task: str, inputs: Mask, best: str, fused: torch.Tensor, single: torch.Tensor, *, counted: bool
) -> Rivalry:
    gain = fused - single if counted else single - fused
    mean, half = float(gain.mean()), Z_95 * float(gain.std()) / math.sqrt(len(gain))
    if counted:
        p = mcnemar(int((gain > 0).sum()), int((gain < 0).sum()))
    else:
        p = 1.0 if not half else math.erfc(abs(mean) / (half / Z_95) / math.sqrt(2))
    return Rivalry(
        task=task,
        inputs=inputs,
        best=best,
        samples=len(gain),
        fused=round(float(fused.mean()), 4),
        single=round(float(single.mean()), 4),
        low=round(mean - half, 4),
        high=round(mean + half, 4),
        p=p,
        lower_is_better=not counted,
    )


def mcnemar(first: int, second: int) -> float:
    """Return how likely it is, if two classifiers are equally good, that they differ as much (McNemar's exact test).

    Args:
        first: Samples that only the first one has right.
        second: Samples that only the second one has right.

    Example:
        >>> round(mcnemar(5, 15), 3), mcnemar(0, 0)
        (0.041, 1.0)
    """
    count, k = first + second, torch.arange(min(first, second) + 1, dtype=torch.float64)
    ways = math.lgamma(count + 1) - torch.lgamma(k + 1) - torch.lgamma(count - k + 1)
    return min(2 * float((ways - count * math.log(2)).exp().sum()), 1.0)
