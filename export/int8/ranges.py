"""Ranges of activations, in one pass and constant memory, and the rules that cut them off.

ONNX Runtime's histogram calibrators keep every activation of every frame (30 MB per image on a tiny network);
here the graph itself reduces each tensor to its largest magnitude and, where a rule wants its distribution, to an even
choice of its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import CheckError, EngineError
from mmedge.types import AnyArray, FloatArray, Tensors

from ..judge import judge
from ..onnx.graphs import free_start
from .bounds import ANY, bounds
from .histogram import BINS, Counts, count, least_divergence, least_error, percentile

Rule: TypeAlias = Literal["frame-quantile", "max", "percentile", "mse", "entropy"]
RULES: tuple[Rule, ...] = ("frame-quantile", "max", "percentile", "mse", "entropy")
# What a rule keeps where nothing else is asked for: a share of frames, a share of values.
QUANTILES: Mapping[str, float] = {"frame-quantile": 0.99, "percentile": 0.9999}
# Of one tensor in one frame. Extremes are known from all values, so this many tell how the others lie.
_VALUES = 4096
_LEAST, _ZERO = 1e-6, 1e-30


class RangeCollector:
    """Runs a network and notes how large some of its tensors are.

    Args:
        model: The fp32 network.
        tensors: Names of its float tensors to watch.
        name: For messages.
        values: Whether distributions are noted too: ``percentile``, ``mse`` and ``entropy`` need them.
        shapes: Tensor -> its shape, where that is known.
        infinite: Note a tensor with infinite numbers as infinite, such as a mask before a softmax.

    Raises:
        CheckError: If the network cannot be watched.

    Example:
        >>> collector = RangeCollector(model, ["relu_1"])  # doctest: +SKIP
        >>> for feeds in frames: collector(feeds)  # doctest: +SKIP
        >>> collector.thresholds("frame-quantile", 0.99)  # doctest: +SKIP
        {'relu_1': 3.1}
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Sequence[str],
        name: str = "model",
        *,
        values: bool = False,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        infinite: bool = False,
    ) -> None:
        self._infinite = infinite
        self._tensors = tuple(tensors)
        self._name = name
        # Where a tensor's size may differ from frame to frame, its extremes alone are noted.
        self._sampled = [i for i, tensor in enumerate(self._tensors) if values and tensor in (shapes or {})]
        self._own = free_start(model, "mmedge/")
        try:
            self._engine = judge(_with_ranges(model, self._tensors, shapes, sampled=self._sampled, own=self._own), name)
        except EngineError as error:
            raise CheckError(
                f"the network cannot be watched while it runs: {error.message.splitlines()[0]}",
                where=name,
                fix='export precisions = ["fp32"], and report the network',
            ) from error
        self.inputs = self._engine.inputs
        self._maxima: dict[Hashable, list[FloatArray]] = {}
        self._counts: dict[Hashable, dict[int, Counts]] = {}

    def __call__(self, feeds: Tensors, group: Hashable = None) -> dict[str, AnyArray]:
        """Run one frame and return the network's outputs, copies.

        Arrays have the network's shapes [...] and dtypes.

        Args:
            feeds: The network's inputs.
            group: Frames of one group share a quantile; a tensor's range is its largest over the groups.

        Raises:
            CheckError: If a tensor is not finite.
        """
        try:
            outputs = self._engine(feeds)
        except EngineError as error:
            raise CheckError(
                f"the network fails on a calibration sample: {self._own_words(error.message)}",
                where=self._name,
                fix="run the fp32 network on this recording, and look at the node that is named",
            ) from error
        maxima = outputs.pop(f"{self._own}ranges", np.zeros(0, np.float32)).astype(np.float32, copy=True)
        samples = {i: outputs.pop(f"{self._own}sample{i}") for i in self._sampled}
        maxima[np.isneginf(maxima)] = 0.0  # the largest of a tensor without elements
        is_sound = np.isfinite if not self._infinite else lambda numbers: ~np.isnan(numbers)
        bad = [i for i, value in enumerate(maxima) if not is_sound([value, *samples.get(i, [])]).all()]
        if bad:
            tensor = self._tensors[bad[0]]
            raise CheckError(
                f"tensor '{tensor}' is not finite",
                where=self._name,
                fix="look at the recording and at the fp32 network",
            )
        self._maxima.setdefault(group, []).append(maxima)
        if samples:
            counts = self._counts.setdefault(group, {i: np.zeros(BINS, np.int64) for i in samples})
            for index, sample in samples.items():
                counts[index] += count(sample)
        return outputs

    @property
    def outputs(self) -> dict[str, AnyArray]:
        """The network's outputs, whose shapes [...] and dtypes the graph goes by."""
        own = self._engine.outputs.items()
        return {name: array for name, array in own if not name.startswith(self._own)}

    def _own_words(self, message: str) -> str:
        """Return what the runtime says with the user's tensors in place of what was put behind them to watch them."""
        first = message.splitlines()[0]
        for index in reversed(range(len(self._tensors))):
            for own in (f"{self._own}range{index}", f"{self._own}sample{index}"):
                first = re.sub(rf"{re.escape(own)}(/\w+)?", self._tensors[index].replace("\\", r"\\"), first)
        return first

    def close(self) -> None:
        """Free the network; what was noted stays."""
        self._engine.close()

    @property
    def largest(self) -> dict[str, float]:
        """The largest magnitude of each tensor over all frames."""
        return self.thresholds("max", 1.0)

    def thresholds(self, rule: Rule, quantile: float | None = None) -> dict[str, float]:
        """Return the magnitude that becomes the largest int8 value, per tensor.

        Args:
            rule: ``max`` over all frames, or ``frame-quantile``: frames beyond it are clipped, so that
                one glitch does not cost the resolution of all others; ``percentile`` of all values, ``mse`` with the
                least mean square error, ``entropy`` with the least divergence of the distribution.
            quantile: Share of frames, or of values, that are not clipped.
        """
        share = QUANTILES.get(rule, 1.0) if quantile is None else quantile
        found: list[FloatArray] = []
        for group, frames in self._maxima.items():
            maxima = np.stack(frames)
            if rule in ("max", "frame-quantile"):
                found.append(maxima.max(axis=0) if rule == "max" else np.quantile(maxima, share, axis=0))
                continue
            counts = self._counts.get(group, {})
            found.append(np.array([_cut(rule, counts.get(i), float(m), share) for i, m in enumerate(maxima.max(0))]))
        largest = np.max(np.stack(found), axis=0) if found else np.zeros(len(self._tensors))
        # A tensor that is always zero still needs a scale; one of small numbers needs its own.
        sizes = {name: float(value) for name, value in zip(self._tensors, largest, strict=True)}
        return {name: value if value > _ZERO else _LEAST for name, value in sizes.items()}


