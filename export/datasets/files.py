"""One file as one raw sample of a seat: a picture, a sound, an array; what cannot be used says why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, TensorInput
from mmedge.engine.arrays import UNREADABLE
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import AnyArray, ByteArray, FloatArray, Frame

from .problems import UnusableFileError
from .speech import read_audio

MAX_SIDE = 16_384  # pixels, as of any source
_LOUDEST = 8.0  # of float samples; louder ones are integers that were not scaled
_LEVELS, _FEWEST = 256, 16  # of grey; by how much a picture of 16 bits may fall short of it
# A small file can be a picture of any size; OpenCV reads this when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_SIDE**2))


def read_file(path: Path, spec: ImageInput | AudioInput | TensorInput, shown: str) -> AnyArray:
    """Return what a file holds, raw, as ``Sample.inputs`` has it.

    Args:
        path: A picture that OpenCV reads, a sound that FFmpeg reads, or an array (``.npy``).
        spec: The seat.
        shown: How messages call the file.

    Returns:
        uint8 [h, w, c] fitted into the seat's ``frame``; float32 PCM [samples], the last window of the sound, silence
        before it where it is shorter; a tensor without the leading 1 of its shape.

    Raises:
        UnusableFileError: If it is damaged, too large, empty, not finite, or of another shape or type.
    """
    if isinstance(spec, TensorInput):
        return _tensor(load_array(path, shown), spec, shown)
    if _is_array(path):
        return fit_array(load_array(path, shown), spec, shown)
    if isinstance(spec, ImageInput):
        return _framed(_picture(path, spec, shown), spec, "bgr24")
    return _window(_sound(path, spec, shown), spec, shown)


def fit_array(array: AnyArray, spec: ImageInput | AudioInput, shown: str) -> AnyArray:
    """Return a picture or a sound that is an array already as ``read_file`` returns that of a file.

    Args:
        array: A picture uint8 [h, w], [h, w, 1] or [h, w, 3], red first; a sound float [n], -1..1, or int16 [n], mono,
            at the seat's sample rate.
        spec: The seat.
        shown: How messages call it.

    Raises:
        UnusableFileError: If it is neither.
    """
    if isinstance(spec, ImageInput):
        return _framed(_array_picture(array, shown), spec, "rgb24")
    return _window(_array_sound(array, spec, shown), spec, shown)


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def load_array(path: Path, shown: str) -> AnyArray:
    """Return the array of a ``.npy`` file, mapped, not read.

    Its shape [...] and dtype are those of the file.

    Raises:
        UnusableFileError: If it is none, or holds objects.
    """
    try:
        array: AnyArray = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        raise UnusableFileError(f"cannot read the array '{shown}': {error}") from error
    if array.dtype.kind not in "iufb":
        raise UnusableFileError(f"the array '{shown}' is {array.dtype}, not numbers")
    if not array.size:
        raise UnusableFileError(f"the array '{shown}' is empty: {list(array.shape)}")
    return array


def _picture(path: Path, spec: ImageInput, shown: str) -> ByteArray:
    cv2 = require("cv2", "reading images")
    try:
        form = cv2.IMREAD_GRAYSCALE if spec.color == "gray" else cv2.IMREAD_COLOR
        picture: AnyArray | None = cv2.imread(str(path), form | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # of sizes that it does not take
        raise UnusableFileError(f"cannot read the image '{shown}': {error.err}") from error
    if picture is None:
        raise UnusableFileError(f"cannot read the image '{shown}'")
    if max(picture.shape) > MAX_SIDE:
        raise UnusableFileError(f"the image '{shown}' has a side of more than {MAX_SIDE} pixels")
    if picture.dtype == np.uint16:
        coarse = (picture >> 8).astype(np.uint8)
        if np.ptp(picture) >= _LEVELS > _LEVELS // _FEWEST > np.ptp(coarse):
            raise UnusableFileError(
                f"the image '{shown}' is {told(picture)}: 8 bits leave {np.ptp(coarse) + 1} grey levels of it; scale "
                "it as your camera does, and save it with 8 bits"
            )
        picture = coarse
    if picture.dtype != np.uint8:
        raise UnusableFileError(f"the image '{shown}' is {told(picture)}: no camera gives this; save it with 8 bits")
    return picture


def picture_shape(path: Path, spec: ImageInput, shown: str) -> tuple[int, int]:
    """Return rows and columns of a picture as it is shown.

    Raises:
        UnusableFileError: If it cannot be read.
    """
    picture = _array_picture(load_array(path, shown), shown) if _is_array(path) else _picture(path, spec, shown)
    return picture.shape[0], picture.shape[1]


def told(array: AnyArray) -> str:
    """Return dtype, shape [...] and range of an array of any dtype."""
    ranged = array.size and array.dtype.kind in "iuf"
    return f"{array.dtype} {list(array.shape)}" + (f" of {array.min():.4g}..{array.max():.4g}" if ranged else "")


def _array_picture(array: AnyArray, shown: str) -> ByteArray:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,)):
        wanted = "uint8 [height, width] or [height, width, 3], red first, 0..255, not what the network takes"
        raise UnusableFileError(f"the array '{shown}' is {told(array)}: no raw picture, which is {wanted}")
    if max(array.shape) > MAX_SIDE:
        raise UnusableFileError(f"the image '{shown}' has a side of more than {MAX_SIDE} pixels")
    picture: ByteArray = np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array)
    return picture


def _framed(picture: ByteArray, spec: ImageInput, colours: Literal["bgr24", "rgb24"]) -> ByteArray:
    # As a TensorRT variant is given it: fitted from its own aspect. OpenCV has turned it as its EXIF says.
    frame = Frame(
        stream="file",
        seq=0,
        capture_ns=0,
        arrive_ns=0,
        data=picture,
        format="gray8" if picture.ndim == 2 else colours,
        width=picture.shape[1],
        height=picture.shape[0],
    )
    out = np.empty(spec.raw_shape, np.uint8)
    ImagePreprocessor(spec).raw(frame, out)
    result: ByteArray = out[0]
    return result


def _sound(path: Path, spec: AudioInput, shown: str) -> FloatArray:
    try:
        return read_audio(path, spec.sample_rate_hz)
    except SourceError as error:
        raise UnusableFileError(f"cannot use the sound '{shown}': {error.message}") from error


def _array_sound(array: AnyArray, spec: AudioInput, shown: str) -> FloatArray:
    is_pcm = array.dtype.kind == "i" and array.dtype.itemsize == 2  # of either byte order
    sound = array.astype(np.float32) / np.float32(32_768 if is_pcm else 1)
    typed = array.dtype.kind == "f" or is_pcm
    if array.ndim != 1 or not typed or np.abs(sound[-spec.samples :]).max(initial=0) > _LOUDEST:
        wanted = f"float32 of -1..1 or int16, [samples], mono, at {spec.sample_rate_hz} Hz"
        raise UnusableFileError(f"the array '{shown}' is {told(array)}: no raw sound, which is {wanted}")
    loud: FloatArray = sound
    return loud


def _window(sound: FloatArray, spec: AudioInput, shown: str) -> FloatArray:
    sound = sound[-spec.samples :]
    if not np.isfinite(sound).all():
        raise UnusableFileError(f"the sound '{shown}' has samples that are not finite")
    if (loudest := np.abs(sound).max(initial=0)) > _LOUDEST:
        raise UnusableFileError(f"the sound '{shown}' has samples up to {loudest:.4g}: float sound is within -1..1")
    return np.pad(sound, (spec.samples - len(sound), 0)).astype(np.float32)


def _tensor(array: AnyArray, spec: TensorInput, shown: str) -> AnyArray:
    if array.shape == spec.shape:
        array = array[0]
    rank, dtype = len(spec.shape) - 1, np.dtype(spec.dtype)
    if array.shape[array.ndim - rank :] != spec.shape[1:] or array.ndim > rank + 1:
        raise UnusableFileError(
            f"the array '{shown}' is {array.dtype} {list(array.shape)}, the input is {dtype} {list(spec.shape[1:])}"
        )
    return cast_array(array, dtype, shown)


def cast_array(array: AnyArray, dtype: npt.DTypeLike, shown: str) -> AnyArray:
    """Return a copy with a seat's dtype, of any shape [...] and byte order; float64 becomes float32.

    Raises:
        UnusableFileError: If it is of another kind, not finite, or has integers that do not fit.
    """
    wanted = np.dtype(dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise UnusableFileError(f"the array '{shown}' is {told(array)}, the input is {wanted}")
    with np.errstate(over="ignore"):
        found = np.array(array, wanted, order="C")
    if wanted.kind == "f" and not np.isfinite(found).all():
        raise UnusableFileError(f"the array '{shown}' is {told(array)}: it has values that are not finite in {wanted}")
    if wanted.kind in "iu" and not np.array_equal(found, array):
        raise UnusableFileError(f"the array '{shown}' is {told(array)}, more than {wanted} holds")
    return found
