"""What numbers a network takes for a picture: read off its first operators, as far as they tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from ..onnx.outside import value_of
from .brought import dims, dtype
from .outputs import run_network

Color: TypeAlias = Literal["rgb", "bgr"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Name of a scale -> mean and std of a seat that gives it, in units of 0..1.
SCALES: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "-1..1": ((0.5,) * 3, (0.5,) * 3),
    "0..255": ((0.0,) * 3, (1 / 255,) * 3),
    "imagenet": IMAGENET,
}
_MEANS: dict[Color, Sequence[float]] = {"rgb": IMAGENET[0], "bgr": IMAGENET[0][::-1]}
_ENDS = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
_MOVING = frozenset(("Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat"))
_MOVING |= {"Gather", "Pad", "Resize", "Upsample", "Dropout", "DepthToSpace", "SpaceToDepth", "CastLike", "Flatten"}
_AFFINE = frozenset(("Add", "Sub", "Mul", "Div", "Neg", "Sum", "Reciprocal"))
# What leaves a row of numbers as it lies.
_STILL = frozenset(("Cast", "CastLike", "Identity", "Dropout", "Flatten"))
_SIDE = 32  # of the probe where a side is open
_MOST_NODES = 200  # that may stand before the first layer
_INT16 = 32768.0


class Taken(NamedTuple):
    """What a network takes for a picture.

    Attributes:
        scale: A key of ``SCALES``; None where the file does not tell.
        color: The order of its channels; None where the file does not tell.
        why: How the scale is known.
    """

    scale: str | None = None
    color: Color | None = None
    why: str = ""


class _Chain:
    """What stands between an input and the first operators that learn."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        if model.functions:
            model = inliner.inline_local_functions(model)
        self.model, self.graph, self.name = model, model.graph, name
        self.made = {output: node for node in self.graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.ends: list[tuple[str, onnx.NodeProto]] = []
        self.clips: list[tuple[str, onnx.NodeProto]] = []
        users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for used in set(node.input):
                users.setdefault(used, []).append(node)
        depends, waiting = {name}, [name]
        while waiting and len(depends) < _MOST_NODES:
            tensor = waiting.pop(0)
            for node in users.get(tensor, []):
                if node.op_type in ("Shape", "Size"):
                    continue
                if node.op_type == "Clip":
                    self.clips.append((tensor, node))
                others = [other for other in node.input if other and other != tensor]
                passes = node.op_type in _MOVING or node.op_type == "Clip" or self._mixes_colours(node)
                once = list(node.input).count(tensor) == 1
                passes = passes or (node.op_type in _AFFINE and once and not self._fed(others))
                if not passes or (tensor != node.input[0] and node.op_type not in (*_AFFINE, "Concat")):
                    self.ends.append((tensor, node))
                    continue
                for output in node.output:
                    if output and output not in depends:
                        depends.add(output)
                        waiting.append(output)

    def _fed(self, names: Sequence[str]) -> bool:
        """Tell whether one of these tensors depends on an input."""
        inputs = {value.name for value in self.graph.input} - self.weights.keys()
        return not inputs.isdisjoint(self._before(names))

    def _before(self, names: Sequence[str]) -> set[str]:
        found, waiting = set[str](), list(names)
        while waiting:
            current = waiting.pop()
            if current and current not in found:
                found.add(current)
                node = self.made.get(current)
                if node is not None and node.op_type not in ("Shape", "Size"):
                    waiting += node.input
        return found

    def _mixes_colours(self, node: onnx.NodeProto) -> bool:
        """Tell whether a convolution only scales or swaps the colours of each pixel."""
        weight = self.constant(node.input[1]) if node.op_type == "Conv" else None
        return weight is not None and weight.shape[0] == 3 and weight.shape[2:] == (1, 1)

    def constant(self, name: str) -> AnyArray | None:
        """Return a constant of the graph."""
        if name in self.weights:
            return value_of(self.weights[name])
        node = self.made.get(name)
        if node is not None and node.op_type == "Identity":
            return self.constant(node.input[0])
        if node is None or node.op_type != "Constant":
            return None
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            return np.asarray(numpy_helper.to_array(value) if attribute.name == "value" else value)
        return None

    def run(self, tensor: str, feeds: Sequence[AnyArray]) -> list[AnyArray]:
        """Return what a tensor is for each array that the input may be, by the nodes before it alone."""
        needed = self._before([tensor])
        part = helper.make_graph(
            [node for node in self.graph.node if needed & set(node.output)],
            "first",
            [value for value in self.graph.input if value.name in needed and value.name not in self.weights],
            [onnx.ValueInfoProto(name=tensor)],
            [self.weights[name] for name in sorted(needed & self.weights.keys())],
        )
        probe = helper.make_model(part, opset_imports=self.model.opset_import, ir_version=max(self.model.ir_version, 4))
        kinds = {value.name: dtype(value) for value in part.input}
        if kinds.keys() != {self.name} or tensor == self.name:
            return list(feeds) if tensor == self.name else []
        try:
            return [run_network(probe, {self.name: x.astype(kinds[self.name])}, self.name)[0] for x in feeds]
        except ConfigError:  # it may want another size, and `bring` says so
            return []


def taken_by(model: onnx.ModelProto, value: onnx.ValueInfoProto, axes: tuple[int, int, int]) -> Taken:
    """Read off what a network takes for a picture.

    Known is what it does to the picture itself before its first layer (a mean that is subtracted, a division, a clip),
    the statistics of a batch normalisation there, and the range of an 8-bit quantisation there. A mean and a standard
    deviation that were folded into the first layer leave no trace.

    Args:
        model: The network.
        value: Its input, a picture.
        axes: Those of channels, height and width.

    Example:
        >>> taken_by(model, model.graph.input[0], (1, 2, 3)).scale  # doctest: +SKIP
        '0..255'
    """
    if dtype(value) == np.uint8:
        return Taken("0..255", None, "uint8")
    chain = _Chain(model, value.name)
    shape = tuple(dim or (1 if axis == 0 else _SIDE) for axis, dim in enumerate(dims(value)))
    scales: dict[str, str] = {}
    colors: set[Color] = set()
    for tensor, node in [*chain.clips, *chain.ends]:
        found = _response(chain, tensor, shape, axes[0])
        if found is None:
            continue
        gains, shifts = found
        told, why = _told(chain, node, float(gains.mean()), float(shifts.mean()))
        if told is None and node.op_type != "Clip" and not (np.allclose(gains, 1) and np.allclose(shifts, 0)):
            told = _scale(gains, shifts)
            why = f"it scales the picture itself, to {_number(gains)}x {_signed(shifts)}"
        if told is None:
            continue
        scales.setdefault(told, why)
        if told in _ENDS and len(gains) == 3:
            low, high = _ENDS[told]
            centre = (-shifts / gains - low) / (high - low)
            for color, means in _MEANS.items():
                colors |= {color} if np.allclose(centre, means, atol=0.02) else set()
    if len(scales) != 1:
        return Taken()
    scale, why = next(iter(scales.items()))
    return Taken(scale, next(iter(colors)) if len(colors) == 1 else None, why)


def gain_of(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> float:
    """Return by what sound of -1..1 is multiplied for a network: 32768 where it takes int16, or divides by as much."""
    if dtype(value) == np.int16:
        return _INT16
    chain = _Chain(model, value.name)
    shape = tuple(dim or (1 if axis < len(dims(value)) - 1 else 512) for axis, dim in enumerate(dims(value)))
    for tensor, _ in chain.ends:
        found = _response(chain, tensor, shape, None)
        if found is not None and abs(found[0][0] * _INT16 - 1) < 0.01 and abs(found[1][0]) < 1e-3:
            return _INT16
    return 1.0


def takes_features(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> bool:
    """Tell whether the first layers multiply all numbers of an input by weights at once: no sound is heard so."""
    chain = _Chain(model, value.name)
    at_once = {"Gemm", "MatMul", "BatchNormalization"} if len(dims(value)) == 2 else {"Gemm", "MatMul"}
    return bool(chain.ends) and all(
        node.op_type in at_once and not any(before.op_type in _MOVING - _STILL for before in _line(chain, tensor))
        for tensor, node in chain.ends
    )


def axes_by_graph(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> tuple[tuple[int, int, int], int] | None:
    """Return the axes of a picture, and how many channels it has, where its shape does not tell: by its first layer."""
    chain = _Chain(model, value.name)
    for tensor, node in chain.ends:
        weight = chain.constant(node.input[1]) if node.op_type == "Conv" and tensor == node.input[0] else None
        if weight is None or weight.ndim != 4:
            continue
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        perms = [tuple(a.ints) for before in _line(chain, tensor) for a in before.attribute if a.name == "perm"]
        if weight.shape[1] * group in (1, 3) and perms in ([], [(0, 3, 1, 2)]):
            return ((3, 1, 2) if perms else (1, 2, 3)), int(weight.shape[1] * group)
    return None


def _line(chain: _Chain, tensor: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that carry a picture to a tensor."""
    node = chain.made.get(tensor)
    while node is not None:
        yield node
        node = chain.made.get(node.input[0]) if node.input else None


def _response(
    chain: _Chain, tensor: str, shape: tuple[int, ...], channel: int | None
) -> tuple[AnyArray, AnyArray] | None:
    """Return by what each channel is multiplied on its way, and what is then added; None where that is not all."""
    zero = np.zeros(shape, np.float32)
    steps = [zero, zero + 1, zero + 2]
    for index in () if channel is None else range(shape[channel]):
        one = zero.copy()
        np.moveaxis(one, channel or 0, 0)[index] = 1
        steps.append(one)
    seen = [np.asarray(array, np.float64) for array in chain.run(tensor, steps)]
    if not seen or not all(np.isfinite(array).all() for array in seen):
        return None
    base, white = seen[0], seen[1] - seen[0]
    moved = np.abs(white) > 1e-9
    clipped = any(node.op_type == "Clip" for node in _line(chain, tensor))
    if not moved.any() or not (clipped or np.allclose(seen[2] - seen[1], white, rtol=1e-3, atol=1e-6)):
        return None
    alone = [np.abs(array - base) > 1e-9 for array in seen[3:]]
    if not alone or np.sum(alone, axis=0).max() > 1:  # no colours, or mixed ones
        alone = [moved]
    parts = [(white[mask], base[mask]) for mask in alone if mask.any()]
    if len(parts) != len(alone) or any(
        np.ptp(a) > 1e-3 * abs(a).max() or np.ptp(b) > 1e-3 * max(abs(b).max(), 1) for a, b in parts
    ):
        return None
    return np.array([a.mean() for a, _ in parts]), np.array([b.mean() for _, b in parts])


def _told(chain: _Chain, node: onnx.NodeProto, gain: float, shift: float) -> tuple[str | None, str]:
    """Return what an operator says of the range of its input, in the network's own input: it was made for that."""
    if node.op_type == "Clip":
        given = [chain.constant(name) if name else None for name in node.input[1:3]]
        old = [np.float32(a.f) for kind in ("min", "max") for a in node.attribute if a.name == kind]
        ends = [float(end) for end in (*given, *old) if end is not None]
        if len(ends) == 2:
            known = [(end - shift) / gain for end in ends]
            for name, (low, high) in _ENDS.items():
                if np.allclose(known, (low, high), atol=0.01 * (high - low)):
                    return name, f"it clips the picture to {low:g}..{high:g}"
    elif node.op_type == "BatchNormalization":
        statistics = [chain.constant(name) for name in node.input[3:5]]
        if statistics[0] is None or statistics[1] is None:
            return None, ""
        mean = (float(statistics[0].mean()) - shift) / gain
        spread = float(np.sqrt(statistics[1]).mean()) / abs(gain)
        known_by = _by_statistics(mean, spread)
        return (
            known_by,
            f"it was trained on pictures of mean {mean:.3g} and deviation {spread:.3g}, as its first layer says",
        )
    elif node.op_type in ("InstanceNormalization", "MeanVarianceNormalization", "LayerNormalization"):
        return "0..1", "it normalises each picture by itself, whatever its scale"
    elif node.op_type == "QuantizeLinear":
        scale = chain.constant(node.input[1])
        zero = chain.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
            return None, ""
        low, high = ((float(scale) * (end - int(zero)) - shift) / gain for end in (0, 255))
        for name, (first, last) in {**_ENDS, "imagenet": (-2.118, 2.64)}.items():
            if np.allclose((low, high), (first, last), atol=0.03 * (last - first)):
                return name, f"it quantises {low:.3g}..{high:.3g} to 8 bits"
    return None, ""


def _by_statistics(mean: float, spread: float) -> str | None:
    if (mean, spread) == (0.0, 1.0):  # what one begins with
        return None
    if 60 < mean < 190 and 20 < spread < 110:
        return "0..255"
    if 0.2 < mean < 0.75 and 0.08 < spread < 0.45:
        return "0..1"
    if abs(mean) < 0.4 and 0.75 < spread < 1.4:
        return "imagenet"
    return "-1..1" if abs(mean) < 0.5 and 0.3 < spread < 0.7 else None


def _scale(gains: AnyArray, shifts: AnyArray) -> str | None:
    """Return the only range of pictures that becomes one that first layers take."""
    found = []
    for name, (low, high) in _ENDS.items():
        ends = np.sort(np.stack([gains * low + shifts, gains * high + shifts]), axis=0)
        width, below = float((ends[1] - ends[0]).mean()), float(-ends[0].mean())
        above = float(ends[1].mean())
        fits = 0.45 < width < 8.5 or 100 < width < 300
        astride = below > 0 < above and 0.4 <= below / above <= 2.5
        if fits and (astride or abs(below) <= 1e-3 * width or abs(above) <= 1e-3 * width):
            found.append(name)
    return found[0] if len(found) == 1 else None


def _number(values: AnyArray) -> str:
    return f"{values[0]:.4g} " if np.ptp(values) < 1e-6 else f"[{', '.join(f'{v:.4g}' for v in values)}] "


def _signed(values: AnyArray) -> str:
    return ("- " if values[0] < 0 else "+ ") + _number(np.abs(values)).strip()
