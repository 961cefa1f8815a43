"""What feeds each tensor of a stage: its shape, its dtype, or a constant that fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, State
from mmedge.errors import BundleError
from mmedge.fusion.feed import expected_shape
from mmedge.types import AnyArray

if TYPE_CHECKING:
    from mmedge.fusion.stage import StageRunner

Shape: TypeAlias = tuple[int, ...]
# Stage -> output -> its shape and dtype.
Shapes: TypeAlias = dict[str, dict[str, tuple[list[int], str]]]
Upstream: TypeAlias = Callable[[str, str], AnyArray]


def output_shapes(spec: StageSpec) -> dict[str, Shape]:
    """Return output -> declared shape; named dimensions are 1."""
    return {name: tuple(1 if isinstance(d, str) else d for d in dims) for name, dims in spec.outputs.items()}


def constants(spec: StageSpec) -> dict[str, float]:
    """Return tensor -> the number of its ``@const:NUMBER``."""
    return {tensor: source.number for tensor, source in spec.sources.items() if isinstance(source, Constant)}


def input_shapes(spec: StageSpec, inputs: Mapping[str, Input], upstream: Upstream, *, raw: bool) -> dict[str, Shape]:
    """Return tensor -> the shape that the graph feeds; constants take any, so they are not in it.

    Args:
        spec: The stage.
        inputs: Every seat of the bundle.
        upstream: Gives the array of a stage's output.
        raw: Whether the variant takes raw frames and PCM.

    Example:
        >>> spec = StageSpec(inputs={"x": "audio", "sr": "@const:16000"}, outputs={})
        >>> input_shapes(spec, {"audio": AudioInput(sample_rate_hz=16000, window_ms=36)}, None, raw=False)
        {'x': (1, 576)}
    """
    own = output_shapes(spec)
    shapes: dict[str, Shape] = {}
    for tensor, source in spec.sources.items():
        match source:
            case Seat(name):
                shapes[tensor] = expected_shape(inputs[name], raw=raw)
            case State(output):
                shapes[tensor] = own[output]
            case Presence() | Age():
                shapes[tensor] = (1, len(inputs))
            case Output(producer, output):
                shapes[tensor] = upstream(producer, output).shape
    return shapes


def input_dtypes(spec: StageSpec, inputs: Mapping[str, Input], upstream: Upstream, *, raw: bool) -> dict[str, str]:
    """Return tensor -> the dtype that the graph feeds, where it must be exactly that: of seats and of links."""
    dtypes: dict[str, str] = {}
    for tensor, source in spec.sources.items():
        seat = inputs[source.name] if isinstance(source, Seat) else None
        if isinstance(seat, TensorInput):
            dtypes[tensor] = seat.dtype
        elif isinstance(seat, TextInput):
            dtypes[tensor] = "int64"
        elif isinstance(seat, (ImageInput, AudioInput)):
            dtypes[tensor] = "uint8" if raw and isinstance(seat, ImageInput) else "float32"
        elif isinstance(source, Output):
            dtypes[tensor] = upstream(source.stage, source.name).dtype.name
    return dtypes


def tensor_specs(
    spec: StageSpec, inputs: Mapping[str, Input], upstream: Upstream, *, raw: bool = False
) -> dict[str, tuple[Shape, str]]:
    """Return tensor -> shape and dtype of what the graph feeds a stage, constants as scalars: the host's view, too.

    Presence, ages, constants and states are float32 here; a network may take them in another dtype of its own.
    """
    dtypes = input_dtypes(spec, inputs, upstream, raw=raw)
    shapes = {**dict.fromkeys(constants(spec), ()), **input_shapes(spec, inputs, upstream, raw=raw)}
    return {tensor: (shapes[tensor], dtypes.get(tensor, "float32")) for tensor in spec.inputs}


def fill(array: AnyArray, number: float, where: str) -> None:
    """Fill a tensor with a constant, or raise BundleError if its dtype cannot hold the number.

    ``array`` has any shape.
    """
    kind, fits = array.dtype.kind, True
    if kind == "b":
        fits = number in (0, 1)
    elif kind in "iu":
        limits = np.iinfo(array.dtype)
        fits = number.is_integer() and int(limits.min) <= int(number) <= int(limits.max)
    else:  # neither too large nor so small that it would be none
        with np.errstate(all="ignore"):
            held = np.float64(number).astype(array.dtype)
        fits = bool(np.isfinite(held)) and bool(held) == bool(number)
    if not fits:
        raise BundleError(
            f"{number:g} does not fit into a tensor of {array.dtype}", where=where, fix="write a number that does"
        )
    array.fill(int(number) if kind in "iu" else number)


def age_limit(dtype: np.dtype[Any]) -> float:
    """Return the largest number that a tensor of ``dtype`` holds: ages in ms that are greater are fed as this one.

    Example:
        >>> age_limit(np.dtype("uint8")), age_limit(np.dtype("float16"))
        (255.0, 65504.0)
    """
    if dtype.kind == "b":
        return 1.0
    if dtype.kind in "iu":
        limit = int(np.iinfo(dtype).max)
        return float(limit) if float(limit) <= limit else float(np.nextafter(float(limit), 0))
    return float(np.finfo(dtype).max)


def array_of(upstream: Mapping[str, StageRunner], stage: str, output: str) -> AnyArray:
    """Return the array of a stage's output. It has the shape [...] and dtype of the engine's output, which owns it."""
    return upstream[stage].outputs[output]
