"""The steps of an export as a table: what each takes, what it depends on, what it does, how its result is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mmedge.errors import MissingDependencyError
from mmedge.learn import learn

from .int8.compare import Comparison, compare_all
from .int8.fp16 import to_fp16
from .int8.half_rest import half_rest
from .int8.quantize import quantize
from .keys import data_code, plain, train_digest
from .onnx.gate import Gate, parser_gate, refuse
from .onnx.onnx_models import OnnxModels, Parity
from .onnx.to_onnx import check_parity, export_stages, stage_modules
from .pack import Members, make_members
from .recipe import Recipe
from .smoke import Smoke, smoke, smoke_key
from .step_lacks import without, without_builds, without_data, without_quantised
from .work import QUANTISED, StepSpec, Work

_log = logging.getLogger(__name__)


def _encoded(name: str) -> Callable[[Any, Path], None]:
    def save(result: Any, folder: Path) -> None:
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(result)))

    return save


def _decoded(name: str, kind: Any) -> Callable[[Work, Path], Any]:
    return lambda work, folder: msgspec.json.decode((folder / name).read_bytes(), type=learn(kind))


def _saved(result: OnnxModels, folder: Path) -> None:
    result.save(folder)


def _parity(work: Work) -> tuple[Parity, ...]:
    modules = stage_modules(work.model, work.recipe)
    return check_parity(work.fp32, modules, [sample.arrays for sample in work.samples.held_out[:8]])


def _calibration(work: Work) -> object:
    return {**plain(work.recipe.calibration), "recordings": None, "max_drop_points": None}


def _searched(work: Work) -> object:
    """Return what the search for a quantised form judges by, beside ranges, and what TensorRT gets of it."""
    recipe = work.recipe
    rest = recipe.export.rest, smoke_key() if "tensorrt" in recipe.export.targets else None
    return plain(recipe.tasks), plain(recipe.outputs), recipe.calibration.max_drop_points, recipe.export.targets, rest


def _tasks(work: Work) -> object:
    return plain(work.recipe.tasks), plain(work.recipe.outputs), work.metadata.get("temperature", {})


def _quantise(precision: Literal["int8", "fp8", "int4"]) -> Callable[[Work], OnnxModels]:
    def make(work: Work) -> OnnxModels:
        found = quantize(work.fp32, work.recipe.calibration, work.samples, precision=precision)
        return half_rest(found, work.fp32, work.samples, work.results.get("parser"))

    return make


def _compare(work: Work) -> tuple[Comparison, ...]:
    temperature: Mapping[str, float] = work.metadata.get("temperature", {})
    return compare_all(work.fp32, work.quantised, work.recipe.calibration, temperature=temperature)


def _check_compared(work: Work, found: tuple[Comparison, ...]) -> None:
    for comparison in found:
        comparison.raise_for_status(work.recipe.calibration.max_drop_points)


def _measure(work: Work) -> Any:
    from .measure import measure
    from .training import make_dataset

    with work.recipe.importable():
        dataset = make_dataset(work.recipe)
        dataset.prepare()
        return measure(
            work.measured, dataset, progress=lambda done, of: work.show(f"measure: {done} of {of} samples", None)
        )


def _measure_key(work: Work) -> object:
    from .measure import measure_key
    from .training import make_dataset

    recipe = work.recipe
    with recipe.importable():
        return measure_key(make_dataset(recipe)), data_code(recipe), plain(recipe.tasks)


def _load_measured(work: Work, folder: Path) -> Any:
    from .measure import Measurement

    return msgspec.json.decode((folder / "measurement.json").read_bytes(), type=learn(Measurement))


def _check_measured(work: Work, result: Any) -> None:
    from .training import mask_figures

    result.raise_for_status(work.recipe.calibration.max_drop_points)
    for name in work.recipe.tasks.keys() - {row.task for row in result.rows}:
        _log.warning("task '%s' is not measured: nothing says how accurate it is", name)
    if result.rows:  # what was measured here stands, even if it validates nothing
        work.metadata = {**work.metadata, "validated_masks": mask_figures(work.recipe, result.counts)}


def _forms(work: Work) -> object:
    return work.recipe.export.targets, work.recipe.export.precisions


TABLE: tuple[StepSpec, ...] = (
    StepSpec(
        name="onnx",
        after=(),
        key=lambda work: (work.network, work.recipe.export.targets),
        make=lambda work: export_stages(work.model, work.recipe)[0],
        save=_saved,
        load=lambda work, folder: OnnxModels.load(folder, work.recipe, "fp32"),
    ),
    StepSpec(
        name="parity",
        after=("onnx",),
        key=lambda work: (work.network, work.recorded, _calibration(work)),
        make=_parity,
        save=_encoded("parity.json"),
        load=_decoded("parity.json", tuple[Parity, ...]),
    ),
    StepSpec(
        name="parser",
        after=("onnx",),
        key=lambda work: smoke_key(),
        make=lambda work: parser_gate(work.recipe, work.fp32.models, work.fp32.sources),
        save=_encoded("parser.json"),
        load=_decoded("parser.json", Gate),
        lacks=without("targets", "tensorrt"),
        check=lambda work, result: refuse(work.recipe, result),
    ),
    StepSpec(
        name="fp16",
        after=("onnx",),
        key=lambda work: (work.graph, work.recorded, _calibration(work)),
        make=lambda work: to_fp16(work.fp32, work.samples),
        save=_saved,
        load=lambda work, folder: OnnxModels.load(folder, work.recipe, "fp16"),
        lacks=without("precisions", "fp16"),
    ),
    StepSpec(
        name="quantize",
        after=("onnx", "parser"),
        key=lambda work: (work.graph, work.recorded, _calibration(work), _searched(work)),
        make=_quantise("int8"),
        save=_saved,
        load=lambda work, folder: OnnxModels.load(folder, work.recipe, "int8"),
        lacks=without("precisions", "int8"),
    ),
    StepSpec(
        name="fp8",
        after=("onnx", "parser"),
        key=lambda work: (work.graph, work.recorded, _calibration(work), _searched(work)),
        make=_quantise("fp8"),
        save=_saved,
        load=lambda work, folder: OnnxModels.load(folder, work.recipe, "fp8"),
        lacks=without("precisions", "fp8"),
    ),
    StepSpec(
        name="int4",
        after=("onnx", "parser"),
        key=lambda work: (work.graph, work.recorded, _calibration(work), _searched(work)),
        make=_quantise("int4"),
        save=_saved,
        load=lambda work, folder: OnnxModels.load(folder, work.recipe, "int4"),
        lacks=without("precisions", "int4"),
    ),
    StepSpec(
        name="compare",
        after=("onnx", *QUANTISED),
        key=lambda work: (work.graph, work.recorded, _calibration(work), _tasks(work)),
        make=_compare,
        save=_encoded("comparison.json"),
        load=_decoded("comparison.json", tuple[Comparison, ...]),
        lacks=without_quantised,
        check=_check_compared,
    ),
    StepSpec(
        name="measure",
        after=("onnx", *QUANTISED),
        key=lambda work: (work.graph, _measure_key(work)),
        make=_measure,
        save=_encoded("measurement.json"),
        load=_load_measured,
        lacks=without_data,
        check=_check_measured,
    ),
    StepSpec(
        name="golden",
        after=("onnx", "parser", "fp16", *QUANTISED),
        key=lambda work: (work.graph, work.recorded, _calibration(work), _forms(work)),
        make=lambda work: make_members(work.recipe, work.versions, work.samples, work.results.get("parser")),
        save=lambda result, folder: result.save(folder),
        load=lambda work, folder: Members.load(folder),
    ),
    StepSpec(
        name="smoke",
        after=("golden",),
        key=lambda work: smoke_key(),
        make=lambda work: smoke(work.results["golden"], work.fp32.sources, work.show),
        save=_encoded("smoke.json"),
        load=_decoded("smoke.json", Smoke),
        lacks=without_builds,
        keeps=lambda result: all(row.problem is None for row in result.rows),
    ),
)


def is_unmeasurable(spec: StepSpec, error: Exception) -> bool:
    """Tell whether a step is left out, with a warning, since its data need what is not installed."""
    if spec.name != "measure" or not isinstance(error, MissingDependencyError):
        return False
    _log.warning("the exported networks are not measured, so the bundle keeps the figures of training: %s", error)
    return True


def trained_key(recipe: Recipe, data: bytes) -> str:
    """Return the key of the weights that a recipe trains."""
    return train_digest(recipe, data).hex()[:24]
