"""The rest of a quantised network in float16 for TensorRT, which computes in the types that a file says.

What overflows or needs float32 stays there, as in FP16 alone. A pair's scale is of the type of the float on its side: a
DequantizeLinear is as wide as the node that reads it (a Cast between the two would keep it from running in 8 bits), and
a QuantizeLinear as wide as the node before it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mmedge.engine.parse_check import ask_parser
from mmedge.errors import CheckError, ConfigError
from mmedge.types import Tensors

from ..onnx.gate import Gate
from ..onnx.onnx_models import OnnxModels
from ..onnx.opset import at_least
from ..onnx.parity import check_rewrite
from ..parts import CHOOSING, choose
from ..recordings import LazySamples, RawSamples, as_samples
from .answers import Reference, TaskComparison
from .compare import Comparison
from .emulated import emulated
from .fp16 import HEADROOM, LARGEST, MIN_SQNR_DB, Measured, converted, in_float32, limit_at, measured, settle
from .glitches import usable

OPSET = 19  # before it, scales are float32
_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
# A scale in float16 may be so far off, as a share: the largest int8 value then moves by half a step.
_SCALE = 1 / 256
# So much noisier the answers may become on average, in dB, unless they are as exact as FP16's must be. Under one mask
# the noise of few samples differs by as much from one rounding to the next.
_NOISIER_DB = 1.0
# A stage that float16 moves further is left alone, before its answers are looked at.
_LEAST_DB = 20.0
_KEEP = 'set rest = "fp32" in [export]'
_log = logging.getLogger(__name__)


def half_rest(
    quantised: OnnxModels,
    fp32: OnnxModels,
    samples: RawSamples | Iterable[Tensors] | None = None,
    gate: Gate | None = None,
) -> OnnxModels:
    """Compute in float16, on TensorRT, what a quantised network leaves in float.

    The answers are held against fp32's by the metrics of the tasks: where they lose more than the recipe allows, or are
    noisier than with a rest in float32, a stage keeps that. TensorRT's parser is asked, where one is installed.

    Args:
        quantised: What ``quantize`` returned.
        fp32: The networks it was made of.
        samples: Raw samples instead of the recipe's recordings, of the shapes [...] and dtypes of its inputs.
        gate: What TensorRT refuses of the fp32 networks: it gets nothing of these stages.

    Returns:
        The same with ``half``. Stages whose file TensorRT's parser refuses in either form are without any in FP8 and
        INT4, which nothing else runs; ``skipped`` says why.

    Raises:
        ConfigError: If there are no recordings.

    Example:
        >>> int8 = export.half_rest(export.quantize(onnx), onnx)  # doctest: +SKIP
        >>> int8.quantization["image_encoder"].rest  # doctest: +SKIP
        'fp16'
    """
    recipe, kind = quantised.recipe, quantised.precision
    if not quantised.models or "tensorrt" not in recipe.export.targets:
        return quantised
    refused = {s: f"TensorRT refuses it: {told[0]}" for s, told in (gate or Gate()).refused.items()}
    taken = {stage: model for stage, model in quantised.models.items() if stage not in refused}
    given = as_samples(samples, recipe)
    half: dict[str, onnx.ModelProto] = {}
    kept: dict[str, str] = {}
    if recipe.export.rest == "fp16" and taken:
        frames, _ = usable(given.calibration, recipe)
        raised: dict[str, onnx.ModelProto] = {}
        for stage, model in taken.items():
            try:
                raised[stage] = at_least(model, OPSET, f"stage '{stage}'")
            except (CheckError, ConfigError) as error:
                kept[stage] = error.message
        seen = measured(recipe, {**fp32.models, **quantised.models}, raised, frames)
        for stage, model in raised.items():
            try:
                half[stage] = halved(model, seen[stage], f"stage '{stage}'")
            except CheckError as error:
                kept[stage] = error.message
        tried = given.held_out if given.choosing is None else given.choosing
        choosing = LazySamples(tried.__getitem__, choose(recipe, len(tried), CHOOSING))
        for stage, why in _worse(quantised, fp32, half, choosing).items():
            kept[stage] = why
            del half[stage]
    for stage, model in taken.items():
        if stage in half and (told := _refusal(half[stage])) is not None:
            kept[stage] = f"TensorRT refuses it: {told}"
            del half[stage]
        if stage not in half and kind != "int8" and (told := _refusal(model)) is not None:
            refused[stage] = f"TensorRT refuses it: {told}"
    refused = {} if kind == "int8" else refused  # CPUs run it
    for stage, why in {**kept, **refused}.items():
        if stage in refused:
            _log.warning("stage '%s' has no %s form: %s", stage, kind, why)
        else:
            _log.warning("stage '%s', %s: TensorRT computes the rest in float32: %s", stage, kind, why)
    quantization = {
        stage: msgspec.structs.replace(notes, rest="fp16" if stage in half else "fp32")
        for stage, notes in quantised.quantization.items()
    }
    models = {stage: model for stage, model in quantised.models.items() if stage not in refused}
    skipped = {**quantised.skipped, **refused}
    return replace(quantised, models=models, half=half, quantization=quantization, skipped=skipped)


def halved(model: onnx.ModelProto, seen: Measured, where: str) -> onnx.ModelProto:
    """Return a quantised network whose rest is in float16, but for what needs float32.

    Args:
        model: A network with Q/DQ pairs, in opset 19 or later.
        seen: Its float tensors, as they were measured.
        where: For messages.

    Raises:
        CheckError: If nothing but float32 is left, float16 moves it far, or what is written is not what was emulated.
    """
    wide = in_float32(model, seen.largest, but=_PAIR)
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type in _PAIR):
        near = max(seen.largest.get(name, 0.0) for name in (*node.input, *node.output))
        wide.pop(node.name, None)
        if near > LARGEST / HEADROOM or _is_off(scales.get(node.input[1])):
            wide[node.name] = "its scale needs float32"
    pairs = _Pairs(model)
    sqnr_db, sizes = settle(model, seen.floats, seen.feeds, wide, pairs)
    pairs(wide)
    if sqnr_db < _LEAST_DB:
        raise CheckError(f"float16 is {sqnr_db:.1f} dB off what it computes in float32", where=where, fix=_KEEP)
    if not {node.name for node in model.graph.node if node.op_type not in _PAIR} - set(wide):
        raise CheckError("nothing of it can compute in float16", where=where, fix=_KEEP)
    half = converted(model, seen.floats, wide)
    check_rewrite(model, half, "rest in float16", seen.feeds, limit=limit_at(sqnr_db), ranges=sizes, where=where)
    return half


def _is_off(scale: onnx.TensorProto | None) -> bool:
    """Tell whether a scale loses digits in float16, or is computed."""
    if scale is None or scale.data_type != TensorProto.FLOAT:
        return True
    exact = numpy_helper.to_array(scale)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16).astype(np.float32)
    return bool((np.abs(rounded - exact) > _SCALE * np.abs(exact)).any())


class _Pairs:
    """Makes pairs as wide as what they stand beside, in place: node in float32 -> why."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._maker = {name: node for node in self._nodes for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def __call__(self, wide: dict[str, str]) -> None:
        before = -1
        while before != len(wide):
            before = len(wide)
            for node in self._nodes:
                if node.op_type == "DequantizeLinear":
                    beside = [node, *self._readers.get(node.output[0], ())]
                elif node.op_type == "QuantizeLinear" and node.name not in wide:
                    maker = self._maker.get(node.input[0])
                    if maker is None or maker.name in wide:
                        wide[node.name] = "what it takes is in float32"
                    continue
                else:
                    continue
                if any(other.name in wide for other in beside):
                    for other in beside:
                        wide.setdefault(other.name, "a pair beside it needs float32")


