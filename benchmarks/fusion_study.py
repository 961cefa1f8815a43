"""Fusion networks on the embeddings of frozen encoders: what is trained, calibrated and measured for the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from mmedge.export.datasets.base import Dataset, Samples, class_names
from mmedge.export.models.fusion import FUSIONS, JointTable, SumLogProbs
from mmedge.export.models.staged import StagedModel
from mmedge.export.preprocess.torch_module import preprocessors
from mmedge.export.recipe import Recipe
from mmedge.export.tasks import Truth, task_loss
from mmedge.export.training.augment import augment
from mmedge.export.training.masks import all_masks, as_tensor, modality_dropout
from mmedge.export.training.targets import classification_target, none_class, verification_target
from mmedge.export.training.validated_masks import has_all

_BATCH, _LEARNING_RATE = 256, 3e-3
_PATIENCE, _EPOCHS = 3, 15
Mask = tuple[str, ...]
Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Embedded:
    """Samples as the frozen encoders give them.

    Attributes:
        vectors: Per input, float32 [n, width].
        labels: int64 [n, n_inputs].
        present: float32 [n, n_inputs].
    """

    vectors: tuple[Tensor, ...]
    labels: Tensor
    present: Tensor

    def rows(self, chosen: Tensor) -> Embedded:
        """Return some samples."""
        return Embedded(
            vectors=tuple(v[chosen] for v in self.vectors), labels=self.labels[chosen], present=self.present[chosen]
        )

    def under(self, row: Tensor) -> Embedded:
        """Return the same samples with other inputs present."""
        return replace(self, present=self.present * row)


def embed(model: StagedModel, dataset: Dataset, samples: Samples, recipe: Recipe, *, varied: bool = False) -> Embedded:
    """Run the encoders over samples, once.

    Args:
        model: The trained model.
        dataset: The samples' data set.
        samples: What to run.
        recipe: Names inputs; the fusion stage's inputs are the embeddings, in the same order.
        varied: Augment them, as training does.
    """
    preprocess = preprocessors(dataset.inputs)
    sources = [str(source) for source in recipe.stages["fusion"].links.values()]
    loader: DataLoader[Any] = DataLoader(
        cast("Any", samples), recipe.train.batch_size, num_workers=recipe.train.workers, collate_fn=dataset.collate
    )
    parts: list[tuple[list[Tensor], Tensor, Tensor]] = []
    with torch.inference_mode():
        for batch in loader:
            inputs = {name: preprocess[name](raw) for name, raw in batch["inputs"].items()}
            if varied:
                inputs = {name: augment(x, dataset.inputs[name]) for name, x in inputs.items()}
            features = model.features(inputs)
            parts.append(([features[source] for source in sources], batch["labels"], batch["present"]))
    # Copied: tensors of inference mode cannot be trained on.
    return Embedded(
        vectors=tuple(torch.cat([part[0][m] for part in parts]).clone() for m in range(len(sources))),
        labels=torch.cat([part[1] for part in parts]),
        present=torch.cat([part[2] for part in parts]),
    )


class Study:
    """Trains and measures fusion networks on the embeddings of one seed.

    Args:
        recipe: AV-digits.
        train: What they are trained on.
        validation: What decides when training stops, and temperatures.
    """

    def __init__(self, recipe: Recipe, train: Embedded, validation: Embedded) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.names = tuple(recipe.inputs)
        self.alone = [as_tensor((name,), self.names) for name in self.names]
        self.masks = {mask: as_tensor(mask, self.names) for mask in all_masks(self.names)}
        self.classes = len(class_names(recipe))
        self.none = none_class(class_names(recipe))

    def make(self, kind: str) -> nn.Module:
        """Return an untrained fusion network."""
        return FUSIONS[kind](len(self.names), self.train.vectors[0].shape[1], self.classes)

    def heads(self) -> SumLogProbs:
        """Return the sum of log-probabilities: every head trained alone, all of it calibrated on validation."""
        model = cast("SumLogProbs", self.make("sum"))
        with torch.no_grad():
            for prior, labels in zip(model.log_prior, self.train.labels.T, strict=True):
                seen = torch.bincount(labels[labels >= 0], minlength=self.classes) + 1
                prior.copy_((seen / seen.sum()).log())
        self._fit(model, lambda batch: [batch.under(row) for row in self.alone])
        with torch.no_grad():
            for head, vectors, labels in zip(
                model.posteriors.heads, self.validation.vectors, self.validation.labels.T, strict=True
            ):
                logits = head(vectors)
                grid = torch.logspace(-0.6, 0.6, 61)
                best = grid[torch.stack([functional.cross_entropy(logits / t, labels) for t in grid]).argmin()]
                for parameter in head.parameters():
                    parameter.div_(best)
            _, agreement = model(self.validation.vectors, self.validation.present)
            same, defined = verification_target(self.validation.labels, self.validation.present, self.none)
            grid = torch.linspace(-10, 10, 201)
            losses = [
                functional.binary_cross_entropy_with_logits((agreement[:, 0] + b)[defined], same[defined]) for b in grid
            ]
            model.agree_bias.fill_(grid[torch.stack(losses).argmin()])
        return model

    def learned(self, kind: str, heads: SumLogProbs) -> nn.Module:
        """Return a trained fusion network; decision fusion starts from the calibrated heads."""
        model = self.make(kind)
        if isinstance(model, (SumLogProbs, JointTable)):
            model.posteriors.load_state_dict(heads.posteriors.state_dict())
        if isinstance(model, SumLogProbs):
            model.load_state_dict(heads.state_dict())
            model.posteriors.requires_grad_(False)

        def views(batch: Embedded) -> list[Embedded]:
            dropped = modality_dropout(batch.present, self.recipe.train.modality_dropout)
            return [replace(batch, present=dropped), *(batch.under(row) for row in self.alone)]

        self._fit(model, views)
        return model

    def _fit(self, model: nn.Module, views: Callable[[Embedded], list[Embedded]]) -> None:
        """Train until validation over all masks gets no better, and keep the best."""
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=self.recipe.train.weight_decay)
        best, since = self._validate(model, views), 0
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        for epoch in range(_EPOCHS):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * epoch / _EPOCHS))
            for chosen in torch.split(torch.randperm(len(self.train.labels)), _BATCH):
                loss = self._loss(model, views(self.train.rows(chosen)))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            reached = self._validate(model, views)
            if reached < best:
                best, since = reached, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            elif (since := since + 1) == _PATIENCE:
                break
        model.load_state_dict(kept)

    def _validate(self, model: nn.Module, views: Callable[[Embedded], list[Embedded]]) -> float:
        alone = len(views(self.validation.rows(torch.arange(2)))) == len(self.alone)
        rows = self.alone if alone else list(self.masks.values())
        with torch.no_grad():
            return float(self._loss(model, [self.validation.under(row) for row in rows]))

    def _loss(self, model: nn.Module, views: list[Embedded]) -> Tensor:
        losses = []
        for view in views:
            truth = Truth(labels=view.labels, present=view.present, none=self.none)
            for task, logits in zip(self.recipe.tasks.values(), model(view.vectors, view.present), strict=True):
                losses.append(task.loss_weight * task_loss(task, logits, truth))
        return torch.stack(losses).sum()

    def hits(self, model: nn.Module, samples: Embedded, mask: Mask) -> dict[str, Hits]:
        """Return per task which samples are answered rightly, of those with all inputs and a certain answer."""
        whole = has_all(samples.present, self.masks[mask]).nonzero()[:, 0]
        view = samples.rows(whole).under(self.masks[mask])
        with torch.no_grad():
            digit, agreement = model(view.vectors, view.present)
        share, answer = classification_target(view.labels, view.present, self.classes, self.none).max(1)
        same, defined = verification_target(view.labels, view.present, self.none)
        found = {"digit": (digit.argmax(1) == answer)[share == 1].numpy()}
        if len(mask) > 1:
            found["agreement"] = ((agreement[:, 0] >= 0) == (same > 0))[defined].numpy()
        return found
