"""All steps of a recipe in order, each done once for what goes in: weights, ONNX, INT8, comparison, bundle."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from shutil import copy
from tempfile import gettempdir
from typing import Any

import msgspec
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mmedge.console import err
from mmedge.errors import ConfigError
from mmedge.files import file_hash, scratch
from mmedge.learn import learn

from .brought.brought import bring
from .failures import own_words
from .forecasts import forecasts
from .identity import digest_of
from .keys import graph_digest, plain, toolchain_digest
from .onnx.onnx_models import OnnxModels
from .onnx.outside import left
from .pack import check_forms, pack
from .provenance import places_of, provenance
from .recipe import Recipe, check_recipe
from .run_report import RunReport
from .steps import TABLE, is_unmeasurable, trained_key
from .store import Store
from .user_code import import_anew
from .work import STEPS, Show, Step, StepSpec, Work, step_of

__all__ = ["STEPS", "RunReport", "Step", "run", "run_steps"]
_WEIGHTS, _SHAPES, _WRITTEN = "weights.safetensors", "shapes.json", "bundle.sha256"
_log = logging.getLogger(__name__)


def run(
    recipe: Recipe, *, output: str | Path | None = None, only: str | None = None, progress: Show | None = None
) -> Path:
    """Do all steps of a recipe; what was done before with the same input is not done again.

    Args:
        recipe: The recipe. Its weights are loaded, or trained first where there are none.
        output: The bundle; by default ``NAME.mmedge`` here.
        only: Stop after this step.
        progress: Called with a message and a share 0..1; by default a bar on stderr, on a terminal only.

    Returns:
        The bundle, or the folder of the last step's files if ``only`` stopped before it was made.

    Raises:
        CheckError: If ONNX differs from torch, or INT8 loses more agreement or accuracy than the recipe allows.
        ConfigError: If the cache cannot be written, or whatever a step finds wrong.

    Example:
        >>> export.run(export.Recipe.load("recipes/av_digits.toml"))  # doctest: +SKIP
        PosixPath('digits.mmedge')
    """
    report = run_steps(recipe, output=output, only=only, progress=progress)
    return report.path or report.folder


def run_steps(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    only: str | None = None,
    retrain: bool = False,
    measure: bool = True,
    smoke: bool = True,
    progress: Show | None = None,
) -> RunReport:
    """Do what ``run`` does and return what was measured.

    Args:
        recipe: The recipe.
        output: The bundle.
        only: Stop after this step.
        retrain: Train even where there are weights; those are left as they are.
        measure: Run the exported networks over the validation data, where the recipe has some; without, the bundle
            carries what training measured.
        smoke: Build every TensorRT variant, where a TensorRT that can build is installed.
        progress: Called with a message and a share 0..1.

    Returns:
        The report.
    """
    last = "pack" if only is None else step_of(only)
    with _shown(progress) as show:
        work = Work(recipe=recipe, show=show, is_measured=measure, is_compiled=smoke)
        return _Run(work, retrain=retrain).upto(last, Path(output or f"{recipe.name}.mmedge"))


class _Run:
    """One run; the results of its steps lie in the cache, each under the hash of all that went in."""

    def __init__(self, work: Work, *, retrain: bool) -> None:
        self._work, self._retrain = work, retrain
        self._store = Store()
        self._report = RunReport(
            folder=self._store.folder,
            name=work.recipe.name,
            licence=work.recipe.licence,
            places=(str(self._store.folder), gettempdir(), *places_of(work.recipe)),
        )

    def upto(self, last: Step, output: Path) -> RunReport:
        work, report = self._work, self._report
        import_anew()
        with own_words("bring", work.recipe):
            work.recipe = self._brought(work.recipe)
        check_recipe(work.recipe)
        if last == "pack":
            check_forms(work.recipe)  # before anything takes its time
        is_trained = work.recipe.model is not None and not work.recipe.model.pretrained
        if last == "train" and not is_trained:
            raise ConfigError("the recipe has no [model] to train", where="model", fix="mmedge export RECIPE")
        todo = [spec for spec in TABLE if STEPS.index(spec.name) <= STEPS.index(last)]
        todo = [spec for spec in todo if self._has(spec, last)]
        count = len(todo) + is_trained + (last == "pack")
        if is_trained:
            self._timed("train", 0, self._train)
        elif work.recipe.model is not None:
            from .training import make_pretrained

            work.model = make_pretrained(work.recipe)
        for index, spec in enumerate(todo, is_trained):
            if self._has(spec, last):  # known of some when others are done
                self._timed(spec.name, index / count, lambda spec=spec: self._do(spec))
        if last == "pack":
            self._timed("pack", 1 - 1 / count, lambda: self._pack(output))
            report.forecasts = forecasts(output)
        report.provenance = dict(provenance(work.recipe, seed=work.metadata.get("seed")))
        work.show("done", 1.0)
        return report

    def _has(self, spec: StepSpec, last: Step) -> bool:
        """Tell whether this export has a step; raise ConfigError where it is the one that is asked for."""
        lack = spec.lacks(self._work)
        if lack is not None and spec.name == last:
            raise lack
        return lack is None

    def _brought(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the shapes of the networks that it brings along; they are measured once."""
        names = [name for name, stage in recipe.stages.items() if stage.onnx is not None]
        if not names:
            return recipe
        import_module("mmedge.export.bounded").try_recipe(recipe)  # which imports this module
        key = digest_of(toolchain_digest(), graph_digest(recipe)).hex()[:24]
        stored = self._store.get("shapes", key)
        if stored is None:
            filled, _ = bring(recipe)
            shapes = {name: filled.stages[name].outputs for name in names}
            self._store.put("shapes", key, lambda folder: (folder / _SHAPES).write_bytes(msgspec.json.encode(shapes)))
        else:
            raw = (stored.folder / _SHAPES).read_bytes()
            shapes = msgspec.json.decode(raw, type=learn(dict[str, dict[str, tuple[str | int, ...]]]))
        stages = {n: msgspec.structs.replace(s, outputs=shapes.get(n, s.outputs)) for n, s in recipe.stages.items()}
        return msgspec.structs.replace(recipe, stages=stages)

    def _timed(self, step: Step, share: float, do: Any) -> None:
        work, report = self._work, self._report
        work.show(step, share)
        before = time.monotonic()
        try:
            with own_words(step, work.recipe):
                if do():
                    report.cached.append(step)
        finally:
            report.take(work)
        report.seconds[step] = time.monotonic() - before

    def _do(self, spec: StepSpec) -> bool:
        """Do a step, unless its result is there; tell whether it was."""
        work, report = self._work, self._report
        taken = [(name, work.digests[name]) for name in spec.after if name in work.digests]
        key = digest_of(spec.name, toolchain_digest(), taken, spec.key(work)).hex()[:24]
        stored = self._store.get(spec.name, key)
        cached = stored is not None
        if stored is None:
            try:
                with collected() as warnings:
                    result = spec.make(work)
            except Exception as error:
                if is_unmeasurable(spec, error):
                    report.warnings.append(f"not measured: {error}".splitlines()[0])
                    return False
                raise
            if spec.keeps(result):
                stored = self._store.put(spec.name, key, lambda folder: spec.save(result, folder), tuple(warnings))
                if isinstance(result, OnnxModels) and any(map(left, result.models.values())):
                    result = spec.load(work, stored.folder)  # from where weights are shared, not copied again
        else:
            result = spec.load(work, stored.folder)
            warnings = list(stored.notes.warnings)
            for text in warnings:
                _log.warning("%s", text)
        report.warnings += warnings
        work.results[spec.name] = result
        if stored is not None:
            report.folder, work.digests[spec.name] = stored.folder, stored.digest
        with collected() as verdict:
            spec.check(work, result)
        report.warnings += verdict
        return cached

    def _train(self) -> bool:
        from . import training  # loads lightning where it trains

        work, recipe = self._work, self._work.recipe
        own = None if recipe.train.weights is None else recipe.path(recipe.train.weights)
        if own is not None and not self._retrain:
            target, cached = own, own.is_file()
            if not cached:
                self._note_training(f"no weights at {own}")
                training.train_and_save(recipe, output=own, progress=False)
        else:
            dataset = training.make_dataset(recipe)
            key = trained_key(recipe, b"".join(dataset.digest(split) for split in ("train", "validation")))
            stored = None if self._retrain else self._store.get("train", key)
            cached = stored is not None
            if stored is None:
                self._note_training("--retrain was given" if self._retrain else "the recipe names no weights")
                with scratch() as made:  # an error of the data is none of the cache
                    weights = made / _WEIGHTS
                    training.train_and_save(recipe, output=weights, progress=False)
                    stored = self._store.put("train", key, lambda folder: copy(weights, folder), anew=True)
            self._report.folder = stored.folder
            target = stored.folder / _WEIGHTS
        train = msgspec.structs.replace(recipe.train, weights=str(target))
        work.recipe = msgspec.structs.replace(recipe, train=train)
        work.model, work.metadata = training.load_weights(work.recipe)
        work.digests["train"] = file_hash(target)
        if own is not None and not self._retrain:
            self._report.folder = own.parent
        return cached

    def _note_training(self, why: str) -> None:
        _log.warning("training starts, which takes a while: %s", why)

    def _pack(self, output: Path) -> bool:
        """Write the bundle, unless it is there already, byte for byte what would be written."""
        work, recipe = self._work, self._work.recipe
        said = (recipe.licence, recipe.sha256, recipe.name)
        known = (*said, plain(recipe.tasks), plain(recipe.outputs), plain(recipe.validated_masks))
        taken = (work.digests["golden"], work.network, work.recorded, plain(work.metadata))
        key = digest_of("pack", toolchain_digest(), known, taken).hex()[:24]
        stored = self._store.get("pack", key)
        self._report.path = output
        if stored is not None and output.is_file() and (stored.folder / _WRITTEN).read_text() == file_hash(output):
            return True
        pack(output, recipe, work.versions, metadata=work.metadata, members=work.results["golden"])
        digest = file_hash(output)
        self._store.put("pack", key, lambda folder: (folder / _WRITTEN).write_text(digest), anew=True)
        return False


class _Collector(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())


@contextmanager
def collected() -> Iterator[list[str]]:
    """Yield the list of warnings that the toolchain logs meanwhile: they belong into the report."""
    texts: list[str] = []
    handler, logger = _Collector(texts), logging.getLogger("mmedge")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


@contextmanager
def _shown(progress: Show | None) -> Iterator[Show]:
    """Yield the caller's callback, or a bar on stderr that is there on a terminal only."""
    if progress is not None:
        yield progress
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("export", total=1.0)

        def show(text: str, share: float | None) -> None:
            bar.update(task, description=text, completed=share)

        yield show