def _worse(
    quantised: OnnxModels, fp32: OnnxModels, half: Mapping[str, onnx.ModelProto], held_out: LazySamples
) -> dict[str, str]:
    """Return stage -> why it must not compute the rest in float16, as its answers show; all together first."""
    recipe = fp32.recipe
    if not half:
        return {}
    reference = Reference(recipe, fp32.models, held_out)
    plain = reference.compare(quantised.models)
    rounded = {stage: emulated(model, stage) for stage, model in half.items()}

    def problem(stages: Iterable[str]) -> str | None:
        rows = reference.compare({**quantised.models, **{stage: rounded[stage] for stage in stages}})
        compared = Comparison(a="fp32", b=f"{quantised.precision} with fp16", rows=rows)
        failure = compared.failure(recipe.calibration.max_drop_points) if compared.enough else None
        return _noisier(plain, rows) if failure is None else failure.message

    if problem(half) is None:
        return {}
    alone = {stage: why for stage in half if (why := problem([stage])) is not None}
    rest = [stage for stage in half if stage not in alone]
    together = problem(rest) if rest else None
    return alone if together is None else {**dict.fromkeys(rest, together), **alone}


def _noisier(before: Sequence[TaskComparison], after: Sequence[TaskComparison]) -> str | None:
    for task in dict.fromkeys(row.task for row in before):
        one, other = (
            float(np.mean([min(row.sqnr_db, 100.0) for row in rows if row.task == task])) for rows in (before, after)
        )
        if other < min(one - _NOISIER_DB, MIN_SQNR_DB):
            return f"'{task}' would be noisier: {other:.1f} instead of {one:.1f} dB"
    return None


def _refusal(model: onnx.ModelProto) -> str | None:
    """Return what TensorRT's parser refuses in a network, by name; None where it takes it or is not there."""
    answer = ask_parser(model.SerializeToString())
    if answer is None or not answer.refused:
        return None
    named = [f"{node.op} '{node.name}': {node.reason}" if node.op else node.reason for node in answer.refused]
    return f"{'; '.join(named[:3])} ({answer.module} {answer.version})"
