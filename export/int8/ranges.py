"""Ranges of activations, in one pass and constant memory: the largest magnitude of every tensor in every frame.

ONNX Runtime's histogram calibrators keep every activation of every frame (30 MB per image on a tiny network);
here the graph itself reduces each tensor to one number per frame, and the rule is applied afterwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import CheckError
from mmedge.types import AnyArray, FloatArray, Tensors

from ..judge import judge

_RANGES = "mmedge/ranges"


class RangeCollector:
    """Runs a network and notes the largest magnitude of some of its tensors per frame.

    Args:
        model: The fp32 network.
        tensors: Names of its float tensors to watch.
        name: For messages.

    Example:
        >>> collector = RangeCollector(model, ["relu_1"])  # doctest: +SKIP
        >>> for feeds in frames: collector(feeds)  # doctest: +SKIP
        >>> collector.thresholds("frame-quantile", 0.99)  # doctest: +SKIP
        {'relu_1': 3.1}
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], name: str = "model") -> None:
        self._tensors = tuple(tensors)
        self._name = name
        self._engine = judge(_with_ranges(model, self._tensors), name)
        self._maxima: dict[Hashable, list[FloatArray]] = {}

    def __call__(self, feeds: Tensors, group: Hashable = None) -> dict[str, AnyArray]:
        """Run one frame and return the network's outputs, copies.

        Arrays have the network's shapes [...] and dtypes.

        Args:
            feeds: The network's inputs.
            group: Frames of one group share a quantile; a tensor's range is its largest over the groups.

        Raises:
            CheckError: If a tensor is not finite.
        """
        outputs = self._engine(feeds)
        maxima = outputs.pop(_RANGES, np.zeros(0, np.float32)).astype(np.float32)
        if not np.isfinite(maxima).all():
            tensor = self._tensors[int(np.argmin(np.isfinite(maxima)))]
            raise CheckError(
                f"tensor '{tensor}' is not finite",
                where=self._name,
                fix="look at the recording and at the fp32 network",
            )
        self._maxima.setdefault(group, []).append(maxima)
        return outputs

    @property
    def inputs(self) -> dict[str, AnyArray]:
        """The network's inputs, whose shapes [...] and dtypes the graph goes by."""
        return self._engine.inputs

    @property
    def outputs(self) -> dict[str, AnyArray]:
        """The network's outputs, whose shapes [...] and dtypes the graph goes by."""
        return {name: array for name, array in self._engine.outputs.items() if name != _RANGES}

    def thresholds(self, rule: Literal["frame-quantile", "max"], quantile: float) -> dict[str, float]:
        """Return the magnitude that becomes the largest int8 value, per tensor.

        Args:
            rule: ``max`` over all frames, or ``frame-quantile``: frames beyond it are clipped, so that
                one glitch does not cost the resolution of all others.
            quantile: Share of frames that are not clipped.
        """
        share = 1.0 if rule == "max" else quantile
        groups = [np.quantile(np.stack(frames), share, axis=0) for frames in self._maxima.values()]
        largest = np.max(np.stack(groups), axis=0)
        # A tensor that is always zero still needs a scale.
        return {name: max(float(value), 1e-6) for name, value in zip(self._tensors, largest, strict=True)}


def _with_ranges(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy with one more output: the largest magnitude of each tensor, [n]."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    if not tensors:
        return watched
    graph = watched.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "mmedge/one"))
    parts = []
    for index, tensor in enumerate(tensors):
        part = f"mmedge/range{index}"
        graph.node.extend(
            [
                helper.make_node("Abs", [tensor], [f"{part}/abs"]),
                helper.make_node("ReduceMax", [f"{part}/abs"], [f"{part}/max"], keepdims=0),
                helper.make_node("Reshape", [f"{part}/max", "mmedge/one"], [part]),
            ]
        )
        parts.append(part)
    graph.node.append(helper.make_node("Concat", parts, [_RANGES], axis=0))
    graph.output.append(helper.make_tensor_value_info(_RANGES, TensorProto.FLOAT, [len(parts)]))
    return watched


def outliers(maxima: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Tell which frames are glitches: beyond ten times the usual spread, and more than twice the usual value.

    ``maxima`` is float [frames], the result bool [frames].

    Args:
        maxima: The largest magnitude of one input per frame.

    Returns:
        True for a glitch. Median and median deviation decide, so that glitches do not hide themselves.
    """
    median = np.median(maxima)
    spread = np.median(np.abs(maxima - median))
    flagged: npt.NDArray[np.bool_] = maxima > np.maximum(median + 10.0 * spread, 2.0 * median)
    return flagged


def largest_magnitudes(arrays: Iterable[AnyArray]) -> npt.NDArray[np.float64]:
    """Return max|x| of each array.

    Arrays have any shape and dtype of numbers; the result is float64 [arrays], in their unit.
    """
    return np.array([np.abs(array.astype(np.float64)).max(initial=0.0) for array in arrays])
