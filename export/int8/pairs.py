"""Weights whose products with unsigned activations fit into 16 bits where CPUs without VNNI add them in pairs.

``vpmaddubsw`` multiplies unsigned by signed bytes and adds two neighbours in 16 bits, which saturate: 255 * 127 twice
is too much. Kernels that avoid it take 1.4 times as long (ResNet-18 on AVX2). Weights of seven bits always fit; but of
two neighbours one is small as a rule, so that less is enough: in each channel, steps as much wider as cost least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from mmedge.types import AnyArray, FloatArray

# 255 * 128 < 2^15: two neighbours of one sign are at most 128 together.
_MOST = 128
_WIDER = np.linspace(1.0, 2.0, 11, dtype=np.float32)  # twice as wide always fits: 64 + 64
_SUMS = frozenset({"Conv", "Gemm", "MatMul"})
_AT_ONCE = 1 << 18  # weights, so that they stay in the cache


def fit_pairs(codes: AnyArray, orders: Sequence[AnyArray], *, shared: bool = False) -> tuple[AnyArray, FloatArray]:
    """Return weights in steps that are as much wider as they have to be for pairs to fit, with the least square error.

    Args:
        codes: int8 [n, k]: n sums of k products.
        orders: int64 [k] each: neighbours in each of these orders of the products fit.
        shared: Whether all have the same steps.

    Returns:
        int8 [n, k]; float32 [n], how much wider their steps are.
    """
    n, k = codes.shape
    step = max(1, _AT_ONCE // max(1, k))
    backs = [_inverse(order) for order in orders]
    chunks = [slice(at, at + step) for at in range(0, n, step)]

    def fitted(rows: FloatArray, wider: FloatArray | np.float32) -> FloatArray:
        tried: FloatArray = np.rint(rows / wider)
        for order, back in zip(orders, backs, strict=True):
            tried = _cut(tried[:, order])[:, back]
        return tried

    errors = np.zeros((len(_WIDER), n))
    for chunk in chunks:
        rows = codes[chunk].astype(np.float32)
        for place, wider in enumerate(_WIDER):
            errors[place, chunk] = np.square(fitted(rows, wider) * wider - rows).sum(axis=1)
    best = np.full(n, errors.sum(axis=1).argmin()) if shared else errors.argmin(axis=0)
    factors = _WIDER[best]
    result = np.empty_like(codes)
    for chunk in chunks:
        result[chunk] = fitted(codes[chunk].astype(np.float32), factors[chunk, None])
    return result, factors


def _inverse(order: AnyArray) -> AnyArray:
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return back


def _cut(codes: FloatArray) -> FloatArray:
    """Return whole numbers [n, k] of which no two neighbours are too much together."""
    n, k = codes.shape
    even = np.pad(codes, ((0, 0), (0, k % 2))).reshape(n, -1, 2)
    excess = np.maximum(np.abs(even.sum(axis=2)) - _MOST, 0)  # of two signs a sum is never too much
    if not excess.any():
        return codes
    even[..., 0] -= np.sign(even[..., 0]) * np.ceil(excess / 2)
    even[..., 1] -= np.sign(even[..., 1]) * np.floor(excess / 2)
    return even.reshape(n, -1)[:, :k]


def fit_weights(graph: onnx.GraphProto, layers: Collection[str]) -> bool:
    """Give the int8 weights of layers steps in which pairs of their products fit, in place.

    Args:
        graph: The outermost graph; weights are constants behind DequantizeLinear.
        layers: Names of the nodes that take rounded tensors.

    Returns:
        Whether all of them do. Where several operators lay the same weights out in different ways, nothing is changed.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    found: dict[str, tuple[str, bool, bool]] = {}  # codes -> their scale, whether of a convolution, whether turned
    for node in graph.node:
        weight = made.get(node.input[1]) if node.op_type in _SUMS and node.name in layers else None
        if weight is not None and weight.input[0] in held:
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            own = weight.input[1], node.op_type == "Conv", turned
            if found.setdefault(weight.input[0], own) != own:
                return False
    readers = Counter(name for node in graph.node for name in node.input)
    if any(readers[scale] > 1 for scale, _, _ in found.values()):
        return False
    for name, (scale_name, conv, turned) in found.items():
        codes, scale = numpy_helper.to_array(held[name]), numpy_helper.to_array(held[scale_name])
        rows = codes if conv or turned else np.swapaxes(codes, -1, -2)
        flat = rows.reshape(len(rows), -1) if conv else rows.reshape(-1, rows.shape[-1])
        place = np.arange(flat.shape[1])
        # A convolution's channels may run last, or first.
        orders = [place, place.reshape(codes.shape[1], -1).T.ravel()] if conv else [place]
        fitted, wider = fit_pairs(flat, orders, shared=scale.ndim == 0)
        rows = fitted.reshape(rows.shape)
        _put(held[name], rows if conv or turned else np.ascontiguousarray(np.swapaxes(rows, -1, -2)))
        _put(held[scale_name], (scale * (wider if scale.ndim else wider[0])).astype(np.float32))
    return True


def _put(tensor: onnx.TensorProto, value: AnyArray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
