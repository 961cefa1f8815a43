"""All steps of a recipe in order, each done once: weights, ONNX, INT8, comparison, measurement, bundle."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmedge.bundle.manifest import TextInput
from mmedge.console import err
from mmedge.errors import ConfigError, MissingDependencyError
from mmedge.files import user_cache

from .brought.brought import bring
from .int8.compare import Comparison, compare
from .int8.quantize import quantize
from .onnx.network_file import load_network
from .onnx.onnx_models import OnnxModels
from .onnx.to_onnx import random_samples, to_onnx
from .pack import pack
from .recipe import Recipe, check_recipe
from .recordings import RawSamples, raw_samples, recording_files
from .report import QuantizationReport, quantization_report
from .tokenizer import read_tokenizer

if TYPE_CHECKING:
    from torch import nn

    from .measure import Measurement

Step = Literal["train", "onnx", "quantize", "compare", "measure", "pack"]
Show = Callable[[str, float | None], None]
_log = logging.getLogger(__name__)
_ROOMS = ("brought", "int8", "models", "onnx", "preprocess")
STEPS: tuple[Step, ...] = ("train", "onnx", "quantize", "compare", "measure", "pack")


@dataclass(kw_only=True)
class RunReport:
    """What a run of the steps did and measured.

    Attributes:
        folder: Where the intermediate networks are.
        path: The bundle, None if the run stopped before.
        seconds: Step -> how long it took.
        cached: Steps whose result was there already.
    """

    folder: Path
    path: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    onnx: OnnxModels | None = None
    quantization: QuantizationReport | None = None
    comparison: Comparison | None = None
    measurement: Measurement | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the document of schema ``mmedge.export/1``."""
        return {
            "schema": "mmedge.export/1",
            "bundle": None if self.path is None else str(self.path),
            "folder": str(self.folder),
            "seconds": {step: round(value, 2) for step, value in self.seconds.items()},
            "cached": self.cached,
            "parity": None if self.onnx is None else msgspec.to_builtins(self.onnx.parity),
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "measurement": None if self.measurement is None else self.measurement.to_dict(),
        }

    def print(self, console: Console) -> None:
        """Print the tables."""
        if self.onnx is not None and self.onnx.parity:
            table = Table(title="ONNX against torch")
            for heading in ("output", "samples", "max relative difference", "cosine"):
                table.add_column(heading, justify="left" if heading == "output" else "right")
            for row in self.onnx.parity:
                table.add_row(f"{row.stage}.{row.output}", str(row.samples), f"{row.max_rel:.1e}", f"{row.cosine:.6f}")
            console.print(table)
        for report in (self.quantization, self.comparison, self.measurement):
            if report is not None:
                console.print(report.table())
        steps = ", ".join(f"{s} {'cached' if s in self.cached else f'{t:.1f} s'}" for s, t in self.seconds.items())
        console.print(f"{self.path or self.folder}  ({steps})", highlight=False)


def run(
    recipe: Recipe, *, output: str | Path | None = None, only: Step | None = None, progress: Show | None = None
) -> Path:
    """Do all steps of a recipe; what was done before with the same input is not done again.

    Args:
        recipe: The recipe. Its weights are loaded, or trained first where there are none.
        output: The bundle; by default ``NAME.mmedge`` here.
        only: Stop after this step.
        progress: Called with a message and a share 0..1; by default a bar on stderr, on a terminal only.

    Returns:
        The bundle, or the folder of intermediate files if ``only`` stopped before it was made.

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
    only: Step | None = None,
    retrain: bool = False,
    measure: bool = True,
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
        progress: Called with a message and a share 0..1.

    Returns:
        The report.
    """
    if only is not None and only not in STEPS:
        raise ConfigError(f"unknown step '{only}'", where="only", fix=f"one of {', '.join(STEPS)}")
    with _shown(progress) as show:
        steps = _Steps(recipe, show, retrain=retrain, measure=measure)
        return steps.upto(only or "pack", Path(output or f"{recipe.name}.mmedge"))


