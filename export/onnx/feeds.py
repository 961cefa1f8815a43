"""Inputs made up by a network's signature, the same in every process: rewrites are checked on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmedge.types import AnyArray

Feeds = Mapping[str, Any]
# (batch, every other open dimension): what the network itself cannot run is left out.
_SIZES = ((1, 1), (2, 5), (1, 16), (3, 2), (1, 32), (2, 64), (1, 160), (1, 224))
# Where none of these runs: a picture that many strided layers take in. No input gets more than so many values.
_LARGER, _MOST = (320, 448, 640, 1024), 1 << 24
_TEXTS = ("", "a", "B b", "7", "-1.5", "Ä")


def sample_feeds(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fixed: Feeds | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield inputs for a network: noise, zeros, negative, large; at several sizes of dimensions that are open.

    Arrays have the shapes [...] and dtypes of the network's inputs. They are the same in every process.

    Args:
        model: The network.
        shapes: Input -> its shape, where it is known.
        fixed: Inputs that are always fed the same.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    kinds = ("noise", "zeros", "small", "negative", "large")
    seen: list[dict[str, tuple[int, ...]]] = []
    for sizes in _SIZES:
        named: dict[str, int] = {}
        chosen = {value.name: _shape(value, sizes, named, (shapes or {}).get(value.name)) for value in inputs}
        if chosen in seen:
            continue
        for kind in kinds if not seen else kinds[:2]:
            rng = np.random.default_rng(len(seen))
            yield {value.name: (fixed or {}).get(value.name, _feed(value, chosen, kind, rng)) for value in inputs}
        seen.append(chosen)


def larger_feeds(model: onnx.ModelProto) -> Iterator[dict[str, Any]]:
    """Yield noise of larger and larger sizes, for a network with open dimensions that runs on no smaller ones."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    seen: list[dict[str, tuple[int, ...]]] = []
    for size in _LARGER:
        named: dict[str, int] = {}
        chosen = {value.name: _shape(value, (1, size), named, None) for value in inputs}
        if chosen in seen or max(map(math.prod, chosen.values()), default=0) > _MOST:
            continue
        seen.append(chosen)
        yield {value.name: _feed(value, chosen, "noise", np.random.default_rng(size)) for value in inputs}


def _shape(
    value: onnx.ValueInfoProto, sizes: tuple[int, int], named: dict[str, int], known: Sequence[int] | None
) -> tuple[int, ...]:
    if known is not None:
        return tuple(known)
    made = []
    for axis, dim in enumerate(_tensor_type(value.type).shape.dim):
        size = sizes[0] if axis == 0 or "batch" in dim.dim_param.lower() else sizes[1]
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            size = dim.dim_value
        elif dim.dim_param:
            size = named.setdefault(dim.dim_param, size)
        made.append(size)
    return tuple(made)


def _tensor_type(kind: onnx.TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        return _tensor_type(kind.sequence_type.elem_type)
    return _tensor_type(kind.optional_type.elem_type) if kind.HasField("optional_type") else kind.tensor_type


def _feed(
    value: onnx.ValueInfoProto, shapes: Mapping[str, tuple[int, ...]], kind: str, rng: np.random.Generator
) -> Any:
    array = _array(_tensor_type(value.type).elem_type, shapes[value.name], kind, rng)
    is_list = value.type.HasField("sequence_type") or value.type.optional_type.elem_type.HasField("sequence_type")
    return [array, array] if is_list else array


def _array(elem: int, shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> AnyArray:
    if elem == TensorProto.STRING:
        texts = np.array(_TEXTS, object)[rng.integers(0, len(_TEXTS), shape)]
        return np.asarray(texts if kind != "zeros" else np.full(shape, ""), object)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem))
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    if dtype.kind in "iu":
        # Indices, sizes and counts are whole numbers: large ones would ask for memory without end.
        is_sample = dtype.itemsize <= 2
        info = np.iinfo(dtype)
        low, high = {
            "noise": (0, info.max + 1 if is_sample else 10),
            "small": (0, 2),
            "negative": (max(info.min, -3), 4),
            "large": (info.min if is_sample else 0, info.max + 1 if is_sample else 100),
        }[kind]
        if kind == "large" and not is_sample and int(np.prod(shape)) <= 8:
            high = 8
        return np.asarray(rng.integers(low, high, shape), dtype)
    if kind == "small":
        return np.asarray(rng.uniform(0, 1, shape)).astype(dtype)
    made = np.asarray(rng.normal(0, 1, shape))
    made = -np.abs(made) if kind == "negative" else made * 100 if kind == "large" else made
    return made.astype(dtype)
