"""Which layers of a built TensorRT engine compute in INT8, FP8 or FP16, or hold four bits, read from its layer list.

Engines cannot be inspected without a GPU, but the builder prints every layer with the types of its
tensors and the ONNX nodes it came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_ONNX_NAME = re.compile(r"ONNX Layer: ([^\]\x1e]+)")
_DATATYPE = re.compile(r"Datatype: ([^,}]+)")
_WEIGHTS = re.compile(r'Weights: \{"Type": "([^"]+)"')
# A generated kernel ("kgen") is named after its steps. One that starts with a correlation works on what
# enters; in any other, INT8 that enters was scaled or converted before it is multiplied.
_PRODUCT_FIRST = re.compile(r"__myl_(?:Tran|Resh|Move|Conc)*Corr")
_INT8 = re.compile(r"\b(int8|fp8)\b", re.IGNORECASE)
_FOUR_BITS = re.compile(r"\b(int4|fp4(e2m1)?)\b", re.IGNORECASE)
_HALF = re.compile(r"\b(half|fp16)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer of a built engine.

    Attributes:
        name: As the builder calls it.
        kind: ``"correlation"``, ``"gemm"``, ``"kgen"``...
        nodes: Names of the ONNX nodes it came from.
        int8: Whether both of its operands, data and weights, enter as INT8, or both as FP8; or an operand in four bits.
        half: Whether an operand is FP16.
        reads: Types of the data that enters, as the builder writes them.
        writes: Types of what leaves.
    """

    name: str
    kind: str
    nodes: frozenset[str]
    int8: bool
    half: bool = False
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


def parse_layers(text: str) -> list[Layer]:
    """Read the builder's ``Layers:`` message, or an inspector's one-line descriptions.

    Args:
        text: One layer a line.

    Returns:
        The layers in order of execution.
    """
    layers = []
    for line in text.splitlines():
        match = re.match(r"Name: (.*?), LayerType: (\w+)", line)
        if match is None:
            continue
        inputs, constants = _section(line, "Inputs"), _section(line, "Constants")
        data = _DATATYPE.findall(inputs)
        operands = [*data, *_DATATYPE.findall(constants), *_WEIGHTS.findall(line)]
        layers.append(
            Layer(
                name=match[1],
                kind=match[2],
                nodes=onnx_names(line),
                int8=any(_FOUR_BITS.search(kind) for kind in operands)
                or (
                    (match[2] != "kgen" or _PRODUCT_FIRST.match(match[1]) is not None)
                    and bool(data)
                    and _INT8.search(data[0]) is not None
                    and sum(_INT8.search(kind) is not None for kind in operands) >= 2
                ),
                half=any(_HALF.search(kind) for kind in operands),
                reads=tuple(data),
                writes=tuple(_DATATYPE.findall(_section(line, "Outputs"))),
            )
        )
    return layers


def _section(line: str, title: str) -> str:
    start = line.find(f" {title}: [")
    if start < 0:
        return ""
    depth = 0
    for place in range(line.index("[", start), len(line)):
        depth += {"[": 1, "]": -1}.get(line[place], 0)
        if depth == 0:
            return line[start:place]
    return line[start:]


def onnx_names(metadata: str) -> frozenset[str]:
    """Names of the ONNX nodes in a layer's metadata."""
    return frozenset(_ONNX_NAME.findall(metadata))


def quantized_nodes(network: Any, layer_types: Any) -> list[frozenset[str]]:
    """Find the convolutions and matrix products of a parsed network that are to run in fewer bits.

    Their data comes from a DequantizeLinear, or their weights from one of INT4 or FP4: these are named with the
    product, since a builder that unpacks them in a layer of its own still keeps them in four bits.

    Args:
        network: ``INetworkDefinition`` after parsing.
        layer_types: The module's ``LayerType``.

    Returns:
        For each, the ONNX names it goes by.
    """
    layers = _layers(network)
    producer = {layer.get_output(k).name: layer for layer in layers for k in range(layer.num_outputs)}
    # The parser puts reshapes between: a Conv1d becomes unsqueeze, Conv2d, squeeze.
    passing = {getattr(layer_types, name, None) for name in ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")}
    found = []
    for layer in _products(layers, layer_types):
        names = _names(layer)
        data, *weights = (_dequantized(layer.get_input(k), producer, passing) for k in range(layer.num_inputs))
        if data is not None and data.type == layer_types.DEQUANTIZE:
            found.append(names)
        elif weights and weights[0] is not None and weights[0].type == layer_types.DEQUANTIZE:
            packed = _FOUR_BITS.search(_type(weights[0].get_input(0))) is not None
            found += [names | onnx_names(weights[0].metadata)] if packed else []
    return found


def half_nodes(network: Any, layer_types: Any) -> list[frozenset[str]]:
    """Find the convolutions and matrix products of a parsed network whose data is FP16; as ``quantized_nodes``."""
    products = _products(_layers(network), layer_types)
    return [_names(layer) for layer in products if _HALF.search(_type(layer.get_input(0)))]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(index) for index in range(network.num_layers)]


def _products(layers: list[Any], layer_types: Any) -> list[Any]:
    heavy = {layer_types.CONVOLUTION, layer_types.DECONVOLUTION, layer_types.MATRIX_MULTIPLY}
    return [layer for layer in layers if layer.type in heavy]


def _names(layer: Any) -> frozenset[str]:
    return onnx_names(layer.metadata) or frozenset([layer.name])


def _type(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]


def _dequantized(tensor: Any, producer: dict[str, Any], passing: set[Any]) -> Any:
    """Return the layer that makes a tensor, behind those that only lay it out; None for an input."""
    source = None if tensor is None else producer.get(tensor.name)
    while source is not None and source.type in passing:
        source = producer.get(source.get_input(0).name)
    return source


def split_int8(layers: list[Layer], quantized: list[frozenset[str]]) -> tuple[list[str], list[str]]:
    """Return the names of the quantised operations that a layer computes in INT8, and of those that none does."""
    return _split([layer for layer in layers if layer.int8], quantized)


def count_half(layers: list[Layer], asked: list[frozenset[str]]) -> int:
    """Count the operations on FP16 data that a layer computes with an operand in FP16."""
    return len(_split([layer for layer in layers if layer.half], asked)[0])


def _split(layers: list[Layer], asked: list[frozenset[str]]) -> tuple[list[str], list[str]]:
    running = frozenset[str]().union(*(layer.nodes for layer in layers))
    split: tuple[list[str], list[str]] = ([], [])
    for names in asked:
        split[names.isdisjoint(running)].append(" + ".join(sorted(names)))
    return split


def boundaries(layers: list[Layer]) -> list[str]:
    """Return where data goes between INT8 and float in a layer that is no product: each reads and writes it once more.

    Returns:
        One line per layer: the ONNX nodes it came from and the two types.
    """
    found = []
    for layer in layers:
        enters, leaves = ({_INT8.search(kind) is not None for kind in side} for side in (layer.reads, layer.writes))
        if not layer.int8 and enters and leaves and enters != leaves:
            nodes = " + ".join(sorted(layer.nodes)) or layer.name
            found.append(f"{nodes}: {'int8' if True in enters else 'float'} to {'int8' if True in leaves else 'float'}")
    return found
