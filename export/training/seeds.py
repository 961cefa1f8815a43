"""Several seeds of one recipe: their mean, how far they lie apart, and which one was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import msgspec

Figures = Mapping[str, Mapping[str, float]]  # task -> mask -> accuracy or error


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over several seeds.

    Attributes:
        mean: Of all seeds.
        std: Sample standard deviation between seeds.
        values: One for each seed, in their order.
    """

    mean: float
    std: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least two values, rounded to four digits."""
        return cls(mean=round(fmean(values), 4), std=round(stdev(values), 4), values=tuple(values))


class Seeds(msgspec.Struct, frozen=True, kw_only=True):
    """What several seeds gave.

    Attributes:
        trained: Every seed.
        kept: The one whose weights were saved.
        by: Which figure of validation chose it.
        validation: Task -> mask -> spread.
        test: Condition -> task -> mask -> spread.
    """

    trained: tuple[int, ...]
    kept: int
    by: str
    validation: dict[str, dict[str, Spread]]
    test: dict[str, dict[str, dict[str, Spread]]]

    @property
    def chosen(self) -> dict[str, Any]:
        """What the provenance of the weights says."""
        return {"trained": list(self.trained), "kept": self.kept, "by": self.by}

    @property
    def note(self) -> str:
        """What a reader must know of the choice."""
        return (
            f"of {len(self.trained)} seeds ({', '.join(map(str, self.trained))}) {self.kept} was kept because its "
            f"{self.by} is best; that is a choice, so its own validation figures flatter: expect the mean"
        )


def spread(figures: Sequence[Figures]) -> dict[str, dict[str, Spread]]:
    """Return task -> mask -> spread, of the figures that every seed has."""
    found: dict[str, dict[str, Spread]] = {}
    for task, masks in figures[0].items():
        for mask in masks:
            if all(mask in each.get(task, {}) for each in figures):
                found.setdefault(task, {})[mask] = Spread.of([each[task][mask] for each in figures])
    return found
