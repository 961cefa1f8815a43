"""The training run, from the recipe to the weights file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from mmedge.errors import ConfigError

from ..datasets.base import Dataset
from ..datasets.folder import Folder
from ..models.staged import StagedModel
from ..recipe import Recipe, check_recipe
from ..tasks import KINDS
from .dry_run import dry_run
from .evaluate import accuracies, counts, predict, temperatures
from .quiet import quiet
from .report import TrainReport
from .validated_masks import mask_figures
from .weights import import_named, make_model, save_weights

logger = logging.getLogger("mmedge.export")


def make_dataset(recipe: Recipe) -> Dataset:
    """Return the data set of ``[data]``.

    Raises:
        ConfigError: If there is none, or it cannot be imported.
    """
    data = recipe.data
    if (data.dataset is None) == (data.folder is None):
        raise ConfigError(
            "[data] needs either a data set or a folder", where="data", fix="set data.dataset or data.folder"
        )
    if data.folder is not None:
        return Folder(recipe, recipe.path(data.folder), **data.options)
    fix = 'name a class: "pkg.mod:Class"'
    assert data.dataset is not None
    with recipe.importable():
        dataset = import_named(data.dataset, where="data.dataset", fix=fix)(recipe, **data.options)
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"'{data.dataset}' is not a data set", where="data.dataset", fix=fix)
    return dataset


def train(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> StagedModel:
    """Train the model of a recipe, print one test table and save the weights.

    Args:
        recipe: Data, model, tasks and hyper-parameters.
        output: Weights file; by default the recipe's, or none if it names none.
        seed: Instead of the recipe's.
        limit: Stop after this many training batches, and evaluate on as many.
        progress: Show a bar (on a terminal) and the table.

    Returns:
        The trained model in evaluation mode.

    Raises:
        ConfigError: If the recipe cannot be trained.
        MissingDependencyError: If the data need a package or command that is not there.

    Example:
        >>> export.train(export.Recipe.load("recipes/av_digits.toml"))  # doctest: +SKIP
    """
    with recipe.importable():
        model, report = _train(recipe, output, seed, limit, progress)
    if progress:
        report.print()
    return model


def train_and_save(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> TrainReport:
    """Do what ``train`` does and return what was measured.

    Args:
        recipe: The recipe.
        output: Weights file.
        seed: Instead of the recipe's.
        limit: Stop after this many training batches.
        progress: Show a bar on a terminal.

    Returns:
        The report.
    """
    with recipe.importable():
        return _train(recipe, output, seed, limit, progress)[1]


def _train(
    recipe: Recipe, output: str | Path | None, seed: int | None, limit: int | None, progress: bool
) -> tuple[StagedModel, TrainReport]:
    seed = recipe.seed if seed is None else seed
    recipe = msgspec.structs.replace(recipe, seed=seed)
    check_recipe(recipe)
    if output is None and recipe.train.weights is not None:
        output = recipe.path(recipe.train.weights)
    dataset = make_dataset(recipe)
    logger.info("preparing the data")
    dataset.prepare()
    dataset.check()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make_model(recipe)
        dry_run(model, dataset, recipe)
        report = TrainReport(seed=seed, parameters=sum(p.numel() for p in model.parameters()))
        start = time.monotonic()
        # Convolutions are faster with the channels last.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _fit(model, dataset, recipe, limit, progress)
        report.seconds = time.monotonic() - start
        logger.info("trained in %.0f s; evaluating", report.seconds)
        _evaluate(model, dataset, recipe, limit, report)
    model.cpu().eval()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.metadata = _metadata(report, recipe)
    if output is not None:
        report.path = Path(output)
        save_weights(model, model.metadata, report.path)
    return model, report


def _fit(model: StagedModel, dataset: Dataset, recipe: Recipe, limit: int | None, progress: bool) -> None:
    # Lightning takes seconds to import; loading weights does not need it.
    import lightning
    from lightning.pytorch.callbacks import LambdaCallback, RichProgressBar

    from .lightning_module import Training

    def tell(trainer: Any, module: Any) -> None:
        metrics = {name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}
        logger.info("epoch %d of %d: %s", trainer.current_epoch + 1, recipe.train.epochs, metrics)

    callbacks: list[Any] = [LambdaCallback(on_train_epoch_end=tell)]
    bar = progress and sys.stderr.isatty()
    if bar:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    options: dict[str, Any] = {} if limit is None else {"max_steps": limit, "limit_val_batches": limit}
    with quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=recipe.train.epochs,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=bar,
            callbacks=callbacks,
            **options,
        )
        trainer.fit(Training(model, dataset, recipe))
    if trainer.interrupted:
        raise KeyboardInterrupt


def _evaluate(model: StagedModel, dataset: Dataset, recipe: Recipe, limit: int | None, report: TrainReport) -> None:
    found = predict(model, dataset, dataset.split("validation"), recipe, limit)
    report.counts = counts(recipe, found)
    report.metrics = {name: KINDS[task.kind].metric for name, task in recipe.tasks.items()}
    report.temperature = temperatures(recipe, found)
    for condition, samples in dataset.conditions().items():
        report.test[condition] = accuracies(recipe, predict(model, dataset, samples, recipe, limit))


def _metadata(report: TrainReport, recipe: Recipe) -> dict[str, Any]:
    """Return what the exporter and the manifest want to know; masks are those measured on validation."""
    return {
        "seed": report.seed,
        "recipe_sha256": recipe.sha256,
        "temperature": report.temperature,
        "validated_masks": mask_figures(recipe, report.counts),
        "metrics": {"validation": report.validation, "samples": report.samples, "test": report.test},
    }
