"""What a training run measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from mmedge.console import out, styled

from .compare import Rivalry
from .seeds import Seeds, Spread, spread
from .validated_masks import Judged

_WIDEST = 12  # columns of a table with a row for each condition
_COUNT = "n of validation"


@dataclass(kw_only=True)
class TrainReport:
    """Accuracies by presence mask; masks are written ``image+audio``.

    Attributes:
        path: The weights file, None where nothing was saved.
        seed: Seed of weights, pairs and order.
        seconds: Wall time of training, data preparation apart.
        parameters: Of the model.
        counts: Task -> mask -> how it was judged on validation, of the samples that have all inputs of the mask.
        metrics: Task -> what its figures are: an accuracy unless this says ``mae``.
        temperature: Task -> temperature calibrated on validation.
        test: Condition -> task -> mask -> accuracy.
        boxes: Condition (``validation`` is one) -> detection -> mean F1 of its pictures at an overlap of 0.5.
        rivalries: How each task does with all inputs beside the best single one.
        seeds: What all seeds gave, where there were several.
    """

    seed: int
    path: Path | None = None
    seconds: float = 0.0
    parameters: int = 0
    counts: dict[str, dict[str, Judged]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    test: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    boxes: dict[str, dict[str, float]] = field(default_factory=dict)
    rivalries: list[Rivalry] = field(default_factory=list)
    seeds: Seeds | None = None

    @property
    def validation(self) -> dict[str, dict[str, float]]:
        """Task -> mask -> accuracy on validation."""
        return {task: {mask: judged.mean for mask, judged in masks.items()} for task, masks in self.counts.items()}

    @property
    def samples(self) -> dict[str, dict[str, int]]:
        """Task -> mask -> how many samples of validation its accuracy rests on."""
        return {task: {mask: count.samples for mask, count in masks.items()} for task, masks in self.counts.items()}

    @property
    def rank(self) -> float:
        """How good it is, by which seeds are chosen: the first task's figure with most inputs, errors negative."""
        for task, masks in self.validation.items():
            value = next(iter(masks.values()))
            return -value if self.metrics.get(task) == "mae" else value
        return next(iter(self.boxes.get("validation", {}).values()), 0.0)

    def spread_over(self, runs: Sequence[TrainReport]) -> None:
        """Take up what several seeds gave, this one, the best of them, among them."""
        task = next(iter(self.validation), None)
        mask = None if task is None else next(iter(self.validation[task]))
        self.seeds = Seeds(
            trained=tuple(run.seed for run in runs),
            kept=self.seed,
            by="validation" if task is None else f"validation of {task} with {mask}",
            validation=spread([run.validation for run in runs]),
            test={condition: spread([run.test[condition] for run in runs]) for condition in self.test},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the document of schema ``mmedge.train/1``."""
        return {
            "schema": "mmedge.train/1",
            "weights": None if self.path is None else str(self.path),
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "parameters": self.parameters,
            "validation": self.validation,
            "samples": self.samples,
            "temperature": self.temperature,
            "test": self.test,
            **({"boxes": self.boxes} if any(self.boxes.values()) else {}),
            "fusion": [rivalry.to_dict() for rivalry in self.rivalries],
            "warnings": [str(rivalry) for rivalry in self.rivalries if rivalry.worse],
            **({} if self.seeds is None else {"seeds": {**msgspec.to_builtins(self.seeds), "note": self.seeds.note}}),
        }

    def _named(self, task: str) -> str:
        return f"{task}, mean absolute error" if self.metrics.get(task) == "mae" else task

    def _cells(self) -> dict[str, list[str]]:
        """Return condition -> what is said of each task and mask, in the order of validation."""
        columns = [(task, mask) for task, masks in self.validation.items() for mask in masks]
        errors = [self.metrics.get(task) == "mae" for task, _ in columns]
        rows: dict[str, list[str]] = {}
        for condition, found in [("validation", self.validation), *self.test.items()]:
            values = [found.get(task, {}).get(mask) for task, mask in columns]
            told = zip(values, errors, strict=True)
            rows[condition] = ["-" if c is None else f"{c:.4g}" if e else f"{100 * c:.1f}" for c, e in told]
        rows[_COUNT] = [str(self.samples[task][mask]) for task, mask in columns]
        if self.seeds is not None:
            for condition, found_of in [("validation", self.seeds.validation), *self.seeds.test.items()]:
                spreads = [found_of.get(task, {}).get(mask) for task, mask in columns]
                cells = ["-" if s is None else _told(s, error=e) for s, e in zip(spreads, errors, strict=True)]
                rows[f"{condition}, {len(self.seeds.trained)} seeds"] = cells
        return rows

    def print(self, console: Console | None = None) -> None:
        """Print the test table: a row per condition and a column per task and mask, or turned where these are many."""
        console = console or out
        columns = [(task, mask) for task, masks in self.validation.items() for mask in masks]
        table = Table(title=f"accuracy in %, seed {self.seed}, {self.parameters:,} parameters", title_justify="left")
        cells = self._cells()
        if len(columns) <= _WIDEST:
            table.add_column("samples")
            for task, mask in columns:
                table.add_column(f"{self._named(task)}\n{mask}", justify="right")
            for condition, row in cells.items():
                table.add_row(condition, *row, style="dim" if condition == _COUNT else None)
        else:  # a row for each, where they are too many for the width of a terminal
            table.add_column("task")
            table.add_column("present", overflow="fold")
            for condition in cells:
                table.add_column(condition, justify="right")
            for index, (task, mask) in enumerate(columns):
                table.add_row(self._named(task), mask, *(row[index] for row in cells.values()))
        console.print(table)
        if self.seeds is not None:
            console.print(self.seeds.note, highlight=False)
        for rivalry in self.rivalries:
            if rivalry.lags:
                label = ("warning:", "bold yellow") if rivalry.worse else ("note:", "bold")
                console.print(styled(label, f" {rivalry}"), highlight=False)
        for condition, scores in self.boxes.items():
            for task, value in scores.items():
                line = f"{condition}: boxes of {task} are found with F1 {100 * value:.1f} % (overlap 0.5)"
                console.print(line, highlight=False)
        heat = ", ".join(f"{name} {value:.2f}" for name, value in self.temperature.items())
        console.print(f"trained in {self.seconds:.0f} s; temperatures: {heat}", highlight=False)
        if self.path is not None:
            console.print(f"weights: {self.path}", highlight=False, soft_wrap=True)


def _told(value: Spread, *, error: bool) -> str:
    if error:
        return f"{value.mean:.4g} ± {value.std:.2g}"
    return f"{100 * value.mean:.1f} ± {100 * value.std:.1f}"
