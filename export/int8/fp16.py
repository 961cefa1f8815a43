"""FP16 as a typed network: what could overflow or vanish stays in float32, as measured on recordings.

ONNX Runtime computes float16 in float32 on CPUs, so running the file says nothing of overflow. Here every tensor that
would be float16 is rounded to it where it is made, without any optimisation that takes the rounding away again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle.manifest import Quantization
from mmedge.errors import CheckError, ConfigError
from mmedge.types import AnyArray, Tensors

from ..judge import judge, judge_session
from ..onnx.clean import strip
from ..onnx.graphs import all_nodes, drop_unused, free_ending, free_start, name_once, replace_nodes, subgraphs
from ..onnx.onnx_models import OnnxModels
from ..onnx.outside import whole, why_not
from ..onnx.parity import check_rewrite
from ..onnx.state import already_quantised
from ..parts import choose, spread
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Recipe
from ..recordings import RawSample, RawSamples, as_samples
from ..report import ratio_db
from ..stages import StageGraph, fed_back, fed_shapes
from .glitches import usable
from .prepare import cast, prepare, tensor_types
from .ranges import RangeCollector

LARGEST = 65504.0
# Recordings are not all that a network will meet.
HEADROOM = 8.0
MIN_SQNR_DB = 40.0
_FRAMES, _EMULATED = 64, 8  # spread over all samples that calibrate
_LIMIT = 4e-3  # share of the range
_SMALLEST = 6.2e-5  # below it float16 has fewer digits
# They square, add up or raise what enters: in float32 a power, a sum or a logarithm has room.
_WIDE = frozenset(
    {"Exp", "Log", "Pow", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", "Softmax", "LogSoftmax"}
    | {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "CumSum", "Reciprocal"}
    | {"Cast", "CastLike", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike"}
    | {"RandomUniformLike", "Bernoulli", "Dropout", "GridSample", "RoiAlign", "Upsample", "DequantizeLinear"}
    | {"Div", "Sqrt", "Resize", "LSTM", "GRU", "RNN", "If", "Loop", "Scan", "TopK", "NonMaxSuppression", "Range"}
)
_log = logging.getLogger(__name__)


def to_fp16(onnx_models: OnnxModels, samples: RawSamples | Iterable[Tensors] | None = None) -> OnnxModels:
    """Write every stage in float16, with what needs it in float32.

    In float32 stay: sums of squares, exponentials, logarithms, normalisations and softmax; what reaches an eighth of
    the largest float16 on recordings; what is made of constants that float16 cannot hold; and what becomes infinite
    when it is emulated. Inputs and outputs of a stage are float32, and so is preprocessing.

    Args:
        onnx_models: The fp32 networks.
        samples: Raw samples instead of the recipe's recordings.

    Returns:
        The fp16 networks, with nodes left in float32 and SQNR by emulation. A stage that loses too much, or is
        quantised already, has none; ``skipped`` says why.

    Raises:
        ConfigError: If there are no recordings, or the networks are not fp32.
        CheckError: If what is written answers differently than what was emulated.

    Example:
        >>> half = export.to_fp16(onnx)  # doctest: +SKIP
        >>> half.quantization["image_encoder"].sqnr_db  # doctest: +SKIP
        66.1
    """
    if onnx_models.precision != "fp32":
        raise ConfigError(
            f"the networks are {onnx_models.precision}", where="to_fp16", fix="pass the networks that to_onnx returned"
        )
    recipe = onnx_models.recipe
    given = as_samples(samples, recipe)
    frames, dropped = usable(given.calibration, recipe)
    skipped: dict[str, str] = {}
    normal: dict[str, onnx.ModelProto] = {}
    for stage, model in onnx_models.models.items():
        if (found := already_quantised(model)) is not None:
            skipped[stage] = f"it is quantised already ({found})"
        elif (why := why_not(model, "fp16")) is not None:
            skipped[stage] = why
        else:
            normal[stage] = prepare(whole(model), f"stage '{stage}'", fed_shapes(recipe, stage))
    seen = measured(recipe, onnx_models.models, normal, frames)
    models: dict[str, onnx.ModelProto] = {}
    notes: dict[str, Quantization] = {}
    for stage, model in normal.items():
        floats, feeds = seen[stage].floats, seen[stage].feeds
        reasons = in_float32(model, seen[stage].largest)
        sqnr_db, sizes = settle(model, floats, feeds, reasons)
        kept = {node.name for node in model.graph.node} - set(reasons)
        if sqnr_db < MIN_SQNR_DB or not kept:
            skipped[stage] = f"{sqnr_db:.1f} dB in float16, at least {MIN_SQNR_DB:.0f} wanted"
            continue
        models[stage] = converted(model, floats, reasons)
        limit = limit_at(sqnr_db)
        check_rewrite(model, models[stage], "float16", feeds, limit=limit, ranges=sizes, where=f"stage '{stage}'")
        notes[stage] = Quantization(
            rule="ranges",
            frames=min(len(frames), _FRAMES),
            float_nodes=tuple(reasons),
            sqnr_db=round(sqnr_db, 2),
            dropped=dropped,
            reasons=reasons,
        )
    for stage, reason in skipped.items():
        _log.warning("stage '%s' has no fp16 form: %s", stage, reason)
    return replace(
        onnx_models, precision="fp16", models=models, parity=(), quantization=notes, sqnr_db={}, skipped=skipped
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What is known of one network's float tensors.

    Attributes:
        floats: Their names, of the outermost graph.
        largest: Their largest magnitudes on recordings.
        feeds: A few frames of the network's inputs.
    """

    floats: tuple[str, ...]
    largest: Mapping[str, float]
    feeds: list[Tensors] = field(default_factory=list)


