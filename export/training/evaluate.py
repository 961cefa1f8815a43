"""Measuring a trained model under every presence mask, and calibrating its probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..datasets.base import Dataset, Samples, class_names
from ..models.staged import StagedModel
from ..preprocess.torch_module import preprocessors
from ..recipe import Recipe, RecipeTask
from ..tasks import KINDS, Truth, boxed_tasks, valued_tasks
from .boxes import f1
from .masks import all_masks, as_tensor
from .targets import none_class
from .validated_masks import Judged, has_all

Mask = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """Logits of one set of samples under one mask.

    Attributes:
        logits: Task -> [n, classes] or [n, 1].
        labels: int64 [n, n_inputs].
        present: float32 [n, n_inputs]: the mask, in each row.
        values: Task -> float32 [n], its target where that is a number, NaN for unknown.
        index: int64 [n], which samples of the split these are, in rising order.
    """

    logits: dict[str, Tensor]
    labels: Tensor
    present: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def truth(self, task: str, none: int | None) -> Truth:
        """Return what is known of the samples, for one task."""
        return Truth(labels=self.labels, present=self.present, none=none, values=self.values.get(task))

    def where(self, kept: Tensor) -> Predictions:
        """Return some of the samples: ``kept`` is bool [n], or int64 [m], their rows."""
        return Predictions(
            logits={name: value[kept] for name, value in self.logits.items()},
            labels=self.labels[kept],
            present=self.present[kept],
            values={name: value[kept] for name, value in self.values.items()},
            index=self.index[kept],
        )

    def take(self, index: Tensor) -> Predictions:
        """Return the samples ``index``, int64 [m], all of which are among these."""
        return self.where(torch.searchsorted(self.index, index))


def examine(
    model: StagedModel, dataset: Dataset, samples: Samples, recipe: Recipe, limit: int | None = None
) -> tuple[dict[Mask, Predictions], dict[str, float]]:
    """Run the model over samples under every presence mask, once.

    Args:
        model: The model; left in evaluation mode.
        dataset: The samples' data set.
        samples: What to run.
        recipe: Tasks, batch size, workers.
        limit: Take only this many batches, the first ones.

    Returns:
        Predictions per mask, of the samples that have all its inputs; their other inputs are masked away. And detection
        with a column -> mean F1 of its pictures (see ``boxes.f1``), with the inputs that are there: its outputs, which
        are large, are not kept.
    """
    names = tuple(recipe.inputs)
    masks = {mask: as_tensor(mask, names) for mask in all_masks(names)}
    parts: dict[Mask, list[Predictions]] = {mask: [] for mask in masks}
    scores: dict[str, list[Tensor]] = {name: [] for name in boxed_tasks(recipe)}
    kept_tasks = {name: task for name, task in recipe.tasks.items() if name not in scores}
    with torch.inference_mode():
        for number, (batch, inputs, age_ms) in enumerate(_batches(model, dataset, samples, recipe, limit)):
            outputs: dict[str, Tensor] | None = None
            for mask, row in masks.items():
                present = batch["present"] * row
                outputs = model(inputs, present.to(_device(model)), age_ms, reuse=outputs)
                for name, found in scores.items() if mask == names else ():
                    found.append(f1(recipe.tasks[name], outputs[recipe.tasks[name].output], batch["boxes"][name]))
                kept = has_all(batch["present"], row)
                logits = {name: outputs[task.output].cpu()[kept] for name, task in kept_tasks.items()}
                values = {name: value[kept] for name, value in batch.get("targets", {}).items()}
                index = kept.nonzero()[:, 0] + number * recipe.train.batch_size
                labels = batch["labels"][kept]
                part = Predictions(logits=logits, labels=labels, present=present[kept], values=values, index=index)
                parts[mask].append(part)
    predictions = {
        mask: Predictions(
            logits={name: torch.cat([part.logits[name] for part in found]) for name in kept_tasks},
            labels=torch.cat([part.labels for part in found]),
            present=torch.cat([part.present for part in found]),
            values={name: torch.cat([part.values[name] for part in found]) for name in valued_tasks(recipe)},
            index=torch.cat([part.index for part in found]),
        )
        for mask, found in parts.items()
    }
    told = {name: torch.cat(found) for name, found in scores.items() if sum(map(len, found))}
    return predictions, {name: round(float(found.mean()), 4) for name, found in told.items()}


def _batches(
    model: StagedModel, dataset: Dataset, samples: Samples, recipe: Recipe, limit: int | None
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor], Tensor | None]]:
    """Yield each batch, its inputs preprocessed and its ages, both on the device of the model, which is evaluating."""
    model.eval()
    device = _device(model)
    preprocess = preprocessors(dataset.inputs).to(device)
    loader: DataLoader[Any] = DataLoader(
        cast("Any", samples), recipe.train.batch_size, num_workers=recipe.train.workers, collate_fn=dataset.collate
    )
    for batch in islice(loader, limit):
        inputs = {name: preprocess[name](raw.to(device)) for name, raw in batch["inputs"].items()}
        yield batch, inputs, batch["age_ms"].to(device) if "age_ms" in batch else None


def _device(model: StagedModel) -> torch.device:
    return next(model.parameters()).device


def counts(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, dict[str, Judged]]:
    """Return task -> mask (``image+audio``) -> how many answers are right, where a target is certain.

    Args:
        recipe: The tasks.
        found: Predictions by mask.
    """
    none = none_class(class_names(recipe))
    rows: dict[str, dict[str, Judged]] = {}
    for name, task in recipe.tasks.items():
        for mask, part in found.items() if KINDS[task.kind].trained else ():
            if len(judged := judge(task, name, part, none)):
                spread = None if KINDS[task.kind].counted else float(judged.std(correction=0))
                row = Judged(total=float(judged.sum()), samples=len(judged), spread=spread)
                rows.setdefault(name, {})["+".join(mask)] = row
    return rows


def accuracies(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, dict[str, float]]:
    """Return task -> mask (``image+audio``) -> accuracy or mean error, where a target is certain; see ``counts``."""
    rows = counts(recipe, found)
    return {task: {mask: judged.mean for mask, judged in masks.items()} for task, masks in rows.items()}


def accuracy(task: RecipeTask, name: str, found: Predictions, none: int | None) -> float | None:
    """Return the mean of ``judge``, of most kinds the share of right answers; None where no target is certain."""
    judged = judge(task, name, found, none)
    return float(judged.mean()) if len(judged) else None


def judge(task: RecipeTask, name: str, found: Predictions, none: int | None) -> Tensor:
    """Return 1 where an answer is right, else 0, or its error, float32 [certain], of those whose target is certain.

    Args:
        task: The task.
        name: Its name.
        found: Predictions under one mask.
        none: Class that means nothing is shown.
    """
    return KINDS[task.kind].judge(task, found.logits[name], found.truth(name, none))


def temperatures(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, float]:
    """Return the temperature of each task that has one, which minimises its loss over all masks.

    Args:
        recipe: The tasks.
        found: Predictions on validation.
    """
    none = none_class(class_names(recipe))
    grid = np.geomspace(0.25, 4.0, 121)
    best: dict[str, float] = {}
    for name, task in recipe.tasks.items():
        kind = KINDS[task.kind]
        if not kind.calibrated:
            continue
        parts: list[tuple[Tensor, Tensor]] = []
        for part in found.values():
            target, defined = kind.target(task, part.logits[name], part.truth(name, none))
            parts.append((part.logits[name][defined], target[defined]))
        logits, target = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        losses = [float(kind.losses(logits / t, target).mean()) for t in grid] if len(logits) else []
        best[name] = _argmin(grid, losses) if losses else 1.0
    return best


def _argmin(grid: np.ndarray[Any, Any], losses: list[float]) -> float:
    return round(float(grid[int(np.argmin(losses))]), 4)