class _Steps:
    """One run; intermediate files lie in a folder named by the hash of all that goes in."""

    def __init__(self, recipe: Recipe, show: Show, *, retrain: bool, measure: bool) -> None:
        self._retrain, self._show = retrain, show
        self._measured = measure and (recipe.data.dataset or recipe.data.folder) is not None
        self._recipe = recipe
        self._model: nn.Module | None = None
        self._metadata: dict[str, Any] = {}
        self._report = RunReport(folder=cache_folder())

    def upto(self, last: Step, output: Path) -> RunReport:
        import_module("mmedge.export.bounded").try_recipe(self._recipe)  # which imports this module
        self._recipe, _ = bring(self._recipe)
        check_recipe(self._recipe)
        report, recipe = self._report, self._recipe
        steps: dict[Step, Callable[[], bool]] = {}
        if recipe.model is not None and not recipe.model.pretrained:
            steps["train"] = self._train
        elif last == "train":
            raise ConfigError("the recipe has no [model] to train", where="model", fix="mmedge export RECIPE")
        else:
            report.folder = cache_folder() / content_key(recipe)
        steps["onnx"] = self._onnx
        if "int8" in recipe.export.precisions:
            steps |= {"quantize": self._quantize, "compare": self._compare}
        if self._measured:
            steps["measure"] = self._measure
        elif last == "measure":
            raise ConfigError(
                "the recipe has no data to measure on", where=recipe.at("data"), fix="set data.dataset or data.folder"
            )
        steps["pack"] = lambda: self._pack(output)
        for index, (step, do) in enumerate(steps.items()):
            if STEPS.index(step) > STEPS.index(last):
                break
            self._show(step, index / len(steps))
            before = time.monotonic()
            if do():
                report.cached.append(step)
            report.seconds[step] = time.monotonic() - before
        self._show("done", 1.0)
        return report

    def _train(self) -> bool:
        from . import training  # loads lightning where it trains

        recipe = self._recipe
        target = cache_folder() / f"{recipe.name}-{recipe.sha256[:16]}.safetensors"
        if recipe.train.weights is not None and not self._retrain:
            target = recipe.path(recipe.train.weights)
        cached = target.is_file() and not self._retrain
        if not cached:
            _log.warning(
                "training starts, which takes a while: %s",
                "--retrain was given" if self._retrain else f"no weights at {target}",
            )
            training.train_and_save(recipe, output=target, progress=False)
        train = msgspec.structs.replace(recipe.train, weights=str(target))
        self._recipe = msgspec.structs.replace(recipe, train=train)
        self._model, self._metadata = training.load_weights(self._recipe)
        self._report.folder = cache_folder() / content_key(self._recipe)
        return cached

    def _onnx(self) -> bool:
        from . import training

        folder, recipe = self._report.folder, self._recipe
        if cached := (folder / "fp32.json").is_file():
            onnx = OnnxModels.load(folder, recipe, "fp32")
        else:
            if recipe.model is not None and recipe.model.pretrained:
                self._model = training.make_pretrained(recipe)
            onnx = to_onnx(self._model, recipe, [sample.arrays for sample in self._samples.held_out[:8]])
            _saved(onnx, folder)
        self._report.onnx = onnx
        return cached

    def _quantize(self) -> bool:
        folder = self._report.folder
        if cached := (folder / "int8.json").is_file():
            self._int8 = OnnxModels.load(folder, self._recipe, "int8")
        else:
            self._int8 = quantize(self._fp32, self._recipe.calibration, self._samples)
            _saved(self._int8, folder)
        self._report.quantization = quantization_report(self._fp32, self._int8)
        return cached

    def _compare(self) -> bool:
        file = self._report.folder / "comparison.json"
        if cached := file.is_file():
            comparison = msgspec.json.decode(file.read_bytes(), type=Comparison)
        else:
            temperature = self._metadata.get("temperature", {})
            comparison = compare(self._fp32, self._int8, self._recipe.calibration, temperature=temperature)
            file.write_bytes(msgspec.json.encode(comparison))
        self._report.comparison = comparison
        comparison.raise_for_status(self._recipe.calibration.max_drop_points)
        return cached

    def _measure(self) -> bool:
        from .measure import Measurement, measure, measure_key
        from .training import make_dataset, mask_figures

        recipe = self._recipe
        with recipe.importable():
            try:
                dataset = make_dataset(recipe)
                file = self._report.folder / f"measurement-{measure_key(dataset)}.json"
                if cached := file.is_file():
                    measurement = msgspec.json.decode(file.read_bytes(), type=Measurement)
                else:
                    dataset.prepare()
                    measurement = measure(self._versions, dataset, progress=self._count)
                    file.write_bytes(msgspec.json.encode(measurement))
            except MissingDependencyError as error:
                _log.warning(
                    "the exported networks are not measured, so the bundle keeps the figures of training: %s", error
                )
                return False
        self._report.measurement = measurement
        measurement.raise_for_status(recipe.calibration.max_drop_points)
        if measurement.rows:  # what was measured here stands, even if it validates nothing
            self._metadata = {**self._metadata, "validated_masks": mask_figures(recipe, measurement.counts)}
        return cached

    def _count(self, done: int, count: int) -> None:
        self._show(f"measure: {done} of {count} samples", None)

    def _pack(self, output: Path) -> bool:
        self._report.path = pack(output, self._recipe, self._versions, metadata=self._metadata, samples=self._samples)
        return False

    @property
    def _versions(self) -> list[OnnxModels]:
        return [self._fp32, self._int8] if "int8" in self._recipe.export.precisions else [self._fp32]

    @property
    def _fp32(self) -> OnnxModels:
        assert self._report.onnx is not None
        return self._report.onnx

    @cached_property
    def _samples(self) -> RawSamples:
        """Read once, used by every step."""
        recipe = self._recipe
        if recipe.calibration.recordings is None and "int8" not in recipe.export.precisions:
            return RawSamples.split(random_samples(recipe, 12), "noise")
        self._show("recordings", None)
        return raw_samples(recipe)


