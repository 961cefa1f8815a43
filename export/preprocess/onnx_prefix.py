"""Preprocessing as ONNX nodes in front of a network: raw uint8 frames and float32 PCM enter the engine.

The nodes are those that TensorRT fuses into one kernel for images (cast, layout, resize, normalise) and three
for sound: no antialiased Resize, no DFT or MelWeightMatrix, uint8 only into a Cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import ConfigError
from mmedge.preprocess.geometry import crop_box, reduced_size, target_box
from mmedge.preprocess.reference import hann_window, mel_filters
from mmedge.types import AnyArray, Tensors

from ..judge import judge
from ..onnx.feeds import sample_feeds
from ..onnx.graphs import all_nodes, fresh, rename, tensor_names
from ..onnx.parity import behind_front, check_rewrite

# Part of the name of every node that is put in front of a network.
PREPROCESS = "/preprocess/"
_IR_VERSION = 10
# Share of an output's range, measured: 8 bits have steps of 1/127.
_ROUNDING = 2e-2


class Prefix:
    """Nodes and constants that turn one raw input into the tensor a network takes.

    Args:
        raw: Name of the raw graph input.
        tensor: Name of the tensor that the network reads.
        dtype: Element type of the raw input.
        shape: Shape of the raw input.
    """

    def __init__(self, raw: str, tensor: str, dtype: int, shape: tuple[int, ...]) -> None:
        self.raw, self.tensor = raw, tensor
        self.input = helper.make_tensor_value_info(raw, dtype, shape)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._last = raw

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add an initializer and return its full name."""
        full = f"{self.raw}/{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), full))
        return full

    def then(self, op: str, *more: str, source: str | None = None, name: str | None = None, **attributes: Any) -> str:
        """Append ``op`` to the last tensor (or ``source``) and return its output."""
        full = f"{self.raw}/{name or op.lower()}"
        inputs = [source or self._last, *more]
        self.nodes.append(
            helper.make_node(op, inputs, [full], name=f"{self.raw}{PREPROCESS}{name or op}", **attributes)
        )
        self._last = full
        return full

    def finish(self) -> Prefix:
        """Give the last tensor the name that the network reads."""
        self.nodes[-1].output[0] = self.tensor
        return self


def image_prefix(raw: str, tensor: str, spec: ImageInput) -> Prefix:
    """Return uint8 [1, H, W, C] -> float32 [1, C, h, w].

    Args:
        raw: Name of the raw graph input.
        tensor: Name of the tensor that the network reads.
        spec: The image seat.

    Returns:
        Cast, transpose, area average, crop, bilinear resize, normalise, letterbox.
    """
    prefix = Prefix(raw, tensor, TensorProto.UINT8, spec.raw_shape)
    prefix.then("Cast", to=TensorProto.FLOAT)
    prefix.then("Transpose", perm=[0, 3, 1, 2])
    rows, columns = reduced_size(spec)
    if spec.reduce > 1:
        block = [spec.reduce, spec.reduce]
        prefix.then("AveragePool", kernel_shape=block, strides=block)
    crop, target = crop_box(spec), target_box(spec)
    if (crop.height, crop.width) != (rows, columns):
        starts = prefix.constant("crop_start", [crop.top, crop.left], np.int64)
        ends = prefix.constant("crop_end", [crop.top + crop.height, crop.left + crop.width], np.int64)
        prefix.then("Slice", starts, ends, prefix.constant("crop_axes", [2, 3], np.int64))
    if (crop.height, crop.width) != (target.height, target.width):
        sizes = prefix.constant("size", [1, spec.channels, target.height, target.width], np.int64)
        prefix.then(
            "Resize", "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel", antialias=0
        )  # fmt: skip
    mean, std = np.reshape(spec.mean, (1, -1, 1, 1)), np.reshape(spec.std, (1, -1, 1, 1))
    prefix.then("Mul", prefix.constant("scale", 1.0 / (255.0 * std)))
    prefix.then("Add", prefix.constant("shift", -mean / std))
    if (target.height, target.width) != spec.size:
        bottom = spec.size[0] - target.top - target.height
        right = spec.size[1] - target.left - target.width
        pads = prefix.constant("pads", [0, 0, target.top, target.left, 0, 0, bottom, right], np.int64)
        prefix.then("Pad", pads, mode="constant")
    return prefix.finish()


