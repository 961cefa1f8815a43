"""INT8 as explicit Q/DQ: ranges from raw recordings, insertion, and what it costs on samples held out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
from onnx import ModelProto

from mmedge.bundle.manifest import Quantization
from mmedge.bundle.source import Age, Presence
from mmedge.errors import ConfigError
from mmedge.types import Tensors

from ..onnx.onnx_models import OnnxModels
from ..onnx.state import already_quantised
from ..recipe import Calibration, Recipe
from ..recordings import RawSamples, as_samples
from ..stages import fed_shapes
from .glitches import usable
from .prepare import note_types, plain_gemms, prepare, tensor_types
from .qdq import choose
from .search import MIN_SQNR_DB, Draft, Network, Search

FEW_FRAMES = 16
_log = logging.getLogger(__name__)


def quantize(
    onnx: OnnxModels, calibration: Calibration | None = None, samples: RawSamples | Iterable[Tensors] | None = None
) -> OnnxModels:
    """Quantise every stage to INT8 with explicit Q/DQ pairs.

    Glitches (single frames far outside the usual range of an input) are left out and named. Stages that take the
    presence mask are calibrated under every mask. If the answers differ from fp32's more often than the recipe allows,
    other rules are tried, then layers are equalised, then those that cost most stay float.

    Args:
        onnx: The fp32 networks.
        calibration: Recordings, frames and rule; the recipe's by default.
        samples: Raw samples instead of the recordings.

    Returns:
        The int8 networks in tensor form, with rule, glitches, SQNR and float nodes per stage. A stage of which nothing
        is quantised has none; ``skipped`` says why.

    Raises:
        ConfigError: If there are no recordings, or ``onnx`` is quantised already, or samples do not fit the inputs.
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
    given = as_samples(samples, recipe)
    if not len(given.calibration):
        raise ConfigError("no sample calibrates", where="samples", fix="give samples of the whole recording")
    networks, skipped = networks_of(recipe, onnx.models)
    frames, dropped = usable(given.calibration, recipe)
    for name in dropped:
        _log.warning("calibration frame dropped as a glitch: %s", name)
    if len(frames) < FEW_FRAMES:
        _log.warning(
            "%d samples calibrate: ranges of so few may be too narrow, %d are the least", len(frames), FEW_FRAMES
        )
    # What chooses does not judge, as far as there are enough samples. Nobody asks what is answered to a glitch.
    choosing, _ = usable(given.held_out if given.choosing is None else given.choosing, recipe)
    judging = None if given.judging is None else usable(given.judging, recipe)[0]
    draft = Search(recipe, onnx.models, networks, frames, choosing, judging)() if networks else None
    quantization: dict[str, Quantization] = {}
    for stage, network in networks.items():
        assert draft is not None
        if stage in draft.stays_float:
            skipped[stage] = draft.stays_float[stage]
        quantization[stage] = _notes(recipe, stage, network, draft, len(frames), dropped)
    for stage, reason in skipped.items():
        _log.warning("stage '%s' is left as it is: %s", stage, reason)
    models = {} if draft is None else dict(draft.models)
    asked = recipe.calibration.rule
    if models and draft is not None and asked not in ("auto", draft.rule):
        _log.warning("rule '%s' was asked for, '%s' is taken, which does better on samples held out", asked, draft.rule)
    for stage in models:
        if (noise := quantization[stage].sqnr_db) is not None and noise < MIN_SQNR_DB:
            _log.warning(
                "stage '%s' is noisy in int8: %.1f dB, at least %.0f are usual; look at what it answers alone",
                stage,
                noise,
                MIN_SQNR_DB,
            )
        for node, why in quantization[stage].reasons.items():
            _log.warning("stage '%s': %s stays float: %s", stage, node, why)
    return replace(
        onnx,
        recipe=recipe,
        precision="int8",
        models=models,
        parity=(),
        quantization=quantization,
        skipped=skipped,
        sqnr_db={} if draft is None else {n: db for n, db in draft.sqnr_db.items() if n.rpartition(".")[0] in models},
    )


def networks_of(recipe: Recipe, models: Mapping[str, ModelProto]) -> tuple[dict[str, Network], dict[str, str]]:
    """Return what is quantised of the stages, and stage -> why nothing is.

    Args:
        recipe: Gives the sources of each stage.
        models: The fp32 networks.

    Raises:
        CheckError: If the normal form of a network differs from the network.
    """
    networks: dict[str, Network] = {}
    skipped: dict[str, str] = {}
    for stage, model in models.items():
        if (found := already_quantised(model)) is not None:
            skipped[stage] = f"it is quantised already ({found})"
            continue
        sources = recipe.stages[stage].sources.items()
        masks = {tensor for tensor, source in sources if isinstance(source, (Presence, Age))}
        normal = plain_gemms(prepare(model, f"stage '{stage}'", fed_shapes(recipe, stage)), f"stage '{stage}'")
        types = tensor_types(normal, f"stage '{stage}'")
        choice = choose(normal, masks, {name: kind for name, (kind, _) in types.items()})
        if not choice.nodes:
            why = "; ".join(f"{node}: {reason}" for node, reason in list(choice.reasons.items())[:3])
            skipped[stage] = why or "it has no layer with weights"
            continue
        note_types(normal, choice.tensors)
        shapes = {
            name: tuple(dim for dim in shape if isinstance(dim, int))
            for name, (_, shape) in types.items()
            if all(isinstance(dim, int) for dim in shape)
        }
        networks[stage] = Network(
            model=normal, nodes=choice.nodes, tensors=choice.tensors, shapes=shapes, reasons=dict(choice.reasons)
        )
    return networks, skipped


def _notes(
    recipe: Recipe, stage: str, network: Network, draft: Draft, frames: int, dropped: tuple[str, ...]
) -> Quantization:
    is_float = stage in draft.stays_float
    reasons = {**network.reasons, **draft.refused[stage]}
    worst = min((draft.sqnr_db.get(f"{stage}.{output}", 200.0) for output in recipe.stages[stage].outputs), default=0.0)
    return Quantization(
        rule=draft.rule,
        frames=frames,
        float_nodes=network.nodes if is_float else tuple(reasons),
        sqnr_db=None if is_float else round(worst, 2),
        dropped=dropped,
        reasons=reasons,
        equalized=draft.equalized[stage],
        worst=draft.worst,
    )