def cache_folder() -> Path:
    """Return the folder of intermediate results: ``$XDG_CACHE_HOME/mmedge/export``."""
    folder = user_cache("export")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def content_key(recipe: Recipe) -> str:
    """Return the hash of everything the intermediate results depend on.

    That is recipe, weights, recordings, tokenizers, versions, the model's module and this toolchain's own sources.
    """
    digest = hashlib.sha256(recipe.sha256.encode())
    for package in ("mmedge", "torch", "onnx", "onnxscript", "onnxruntime", "numpy"):
        digest.update(f"{package} {version(package)}\n".encode())
    own = Path(__file__).parent
    # Data sets and training show in the weights alone.
    files = sorted(path for room in (".", *_ROOMS) for path in own.glob(f"{room}/*.py"))
    for stage in recipe.stages.values():
        if stage.onnx is not None:  # with the weights that lie beside it
            digest.update(load_network(recipe.path(stage.onnx)).SerializeToString(deterministic=True))
    named = [stage.callable for stage in recipe.stages.values() if stage.callable is not None]
    named += [] if recipe.model is None else [recipe.model.factory]
    with recipe.importable():
        specs = [find_spec(name.partition(":")[0]) for name in named]
    files += [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
    if recipe.train.weights is not None:
        files.append(recipe.path(recipe.train.weights))
    if recipe.calibration.recordings is not None:
        files += recording_files(recipe)
    for name, seat in recipe.inputs.items():
        if isinstance(seat, TextInput):
            digest.update(read_tokenizer(recipe, name))
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _saved(models: OnnxModels, folder: Path) -> None:
    try:
        models.save(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write the export cache: {error.strerror}",
        where=str(folder),
        fix="set XDG_CACHE_HOME to a writable folder",
    )


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