def measured(
    recipe: Recipe,
    models: Mapping[str, onnx.ModelProto],
    watched: Mapping[str, onnx.ModelProto],
    frames: Sequence[RawSample],
) -> dict[str, Measured]:
    """Run a model over some samples that calibrate and note how large the float tensors of some networks are.

    Args:
        recipe: Gives the graph.
        models: Stage -> network.
        watched: Stage -> the network to run in place of it and to watch.
        frames: Raw samples, of the shapes [...] and dtypes of the recipe's inputs.
    """
    collectors: dict[str, RangeCollector] = {}
    floats: dict[str, tuple[str, ...]] = {}
    for stage, model in watched.items():
        types = tensor_types(model, stage)
        made = [*(v.name for v in model.graph.input), *(out for node in model.graph.node for out in node.output)]
        floats[stage] = tuple(name for name in made if types.get(name, ("",))[0] == "tensor(float)")
        collectors[stage] = RangeCollector(model, floats[stage], stage, infinite=True)
    others = {s: judge(model, s) for s, model in models.items() if s not in watched}
    graph, preprocess = StageGraph(recipe, {**others, **collectors}), Preprocessor(recipe.inputs, recipe.export.opset)
    feeds: dict[str, list[Tensors]] = {stage: [] for stage in watched}
    states: dict[str, AnyArray] = {}
    taken = choose(recipe, len(frames), _FRAMES)
    emulated = {taken[turn] for turn in spread(len(taken), _EMULATED)}
    last: RawSample | None = None
    for place in taken:
        sample = frames[place]
        states, last = states if sample.follows(last) else {}, sample
        known = graph({**preprocess(sample.arrays), **states})
        for stage in watched if place in emulated else ():
            feeds[stage].append(graph.feeds(stage, known, last=states))
        states = fed_back(recipe, known)
    for engine in others.values():
        engine.close()
    for collector in collectors.values():
        collector.close()
    return {s: Measured(floats=floats[s], largest=c.largest, feeds=feeds[s]) for s, c in collectors.items()}


def limit_at(sqnr_db: float) -> float:
    """Return how far what is written may be from what was emulated, as a share of the range.

    Single numbers may be as far off as ten times the noise.
    """
    return float(max(_LIMIT, 10.0 ** (1 - sqnr_db / 20)))


