"""Explicit Q/DQ in INT8, FP8 or INT4: ranges from raw recordings, insertion, the cost on samples held out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import msgspec
from onnx import ModelProto

from mmedge.bundle.manifest import Quantization
from mmedge.bundle.source import Age, Presence
from mmedge.errors import CheckError, ConfigError
from mmedge.types import Tensors

from ..onnx.onnx_models import OnnxModels
from ..onnx.opset import at_least
from ..onnx.outside import whole, why_not
from ..onnx.state import already_quantised
from ..recipe import Calibration, Recipe
from ..recordings import RawSamples, as_samples
from ..stages import fed_shapes
from .cpu_kernels import find_kernels
from .forms import FORMS, INT8, Form
from .glitches import usable
from .prepare import note_types, plain_gemms, prepare, tensor_types
from .qdq import choose, has_weight
from .search import MIN_SQNR_DB, Draft, Network, Search

FEW_FRAMES = 16
_log = logging.getLogger(__name__)


def quantize(
    onnx: OnnxModels,
    calibration: Calibration | None = None,
    samples: RawSamples | Iterable[Tensors] | None = None,
    *,
    precision: Literal["int8", "fp8", "int4"] = "int8",
) -> OnnxModels:
    """Quantise every stage with explicit Q/DQ pairs.

    INT8 has weights per channel and activations per tensor, FP8 (E4M3) both per tensor; INT4 stores the weights of
    matrix products alone, in blocks, and leaves activations in float.

    Glitches (single frames far outside the usual range of an input) are left out and named. Stages that take the
    presence mask are calibrated under every mask. If the answers differ from fp32's more often than the recipe allows,
    other rules are tried, then layers are equalised, then those that cost most stay float.

    Args:
        onnx: The fp32 networks.
        calibration: Recordings, frames and rule; the recipe's by default.
        samples: Raw samples instead of the recordings.
        precision: What they are quantised to.

    Returns:
        The quantised networks in tensor form, with rule, glitches, SQNR and float nodes per stage. A stage of which
        nothing is quantised has none; ``skipped`` says why.

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
    form = FORMS[precision]
    networks, skipped = networks_of(recipe, onnx.models, form)
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
    draft = Search(recipe, onnx.models, networks, frames, choosing, judging, form)() if networks else None
    quantization: dict[str, Quantization] = {}
    for stage, network in networks.items():
        assert draft is not None
        if stage in draft.stays_float:
            skipped[stage] = draft.stays_float[stage]
        quantization[stage] = _notes(recipe, stage, network, draft, len(frames), dropped, form)
    for stage, reason in skipped.items():
        _log.warning("stage '%s' is left as it is%s: %s", stage, "" if form is INT8 else f" in {precision}", reason)
    models = {} if draft is None else dict(draft.models)
    asked = recipe.calibration.rule
    if models and draft is not None and asked not in ("auto", draft.rule):
        _log.warning("rule '%s' was asked for, '%s' is taken, which does better on samples held out", asked, draft.rule)
    for stage in models:
        if (noise := quantization[stage].sqnr_db) is not None and noise < MIN_SQNR_DB:
            _log.warning(
                "stage '%s' is noisy in %s: %.1f dB, at least %.0f are usual; look at what it answers alone",
                stage,
                precision,
                noise,
                MIN_SQNR_DB,
            )
        by_reason: dict[str, list[str]] = {}
        for node, why in quantization[stage].reasons.items():
            if form is INT8:
                _log.warning("stage '%s': %s stays float: %s", stage, node, why)
            by_reason.setdefault(why, []).append(node)
        for why, nodes in by_reason.items() if form is not INT8 else ():
            more = f" and {len(nodes) - 1} more stay" if len(nodes) > 1 else " stays"
            _log.warning("stage '%s': %s%s float in %s: %s", stage, nodes[0], more, precision, why)
    return replace(
        onnx,
        recipe=recipe,
        precision=precision,
        models=models,
        parity=(),
        quantization=quantization,
        skipped=skipped,
        ranges={} if draft is None else {stage: draft.ranges[stage] for stage in models},
        sqnr_db={} if draft is None else {n: db for n, db in draft.sqnr_db.items() if n.rpartition(".")[0] in models},
    )


def networks_of(
    recipe: Recipe, models: Mapping[str, ModelProto], form: Form = INT8
) -> tuple[dict[str, Network], dict[str, str]]:
    """Return what is quantised of the stages, and stage -> why nothing is.

    Args:
        recipe: Gives the sources of each stage.
        models: The fp32 networks.
        form: To what they are quantised.

    Raises:
        CheckError: If the normal form of a network differs from the network.
    """
    networks: dict[str, Network] = {}
    skipped: dict[str, str] = {}
    for stage, model in models.items():
        if (found := already_quantised(model)) is not None:
            skipped[stage] = f"it is quantised already ({found})"
            continue
        if (why := why_not(model, form.precision)) is not None:
            skipped[stage] = why
            continue
        model = whole(model)
        sources = recipe.stages[stage].sources.items()
        masks = {tensor for tensor, source in sources if isinstance(source, (Presence, Age))}
        try:
            model = at_least(model, form.opset, f"stage '{stage}'")
        except (CheckError, ConfigError) as error:
            skipped[stage] = error.message
            continue
        normal = plain_gemms(prepare(model, f"stage '{stage}'", fed_shapes(recipe, stage)), f"stage '{stage}'")
        types = tensor_types(normal, f"stage '{stage}'")
        choice = choose(normal, masks, {name: kind for name, (kind, _) in types.items()})
        constants = {tensor.name: tensor for tensor in normal.graph.initializer}
        reasons = dict(choice.reasons)
        nodes = []
        for node in (node for node in normal.graph.node if node.name in choice.nodes):
            if (why := form.refuses(node, constants)) is None:
                nodes.append(node.name)
            elif has_weight(node, constants):
                reasons[node.name] = why
        if not nodes:
            why = "; ".join(f"{node}: {reason}" for node, reason in list(reasons.items())[:3])
            skipped[stage] = why or "it has no layer with weights"
            continue
        tensors = form.tensors(normal, nodes)
        if form is INT8 and "cpu" in recipe.export.targets:
            tensors += find_kernels(normal.graph, nodes, tensors).tensors
        note_types(normal, tensors)
        shapes = {
            name: tuple(dim for dim in shape if isinstance(dim, int))
            for name, (_, shape) in types.items()
            if all(isinstance(dim, int) for dim in shape)
        }
        networks[stage] = Network(model=normal, nodes=tuple(nodes), tensors=tensors, shapes=shapes, reasons=reasons)
    return networks, skipped


def _notes(
    recipe: Recipe, stage: str, network: Network, draft: Draft, frames: int, dropped: tuple[str, ...], form: Form
) -> Quantization:
    is_float = stage in draft.stays_float
    reasons = {**network.reasons, **draft.refused[stage]}
    worst = min((draft.sqnr_db.get(f"{stage}.{output}", 200.0) for output in recipe.stages[stage].outputs), default=0.0)
    return Quantization(
        rule=draft.rule if form.rule is None else f"{form.rule}, {draft.rule}",
        frames=frames,
        float_nodes=network.nodes if is_float else tuple(reasons),
        sqnr_db=None if is_float else round(worst, 2),
        dropped=dropped,
        reasons=reasons,
        equalized=draft.equalized[stage],
        worst=draft.worst,
    )