def log_mel_prefix(raw: str, tensor: str, spec: AudioInput) -> Prefix:
    """Return float32 PCM [1, samples] -> log-mel [1, frames, n_mels].

    The windowed DFT is two strided convolutions; zero padding to ``n_fft`` changes no power, so the kernels
    are ``window_samples`` long.

    Args:
        raw: Name of the raw graph input.
        tensor: Name of the tensor that the network reads.
        spec: The audio seat, with features.

    Returns:
        Convolutions, power, mel filters, floor, logarithm, normalise.

    Raises:
        ConfigError: If the input has no features, or its band does not fit.
    """
    features = spec.features
    if features is None:
        raise ConfigError("the input has no features", where="features", fix="declare features of kind log_mel")
    prefix = Prefix(raw, tensor, TensorProto.FLOAT, spec.raw_shape)
    bins = np.arange(features.n_fft // 2 + 1)[:, None]
    if spec.gain != 1.0:
        prefix.then("Mul", prefix.constant("gain", spec.gain), name="amplify")
    phase = 2.0 * np.pi * bins * np.arange(features.window_samples) / features.n_fft
    window = hann_window(features.window_samples)
    pcm = prefix.then("Unsqueeze", prefix.constant("channel_axis", [1], np.int64))
    squares = []
    for name, basis in (("real", np.cos(phase)), ("imaginary", np.sin(phase))):
        kernel = prefix.constant(f"{name}_kernel", (basis * window)[:, None, :])
        part = prefix.then("Conv", kernel, source=pcm, name=name, strides=[features.hop_samples])
        squares.append(prefix.then("Mul", part, source=part, name=f"{name}_square"))
    prefix.then("Add", squares[1], source=squares[0], name="power")
    prefix.then("Transpose", perm=[0, 2, 1])
    prefix.then("MatMul", prefix.constant("mel_filters", mel_filters(features, spec.sample_rate_hz)), name="mel")
    prefix.then("Max", prefix.constant("floor", features.floor))
    prefix.then("Log")
    prefix.then("Mul", prefix.constant("scale", 1.0 / features.std), name="normalise")
    prefix.then("Add", prefix.constant("shift", -features.mean / features.std))
    return prefix.finish()


def make_prefix(raw: str, tensor: str, spec: Input) -> Prefix | None:
    """Return the prefix of a seat, or None where raw arrays are what the network takes."""
    if isinstance(spec, ImageInput):
        return image_prefix(raw, tensor, spec)
    if isinstance(spec, AudioInput) and spec.features is not None:
        return log_mel_prefix(raw, tensor, spec)
    if isinstance(spec, AudioInput) and spec.gain != 1.0:
        prefix = Prefix(raw, tensor, TensorProto.FLOAT, spec.raw_shape)
        prefix.then("Mul", prefix.constant("gain", spec.gain), name="amplify")
        return prefix.finish()
    return None


def merge_prefix(model: onnx.ModelProto, seats: Mapping[str, Input]) -> onnx.ModelProto:
    """Put the preprocessing of every raw input in front of a network.

    The network's own nodes, Q/DQ pairs included, stay as they are; input names stay too.

    Args:
        model: The network in tensor form.
        seats: Network input -> the seat that feeds it; other inputs pass unchanged.

    Returns:
        A new model that takes raw frames and PCM.

    Raises:
        ConfigError: If an output is the raw input itself.
        CheckError: If the network behind the preprocessing differs from what went in.

    Example:
        >>> raw = merge_prefix(model, {"x": recipe.inputs["image"]})  # doctest: +SKIP
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes: list[onnx.NodeProto] = []
    taken, inner = tensor_names(graph), dict[str, str]()
    names = {node.name for node in all_nodes(graph)}
    for index, value in enumerate(graph.input):
        tensor_name = fresh(f"{value.name}/tensor", taken)
        prefix = make_prefix(value.name, tensor_name, seats[value.name]) if value.name in seats else None
        if prefix is None:
            continue
        _name_apart(prefix, taken, names)
        rename(graph, {prefix.raw: prefix.tensor})
        inner[prefix.raw] = prefix.tensor
        for output in graph.output:
            if output.name == prefix.raw:
                raise ConfigError(
                    f"output '{output.name}' is the input itself",
                    where=graph.name,
                    fix="remove this output, or pass the input through an operator",
                )
        tensor = onnx.ValueInfoProto()
        tensor.CopyFrom(value)
        tensor.name = prefix.tensor
        graph.value_info.append(tensor)
        graph.input[index].CopyFrom(prefix.input)
        if opset < 18:  # Resize had no antialias then
            for node in prefix.nodes:
                kept = [attribute for attribute in node.attribute if attribute.name != "antialias"]
                del node.attribute[:]
                node.attribute.extend(kept)
        nodes.extend(prefix.nodes)
        graph.initializer.extend(prefix.constants)
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *own])
    onnx.checker.check_model(merged, full_check=True)
    # A difference in the last bit makes a quantiser round the other way.
    limit = _ROUNDING if any(node.op_type == "QuantizeLinear" for node in graph.node) else None
    check_rewrite(
        model,
        merged,
        "preprocessing",
        sample_feeds(merged),
        to_before=behind_front(merged, inner, graph.name),
        limit=limit,
    )
    return merged


def _name_apart(prefix: Prefix, taken: set[str], names: set[str]) -> None:
    """Give nodes and tensors of a prefix names that the network does not have, in place."""
    kept = {prefix.raw, prefix.tensor}
    made = [constant.name for constant in prefix.constants] + [out for node in prefix.nodes for out in node.output]
    own = {name: fresh(name, taken) for name in made if name not in kept}
    for constant in prefix.constants:
        constant.name = own[constant.name]
    for node in prefix.nodes:
        node.name = fresh(node.name, names)
        for used in (node.input, node.output):
            used[:] = [own.get(name, name) for name in used]


class Preprocessor:
    """Raw recorded arrays -> the tensors that networks take, with the very nodes of the TensorRT variants.

    Args:
        inputs: Every seat of the recipe.
        opset: Opset of the graphs.

    Example:
        >>> tensors = Preprocessor(recipe.inputs)(sample)  # doctest: +SKIP
    """

    def __init__(self, inputs: Mapping[str, Input], opset: int = 20) -> None:
        self._inputs = inputs
        self._opset = opset

    @cached_property
    def _engines(self) -> dict[str, OnnxRuntimeEngine]:
        engines = {}
        for name, spec in self._inputs.items():
            prefix = make_prefix(name, "tensor", spec)
            if prefix is not None:
                assert isinstance(spec, (ImageInput, AudioInput))
                output = helper.make_tensor_value_info("tensor", TensorProto.FLOAT, spec.tensor_shape)
                graph = helper.make_graph(prefix.nodes, "preprocess", [prefix.input], [output], prefix.constants)
                model = helper.make_model(
                    graph, opset_imports=[helper.make_opsetid("", self._opset)], ir_version=_IR_VERSION
                )
                engines[name] = judge(model, f"preprocess {name}")
        return engines

    def __call__(self, sample: Tensors) -> dict[str, AnyArray]:
        """Return one tensor per seat, copies.

        Arrays have the raw shapes [...] and dtypes of the recipe's inputs; tensors those of the manifest.

        Raises:
            ConfigError: If a seat's array is missing.
        """
        tensors: dict[str, AnyArray] = {}
        for name in self._inputs:
            if name not in sample:
                raise ConfigError(
                    f"the sample has no array for input '{name}'", where="samples", fix="record every input"
                )
            if name in self._engines:
                tensors[name] = self._engines[name]({name: sample[name]})["tensor"]
            else:
                tensors[name] = np.array(sample[name])
        return tensors