def _cut(rule: str, counts: Counts | None, largest: float, share: float) -> float:
    if counts is None or largest <= 0 or not counts[1:].any():
        return largest
    if rule == "percentile":
        return min(percentile(counts, share), largest)
    return least_error(counts, largest) if rule == "mse" else least_divergence(counts, largest)


def _with_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    sampled: Collection[int] = (),
    own: str = "mmedge/",
) -> onnx.ModelProto:
    """Return a copy with one more output, the largest magnitude of each tensor, [n]; and some of each one's values.

    The names of what is added begin with ``own``.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    if not tensors:
        return watched
    graph = watched.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{own}one"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{own}flat"))
    known = bounds(model.graph)
    parts = []
    for index, tensor in enumerate(tensors):
        part = f"{own}range{index}"
        shape = (shapes or {}).get(tensor)
        positive = known.get(tensor, ANY)[0] >= 0
        graph.node.extend(_largest(tensor, part, len(shape or ()), own=own, positive=positive))
        parts.append(part)
        if index in sampled and shape is not None:
            _add_sample(graph, tensor, f"{own}sample{index}", f"{own}flat", math.prod(shape))
    graph.node.append(helper.make_node("Concat", parts, [f"{own}ranges"], axis=0))
    graph.output.append(helper.make_tensor_value_info(f"{own}ranges", TensorProto.FLOAT, [len(parts)]))
    return watched


def _largest(tensor: str, part: str, rank: int, *, own: str, positive: bool) -> list[onnx.NodeProto]:
    """Return nodes that reduce a tensor to its largest magnitude, [1], reading it as few times as can be."""
    make = helper.make_node
    nodes = [make("Reshape", [f"{part}/abs", f"{own}one"], [part])]
    if positive and rank == 4:  # a pool reads the layout in which convolutions write on CPUs; a reduction does not
        pool = make("GlobalMaxPool", [tensor], [f"{part}/pool"])
        return [pool, make("ReduceMax", [f"{part}/pool"], [f"{part}/abs"], keepdims=0), *nodes]
    if positive:
        return [make("ReduceMax", [tensor], [f"{part}/abs"], keepdims=0), *nodes]
    # Two reductions read the tensor; its magnitudes would have to be written first.
    return [
        make("ReduceMax", [tensor], [f"{part}/max"], keepdims=0),
        make("ReduceMin", [tensor], [f"{part}/min"], keepdims=0),
        make("Neg", [f"{part}/min"], [f"{part}/neg"]),
        make("Max", [f"{part}/max", f"{part}/neg"], [f"{part}/abs"]),
        *nodes,
    ]


def _add_sample(graph: onnx.GraphProto, tensor: str, name: str, flat: str, size: int) -> None:
    """Add an output with evenly chosen values of a tensor, all of a small one."""
    step = max(1, -(-size // _VALUES))
    if step > 1:
        step += 1 - step % 2  # an odd step meets every column of what is a power of two wide
    bounds = {"start": [0], "end": [2**62], "axis": [0], "step": [step]}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), f"{name}/{k}") for k, v in bounds.items())
    graph.node.extend(
        [
            helper.make_node("Reshape", [tensor, flat], [f"{name}/flat"]),
            helper.make_node("Slice", [f"{name}/flat", *(f"{name}/{k}" for k in bounds)], [name]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [-(-size // step)]))
