"""What the user's own code pushes, as packets: checked, and copied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.ipc.channel import MAX_SAMPLES
from mmedge.types import Block, Frame, Packet, Tensor


def pushed_packet(
    name: str, spec: Input, array: npt.NDArray[np.generic], *, seq: int, capture_ns: int, arrive_ns: int
) -> Packet:
    """Return a copy of what the user pushes to an input, as its sources would give it.

    Args:
        name: Of the input.
        spec: Its seat.
        array: Image: uint8 (h, w) gray or (h, w, 3) RGB. Audio: float32 (n,) mono at the input's sample rate. Tensor:
            the seat's shape and dtype.
        seq: Its number.
        capture_ns: When it was sensed, on CLOCK_MONOTONIC.
        arrive_ns: When it was pushed.

    Raises:
        ConfigError: If the array does not fit the seat.
    """
    where = f"input '{name}'"
    try:
        array = np.array(array, order="C", copy=True)
    except Exception as error:  # an object of the user's own may raise anything
        raise ConfigError(f"the value is not an array: {error}", where=where, fix="push a numpy array") from error
    if isinstance(spec, TextInput):
        raise ConfigError("push() does not take text", where=where, fix=f"pipe.text('...', name={name!r})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError(
            "the array has values that are not finite", where=where, fix="clean the data before it is pushed"
        )
    if not array.size:
        raise ConfigError("the array is empty", where=where, fix="push at least one value")
    stamp = {"stream": name, "seq": seq, "capture_ns": capture_ns, "arrive_ns": arrive_ns}
    if isinstance(spec, ImageInput) and array.dtype == np.uint8 and (array.ndim == 2 or array.shape[2:] == (3,)):
        kind = "gray8" if array.ndim == 2 else "rgb24"
        height, width = array.shape[:2]
        return Frame(data=array, format=kind, width=width, height=height, quality="A", **stamp)  # type: ignore[arg-type]
    if isinstance(spec, AudioInput) and array.dtype == np.float32 and array.ndim == 1:
        if len(array) > MAX_SAMPLES:
            raise ConfigError(
                f"a block of {len(array)} samples is too long", where=where, fix=f"push up to {MAX_SAMPLES}"
            )
        return Block(samples=array, quality="A", **stamp)  # type: ignore[arg-type]
    if isinstance(spec, TensorInput) and array.dtype == spec.dtype and array.shape == tuple(spec.shape):
        return Tensor(data=array, quality="A", **stamp)  # type: ignore[arg-type]
    raise ConfigError(
        f"{array.dtype} {list(array.shape)} does not fit this input",
        where=where,
        fix="image: uint8 (h, w[, 3]); audio: float32 (n,); tensor: as in the manifest",
    )
