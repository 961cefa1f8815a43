"""What a training run measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmedge.console import out

from .validated_masks import Judged


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
    """

    seed: int
    path: Path | None = None
    seconds: float = 0.0
    parameters: int = 0
    counts: dict[str, dict[str, Judged]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    test: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @property
    def validation(self) -> dict[str, dict[str, float]]:
        """Task -> mask -> accuracy on validation."""
        return {task: {mask: judged.mean for mask, judged in masks.items()} for task, masks in self.counts.items()}

    @property
    def samples(self) -> dict[str, dict[str, int]]:
        """Task -> mask -> how many samples of validation its accuracy rests on."""
        return {task: {mask: count.samples for mask, count in masks.items()} for task, masks in self.counts.items()}

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
        }

    def print(self, console: Console | None = None) -> None:
        """Print the test table: a row per condition, a column per task and mask."""
        console = console or out
        columns = [(task, mask) for task, masks in self.validation.items() for mask in masks]
        table = Table(title=f"accuracy in %, seed {self.seed}, {self.parameters:,} parameters", title_justify="left")
        table.add_column("samples")
        for task, mask in columns:
            error = self.metrics.get(task) == "mae"
            table.add_column(f"{task}{', mean absolute error' if error else ''}\n{mask}", justify="right")
        for condition, found in [("validation", self.validation), *self.test.items()]:
            cells = [found.get(task, {}).get(mask) for task, mask in columns]
            errors = [self.metrics.get(task) == "mae" for task, _ in columns]
            told = zip(cells, errors, strict=True)
            table.add_row(condition, *("-" if c is None else f"{c:.4g}" if e else f"{100 * c:.1f}" for c, e in told))
        table.add_row("n of validation", *(str(self.samples[task][mask]) for task, mask in columns), style="dim")
        console.print(table)
        heat = ", ".join(f"{name} {value:.2f}" for name, value in self.temperature.items())
        console.print(f"trained in {self.seconds:.0f} s; temperatures: {heat}", highlight=False)
        if self.path is not None:
            console.print(f"weights: {self.path}", highlight=False, soft_wrap=True)
