"""Measuring a trained model under every presence mask, and calibrating its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from ..datasets.base import Dataset, Samples
from ..models.staged import StagedModel
from ..preprocess.torch_module import preprocessors
from ..recipe import Recipe, RecipeTask
from .masks import all_masks, as_tensor
from .targets import classification_target, none_class, verification_target
from .validated_masks import Counted, has_all

Mask = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """Logits of one set of samples under one mask.

    Attributes:
        logits: Task -> [n, classes] or [n, 1].
        labels: int64 [n, n_inputs].
        present: float32 [n, n_inputs]: the mask, in each row.
    """

    logits: dict[str, Tensor]
    labels: Tensor
    present: Tensor


def predict(
    model: StagedModel, dataset: Dataset, samples: Samples, recipe: Recipe, limit: int | None = None
) -> dict[Mask, Predictions]:
    """Run the model over samples under every presence mask.

    Args:
        model: The model; left in evaluation mode.
        dataset: The samples' data set.
        samples: What to run.
        recipe: Tasks, batch size, workers.
        limit: Take only this many batches, the first ones.

    Returns:
        Predictions per mask, of the samples that have all its inputs; their other inputs are masked away.
    """
    model.eval()
    names, train = tuple(recipe.inputs), recipe.train
    device = next(model.parameters()).device
    preprocess = preprocessors(dataset.inputs).to(device)
    loader: DataLoader[Any] = DataLoader(
        cast("Any", samples), train.batch_size, num_workers=train.workers, collate_fn=dataset.collate
    )
    masks = {mask: as_tensor(mask, names) for mask in all_masks(names)}
    parts: dict[Mask, list[tuple[dict[str, Tensor], Tensor, Tensor]]] = {mask: [] for mask in masks}
    with torch.inference_mode():
        for number, batch in enumerate(loader):
            if limit is not None and number >= limit:
                break
            inputs = {name: preprocess[name](raw.to(device)) for name, raw in batch["inputs"].items()}
            age_ms = batch["age_ms"].to(device) if "age_ms" in batch else None
            outputs: dict[str, Tensor] | None = None
            for mask, row in masks.items():
                present = batch["present"] * row
                outputs = model(inputs, present.to(device), age_ms, reuse=outputs)
                kept = has_all(batch["present"], row)
                logits = {name: outputs[task.output].cpu()[kept] for name, task in recipe.tasks.items()}
                parts[mask].append((logits, batch["labels"][kept], present[kept]))
    return {
        mask: Predictions(
            logits={name: torch.cat([part[0][name] for part in found]) for name in recipe.tasks},
            labels=torch.cat([part[1] for part in found]),
            present=torch.cat([part[2] for part in found]),
        )
        for mask, found in parts.items()
    }


def counts(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, dict[str, Counted]]:
    """Return task -> mask (``image+audio``) -> how many answers are right, where a target is certain.

    Args:
        recipe: The tasks.
        found: Predictions by mask.
    """
    none = none_class(class_names(recipe))
    rows: dict[str, dict[str, Counted]] = {}
    for name, task in recipe.tasks.items():
        for mask, part in found.items():
            if len(right := judge(task, name, part, none)):
                rows.setdefault(name, {})["+".join(mask)] = Counted(right=int(right.sum()), samples=len(right))
    return rows


def accuracies(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, dict[str, float]]:
    """Return task -> mask (``image+audio``) -> accuracy, where a target is certain; see ``counts``."""
    rows = counts(recipe, found)
    return {task: {mask: count.share for mask, count in masks.items()} for task, masks in rows.items()}


def accuracy(task: RecipeTask, name: str, found: Predictions, none: int | None) -> float | None:
    """Return the share of right answers where the target is certain; None where it never is; see ``judge``."""
    right = judge(task, name, found, none)
    return float(right.float().mean()) if len(right) else None


def judge(task: RecipeTask, name: str, found: Predictions, none: int | None) -> Tensor:
    """Return whether each answer is right, bool [certain], of those whose target is certain.

    Args:
        task: The task.
        name: Its name.
        found: Predictions under one mask.
        none: Class that means nothing is shown.
    """
    logits = found.logits[name]
    if task.kind == "classification":
        best, answer = classification_target(found.labels, found.present, logits.shape[1], none).max(1)
        certain = best == 1
        right = logits.argmax(1) == answer
    else:
        same, certain = verification_target(found.labels, found.present, none)
        right = (logits[:, 0] >= 0) == (same > 0)
    return right[certain]


def temperatures(recipe: Recipe, found: Mapping[Mask, Predictions]) -> dict[str, float]:
    """Return the temperature of each task that minimises its loss over all masks.

    Args:
        recipe: The tasks.
        found: Predictions on validation.
    """
    none = none_class(class_names(recipe))
    grid = np.geomspace(0.25, 4.0, 121)
    best: dict[str, float] = {}
    for name, task in recipe.tasks.items():
        pairs = [_certain(task, name, part, none) for part in found.values()]
        logits, target = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
        if not len(logits):
            best[name] = 1.0
        elif task.kind == "classification":
            best[name] = _argmin(grid, [float(functional.cross_entropy(logits / t, target)) for t in grid])
        else:
            losses = [functional.binary_cross_entropy_with_logits(logits / t, target) for t in grid]
            best[name] = _argmin(grid, [float(loss) for loss in losses])
    return best


def _certain(task: RecipeTask, name: str, found: Predictions, none: int | None) -> tuple[Tensor, Tensor]:
    logits = found.logits[name]
    if task.kind == "classification":
        target = classification_target(found.labels, found.present, logits.shape[1], none)
        defined = target.sum(1) > 0
        return logits[defined], target[defined]
    same, defined = verification_target(found.labels, found.present, none)
    return logits[defined], same[defined, None]


def _argmin(grid: np.ndarray[Any, Any], losses: list[float]) -> float:
    return round(float(grid[int(np.argmin(losses))]), 4)


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the class names of the first classification task."""
    return next((task.labels for task in recipe.tasks.values() if task.kind == "classification"), ())
