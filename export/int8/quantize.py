"""INT8 as explicit Q/DQ: ranges from raw recordings, insertion, and what it costs on samples held out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np
from onnx import ModelProto

from mmedge.bundle.manifest import Quantization
from mmedge.bundle.source import Age, Presence, parse_output
from mmedge.errors import ConfigError
from mmedge.types import AnyArray, Tensors

from ..onnx.onnx_models import OnnxModels
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Calibration, Recipe
from ..recordings import RawSample, RawSamples, as_samples
from ..report import sqnr_db
from ..stages import StageGraph, fed_back, masks, onnx_runners
from .qdq import activations, insert_qdq, quantizable
from .ranges import RangeCollector, largest_magnitudes, outliers

# Below this a stage without a seat of its own (a fusion network, a few thousand operations) gains nothing from int8.
MIN_FUSION_SQNR_DB = 20.0
_log = logging.getLogger(__name__)


def quantize(
    onnx: OnnxModels, calibration: Calibration | None = None, samples: RawSamples | Sequence[Tensors] | None = None
) -> OnnxModels:
    """Quantise every stage to INT8 with explicit Q/DQ pairs.

    Glitches (frames far outside the usual range of an input) are left out and named. Stages that take the
    presence mask are calibrated under every mask.

    Args:
        onnx: The fp32 networks.
        calibration: Recordings, frames and rule; the recipe's by default.
        samples: Raw samples instead of the recordings.

    Returns:
        The int8 networks in tensor form, with rule, glitches and SQNR per stage. A fusion stage that would lose
        too much stays float; its ``quantization`` says so.

    Raises:
        ConfigError: If there are no recordings, or ``onnx`` is quantised already.
        CheckError: If an activation is not finite.

    Example:
        >>> int8 = export.quantize(onnx, recipe.calibration)  # doctest: +SKIP
        >>> int8.quantization["image_encoder"].sqnr_db  # doctest: +SKIP
        29.8
    """
    if onnx.precision != "fp32":
        raise ConfigError(
            f"the networks are already {onnx.precision}",
            where="quantize",
            fix="pass the networks that to_onnx returned",
        )
    recipe = onnx.recipe
    if calibration is not None:
        recipe = msgspec.structs.replace(recipe, calibration=calibration)
    samples = as_samples(samples, recipe)
    preprocess = Preprocessor(recipe.inputs, recipe.export.opset)
    kept, dropped = _without_glitches(samples.calibration, preprocess)
    for name in dropped:
        _log.warning("calibration frame dropped as a glitch: %s", name)
    drafts = _insert(recipe, onnx.models, [preprocess(sample.arrays) for sample in kept])
    held_out = [preprocess(sample.arrays) for sample in samples.held_out]
    sqnr = _stage_sqnr(recipe, onnx.models, {stage: draft.model for stage, draft in drafts.items()}, held_out)

    models: dict[str, ModelProto] = {}
    quantization: dict[str, Quantization] = {}
    for stage, draft in drafts.items():
        worst = min(sqnr[f"{stage}.{output}"] for output in recipe.stages[stage].outputs)
        own_seat = any(source in recipe.inputs for source in recipe.stages[stage].inputs.values())
        ruined = not own_seat and worst < MIN_FUSION_SQNR_DB
        stays_float = ruined or not draft.nodes
        models[stage] = onnx.models[stage] if stays_float else draft.model
        if ruined:
            _log.warning(
                "stage '%s' stays float: %.1f dB in int8, at least %.0f wanted", stage, worst, MIN_FUSION_SQNR_DB
            )
        quantization[stage] = Quantization(
            rule=recipe.calibration.rule,
            frames=len(kept),
            float_nodes=draft.nodes if stays_float else (),
            sqnr_db=None if stays_float else round(worst, 2),
            dropped=dropped,
        )
    return replace(
        onnx,
        recipe=recipe,
        precision="int8",
        models=models,
        parity=(),
        quantization=quantization,
        sqnr_db={name: value for name, value in sqnr.items() if not quantization[parse_output(name).stage].float_nodes},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    model: ModelProto
    nodes: tuple[str, ...]


def _without_glitches(
    samples: Sequence[RawSample], preprocess: Preprocessor
) -> tuple[list[RawSample], tuple[str, ...]]:
    tensors = [preprocess(sample.arrays) for sample in samples]
    bad = np.zeros(len(samples), np.bool_)
    for name in tensors[0]:
        bad |= outliers(largest_magnitudes(sample[name] for sample in tensors))
    kept = [sample for sample, glitch in zip(samples, bad, strict=True) if not glitch]
    return kept, tuple(sample.name for sample, glitch in zip(samples, bad, strict=True) if glitch)


def _insert(recipe: Recipe, models: Mapping[str, ModelProto], frames: Sequence[Tensors]) -> dict[str, _Draft]:
    nodes: dict[str, list[str]] = {}
    collectors: dict[str, RangeCollector] = {}
    for stage, model in models.items():
        sources = recipe.stages[stage].sources.items()
        tensors = {tensor for tensor, source in sources if isinstance(source, (Presence, Age))}
        nodes[stage] = quantizable(model, tensors)
        collectors[stage] = RangeCollector(model, activations(model, nodes[stage]), name=stage)
    everything = tuple(recipe.inputs)
    graphs = {
        mask: StageGraph(recipe, {stage: partial(run, group=mask) for stage, run in collectors.items()})
        for mask in masks(recipe)
    }
    states: dict[str, AnyArray] = {}
    for frame in frames:
        sample = {**frame, **states}
        known = graphs[everything](sample)
        for mask, graph in graphs.items():
            if mask != everything:
                graph(sample, mask, reuse=known)
        states = fed_back(recipe, known)
    calibration = recipe.calibration
    return {
        stage: _Draft(
            model=insert_qdq(model, nodes[stage], collectors[stage].thresholds(calibration.rule, calibration.quantile)),
            nodes=tuple(nodes[stage]),
        )
        for stage, model in models.items()
    }


def _stage_sqnr(
    recipe: Recipe, fp32: Mapping[str, ModelProto], int8: Mapping[str, ModelProto], frames: Sequence[Tensors]
) -> dict[str, float]:
    """Return the SQNR of each stage's outputs on fp32 inputs, so that each stage answers for itself."""
    graph, quantised = StageGraph(recipe, onnx_runners(fp32)), onnx_runners(int8)
    want: dict[str, list[AnyArray]] = {}
    got: dict[str, list[AnyArray]] = {}
    states: dict[str, AnyArray] = {}
    for frame in frames:
        known = graph({**frame, **states})
        for stage, run in quantised.items():
            for output, value in run(graph.feeds(stage, known, last=states)).items():
                want.setdefault(f"{stage}.{output}", []).append(known[f"{stage}.{output}"])
                got.setdefault(f"{stage}.{output}", []).append(value)
        states = fed_back(recipe, known)
    return {name: sqnr_db(np.stack(want[name]), np.stack(got[name])) for name in want}