def in_float32(model: onnx.ModelProto, largest: Mapping[str, float], *, but: Collection[str] = ()) -> dict[str, str]:
    """Return the nodes that need float32 by what they are and what was measured -> why.

    Args:
        model: The network.
        largest: Tensor -> its largest magnitude.
        but: Operators that do not need it for what they are.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        near = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        fixed = [np.abs(numpy_helper.to_array(constants[name])) for name in node.input if name in constants]
        if node.op_type in _WIDE.difference(but) or node.domain not in ("", "ai.onnx"):
            reasons[node.name] = f"{node.op_type} needs the range of float32"
        elif near > LARGEST / HEADROOM:
            reasons[node.name] = f"it reaches {near:.3g} on the recordings"
        elif any(value.size and value.max() > LARGEST for value in fixed):
            reasons[node.name] = "a constant is larger than float16 holds"
        elif any(value.size and 0 < value.max() < _SMALLEST for value in fixed):
            reasons[node.name] = "a constant is smaller than float16 holds"
    return reasons


def settle(
    model: onnx.ModelProto,
    floats: Collection[str],
    feeds: Sequence[Tensors],
    reasons: dict[str, str],
    spread_out: Callable[[dict[str, str]], None] = lambda reasons: None,
) -> tuple[float, dict[str, float]]:
    """Emulate float16, move what becomes infinite into float32.

    Args:
        model: The network.
        floats: Its float tensors.
        feeds: A few frames of its inputs, of their shapes [...] and dtypes.
        reasons: Node in float32 -> why; more are added.
        spread_out: Adds those that must follow them.

    Returns:
        The worst output's SQNR in dB, and output -> its largest magnitude.
    """
    sizes: dict[str, float] = {}
    for _ in range(8):
        spread_out(reasons)
        power: dict[str, float] = {}
        noise: dict[str, float] = {}
        infinite: set[str] = set()
        with judge(model) as exact:
            emulated = _Emulated(model, set(floats), reasons)
            for feed in feeds:
                want, (got, bad) = exact(feed), emulated(feed)
                infinite |= bad
                for name, value in want.items():
                    wide = value.astype(np.float64)
                    power[name] = power.get(name, 0.0) + float(np.square(wide).sum())
                    noise[name] = noise.get(name, 0.0) + float(np.square(wide - got[name]).sum())
                    sizes[name] = max(sizes.get(name, 0.0), float(np.abs(wide).max(initial=0.0)))
        if not infinite:
            found = [ratio_db(power[name], noise[name]) for name in power]
            return min(found) if np.isfinite(found).all() else 0.0, sizes
        reasons.update(dict.fromkeys(infinite, "it becomes infinite in float16"))
    return 0.0, sizes


class _Emulated:
    """A network whose float tensors are rounded to float16 where they are made, but for those in float32."""

    def __init__(self, model: onnx.ModelProto, floats: Collection[str], wide: Collection[str]) -> None:
        rounded = onnx.ModelProto()
        rounded.CopyFrom(model)
        graph = rounded.graph
        for tensor in graph.initializer:
            readers = [node for node in graph.node if tensor.name in node.input]
            if tensor.data_type == TensorProto.FLOAT and readers and not any(node.name in wide for node in readers):
                value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        nodes: list[onnx.NodeProto] = []
        own, half, full = free_start(model, "mmedge/"), free_ending(model, "/fp16"), free_ending(model, "/fp32")
        self._checks: list[str] = []
        self._makers: list[str] = []
        for node in graph.node:
            nodes.append(node)
            if node.name in wide:
                continue
            for position, name in enumerate(node.output):
                if name not in floats:
                    continue
                node.output[position] = f"{name}{full}"
                check = f"{own}infinite{len(self._checks)}"
                nodes.append(helper.make_node("Cast", [f"{name}{full}"], [f"{name}{half}"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}{half}"], [name], to=TensorProto.FLOAT))
                nodes.append(helper.make_node("ReduceSum", [name], [check], keepdims=0))
                graph.output.append(helper.make_tensor_value_info(check, TensorProto.FLOAT, []))
                self._checks.append(check)
                self._makers.append(node.name)
        replace_nodes(graph, nodes)
        self._session = judge_session(rounded, optimised=False)
        self._names = [value.name for value in model.graph.output]

    def __call__(self, feeds: Tensors) -> tuple[dict[str, AnyArray], set[str]]:
        """Return the outputs, and the first node that made an infinite number."""
        found = self._session.run([*self._names, *self._checks], dict(feeds))
        finite = np.isfinite(np.array(found[len(self._names) :]))
        bad = {self._makers[int(np.argmin(finite))]} if not finite.all() else set()
        return dict(zip(self._names, found, strict=False)), bad


def converted(model: onnx.ModelProto, floats: Collection[str], wide: Collection[str]) -> onnx.ModelProto:
    """Return the network with every node that is not ``wide`` in float16, and a Cast wherever the two meet.

    ONNX Runtime's own converter rounds to float16 between two nodes that are to stay in float32, which overflows.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph, ending = half.graph, free_ending(model, "/fp16")
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    narrow = {out for node in graph.node if node.name not in wide for out in node.output if out in floats}
    inner = {name for node in graph.node for own in subgraphs(node) for deep in all_nodes(own) for name in deep.input}
    needed = {value.name for value in graph.output} | inner
    needed |= {name for node in graph.node if node.name in wide for name in node.input}
    nodes: list[onnx.NodeProto] = []
    known: set[str] = set()

    def narrowed(name: str) -> str:
        if name not in constants and name not in floats:
            return name
        if name not in known and name not in narrow:
            known.add(name)
            if name in constants:
                value = numpy_helper.to_array(constants[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(value, f"{name}{ending}"))
            else:
                nodes.append(cast(name, f"{name}{ending}", TensorProto.FLOAT16))
        return f"{name}{ending}"

    for node in model.graph.node:
        made = onnx.NodeProto()
        made.CopyFrom(node)
        if node.name not in wide:
            made.input[:] = [narrowed(name) for name in node.input]
            made.output[:] = [f"{name}{ending}" if name in narrow else name for name in node.output]
        nodes.append(made)
        nodes.extend(cast(f"{out}{ending}", out, TensorProto.FLOAT) for out in node.output if out in narrow & needed)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    drop_unused(graph)
    name_once(half)
    try:
        half = onnx.shape_inference.infer_shapes(half)
        strip(half)
        onnx.checker.check_model(half, full_check=True)
        judge(half).close()
    except Exception as error:
        raise CheckError(
            f"the network cannot be written in float16: {str(error).splitlines()[0]}",
            where=model.graph.name,
            fix='leave "fp16" out of export.precisions, and report the network',
        ) from error
    return half
