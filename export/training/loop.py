"""The training run, from the recipe to the weights file."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from mmedge.errors import ConfigError
from mmedge.learn import learn

from ..datasets.base import Dataset, class_names
from ..datasets.folder import Folder
from ..models.staged import StagedModel
from ..recipe import Recipe, check_recipe
from ..tasks import KINDS
from .checkpoint import Checkpoint, identity
from .compare import rivalries
from .dry_run import dry_run
from .evaluate import accuracies, counts, examine, temperatures
from .quiet import quiet
from .report import TrainReport
from .targets import none_class
from .validated_masks import mask_figures
from .weights import import_named, load_weights, make_model, read_metadata, save_weights

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
    seeds: int | None = None,
    resume: bool = False,
    limit: int | None = None,
    progress: bool = True,
) -> StagedModel:
    """Train the model of a recipe, print one test table and save the weights.

    Args:
        recipe: Data, model, tasks and hyper-parameters.
        output: Weights file; by default the recipe's, or none if it names none.
        seed: Instead of the recipe's.
        seeds: How many to train, from ``seed`` on; the best on validation is kept. Instead of the recipe's.
        resume: Go on after the last epoch of a run that was interrupted, as if it had not been; from the beginning
            where there was none.
        limit: Stop after this many training batches, and evaluate on as many.
        progress: Show a bar (on a terminal) or a line per epoch, and the table.

    Returns:
        The trained model in evaluation mode.

    Raises:
        ConfigError: If the recipe cannot be trained, or what is to be resumed is of another run.
        MissingDependencyError: If the data need a package or command that is not there.

    Example:
        >>> export.train(export.Recipe.load("recipes/av_digits.toml"))  # doctest: +SKIP
    """
    model, report = _Run(recipe, output, seed, seeds, limit, progress=progress)(resume=resume)
    if progress:
        report.print()
    return model


def train_and_save(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    resume: bool = False,
    limit: int | None = None,
    progress: bool = True,
) -> TrainReport:
    """Do what ``train`` does and return what was measured.

    Args:
        recipe: The recipe.
        output: Weights file.
        seed: Random seed.
        seeds: How many seeds.
        resume: Go on with an interrupted run.
        limit: Stop after this many training batches.
        progress: Show a bar on a terminal, a line per epoch elsewhere.

    Returns:
        The report.
    """
    return _Run(recipe, output, seed, seeds, limit, progress=progress)(resume=resume)[1]


class _Run:
    """One call: some seeds, each with a checkpoint beside the weights, which goes when all are trained."""

    def __init__(
        self,
        recipe: Recipe,
        output: str | Path | None,
        seed: int | None,
        seeds: int | None,
        limit: int | None,
        *,
        progress: bool,
    ) -> None:
        first = recipe.seed if seed is None else seed
        count = recipe.train.seeds if seeds is None else seeds
        if count < 1:
            raise ConfigError(f"seeds must be 1 or more, got {count}", where="seeds", fix="give how many to train")
        self._seeds = tuple(range(first, first + count))
        self._recipe = msgspec.structs.replace(recipe, seed=first)
        check_recipe(self._recipe)
        if output is None and recipe.train.weights is not None:
            output = recipe.path(recipe.train.weights)
        self._output = None if output is None else Path(output)
        self._limit, self._progress = limit, progress
        asked = [("--output", output), ("--seed", seed), ("--seeds", seeds)]
        given = "".join(f" {name} {value}" for name, value in asked if value is not None and recipe.file is not None)
        self._command = f"mmedge train {recipe.file or 'RECIPE'} --resume{given}"

    def __call__(self, *, resume: bool) -> tuple[StagedModel, TrainReport]:
        if resume and self._output is None:
            raise ConfigError(
                "a run without weights to save leaves nothing to resume", where="train.weights", fix="name an --output"
            )
        with self._recipe.importable():
            dataset = make_dataset(self._recipe)
            logger.info("preparing the data")
            dataset.prepare()
            dataset.check()
            model, report = self._seed(dataset, self._seeds[0], resume=resume)
            reports = [report]
            for seed in self._seeds[1:]:
                other, measured = self._seed(dataset, seed, resume=resume)
                reports.append(measured)
                if measured.rank > report.rank:
                    model, report = other, measured
                del other  # two models are held at most: the best one, and the one in training
        if len(reports) > 1:
            report.spread_over(reports)
            model.metadata = {**model.metadata, "seeds": report.seeds.chosen}  # type: ignore[union-attr]
        if self._output is not None:
            report.path = self._output
            save_weights(model, model.metadata, self._output)
            for seed in self._seeds:
                for kind in ("checkpoint", "trained"):
                    self._beside(seed, kind).unlink(missing_ok=True)
        for rivalry in report.rivalries:
            if rivalry.lags:
                logger.log(logging.WARNING if rivalry.worse else logging.INFO, "%s", rivalry)
        return model, report

    def _beside(self, seed: int, kind: str) -> Path:
        assert self._output is not None
        middle = f".seed{seed}" if len(self._seeds) > 1 else ""
        return self._output.with_name(f"{self._output.name}{middle}.{kind}")

    def _seed(self, dataset: Dataset, seed: int, *, resume: bool) -> tuple[StagedModel, TrainReport]:
        """Return the trained model of one seed and what was measured."""
        recipe, several = msgspec.structs.replace(self._recipe, seed=seed), len(self._seeds) > 1
        checkpoint, done = None, None
        if self._output is not None:
            checkpoint = Checkpoint(self._beside(seed, "checkpoint"), identity(recipe, dataset, self._limit))
            done = self._beside(seed, "trained") if several else None
        if done is not None and checkpoint is not None and resume and done.is_file():
            return self._trained(recipe, done, checkpoint)
        going_on = checkpoint is not None and resume and checkpoint.load()
        prefix = f"seed {seed}: " if several else ""
        if checkpoint is not None and not resume and checkpoint.path.is_file():
            what = "an interrupted run is replaced when the first epoch ends; to go on with it: Ctrl-C, then --resume"
            logger.warning("%s%s", prefix, what)
        if resume and not going_on:
            logger.warning("%sno epoch was kept, so training starts with the first", prefix)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = make_model(recipe)
            dry_run(model, dataset, recipe)
            report = TrainReport(seed=seed, parameters=sum(p.numel() for p in model.parameters()))
            start = time.monotonic()
            # Convolutions are faster with the channels last.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            before_s = 0.0 if checkpoint is None else checkpoint.seconds
            try:
                _fit(model, dataset, recipe, self._limit, self._progress, checkpoint, going_on, prefix)
            except KeyboardInterrupt:
                what = "nothing new is kept: the first epoch had not ended"
                if checkpoint is not None and checkpoint.epochs:
                    what = f"what was trained up to epoch {checkpoint.epochs} is kept; go on with: {self._command}"
                logger.warning("interrupted; %s", what)
                raise
            report.seconds = before_s + time.monotonic() - start
            logger.info("trained in %.0f s; evaluating", report.seconds)
            _evaluate(model, dataset, recipe, self._limit, report)
        model.cpu().eval()
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.metadata = _metadata(report, recipe)
        if done is not None:
            assert checkpoint is not None
            own = {"identity": checkpoint.identity, "report": msgspec.to_builtins(report)}
            save_weights(model, {**model.metadata, **own}, done)
            checkpoint.remove()
        return model, report

    def _trained(self, recipe: Recipe, path: Path, checkpoint: Checkpoint) -> tuple[StagedModel, TrainReport]:
        """Return a seed that an interrupted run had finished."""
        checkpoint.check(read_metadata(path).get("identity") or {}, path)
        model, metadata = load_weights(recipe, path)
        report = msgspec.convert(metadata.pop("report"), learn(TrainReport))
        del metadata["identity"]
        return model, report


def _fit(
    model: StagedModel,
    dataset: Dataset,
    recipe: Recipe,
    limit: int | None,
    progress: bool,
    checkpoint: Checkpoint | None,
    going_on: bool,
    prefix: str,
) -> None:
    # Lightning takes seconds to import; loading weights does not need it.
    import lightning
    from lightning.pytorch.callbacks import RichProgressBar

    from .lightning_module import Training
    from .progress import Epochs

    bar = progress and sys.stderr.isatty()
    callbacks: list[Any] = [Epochs(recipe, checkpoint, lines=progress and not bar, prefix=prefix)]
    if bar:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    options: dict[str, Any] = {} if limit is None else {"max_steps": limit, "limit_val_batches": limit}
    with quiet(), _interruptible():
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
        path = checkpoint.path if checkpoint is not None and going_on else None
        try:
            trainer.fit(Training(model, dataset, recipe, checkpoint), ckpt_path=path, weights_only=True)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the former into the latter
            if not trainer.interrupted:
                raise
    if trainer.interrupted:
        raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[None]:
    """Give Ctrl-C back what it did before: Lightning ignores it once it was pressed."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGINT, before)


def _evaluate(model: StagedModel, dataset: Dataset, recipe: Recipe, limit: int | None, report: TrainReport) -> None:
    found, report.boxes["validation"] = examine(model, dataset, dataset.split("validation"), recipe, limit)
    report.counts = counts(recipe, found)
    report.metrics = {name: KINDS[task.kind].metric for name, task in recipe.tasks.items()}
    report.temperature = temperatures(recipe, found)
    report.rivalries = rivalries(recipe, found, none_class(class_names(recipe)))
    for condition, samples in dataset.conditions().items():
        measured, report.boxes[condition] = examine(model, dataset, samples, recipe, limit)
        report.test[condition] = accuracies(recipe, measured)


def _metadata(report: TrainReport, recipe: Recipe) -> dict[str, Any]:
    """Return what the exporter and the manifest want to know; masks are those measured on validation."""
    return {
        "seed": report.seed,
        "recipe_sha256": recipe.sha256,
        "temperature": report.temperature,
        "validated_masks": mask_figures(recipe, report.counts),
        "metrics": {"validation": report.validation, "samples": report.samples, "test": report.test},
    }
