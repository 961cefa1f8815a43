"""Camera frames for an image seat, by the native kernel."""

from __future__ import annotations

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.errors import ConfigError
from mmedge.preprocess.geometry import Rectangle, crop_box, target_box
from mmedge.types import ByteArray, FloatArray, Frame

_FIX = "push uint8 frames whose shape, format, width and height agree"


def _corners(box: Rectangle) -> tuple[int, int, int, int]:
    return box.top, box.left, box.height, box.width


class ImagePreprocessor:
    """Turns frames of any format and size into what a variant takes, straight into the engine's array.

    Nothing is allocated per call, except when the camera's geometry changes.

    Args:
        spec: The image seat.

    Raises:
        ConfigError: If the seat cannot work.

    Example:
        >>> import numpy as np
        >>> spec = ImageInput(size=(2, 2), color="gray", mean=(0.0,), std=(1.0,), frame=(4, 4), reduce=2)
        >>> frame = Frame(stream="image", seq=0, capture_ns=0, arrive_ns=0, data=np.full((4, 4), 51, np.uint8),
        ...               format="gray8", width=4, height=4)
        >>> out = np.empty(spec.tensor_shape, np.float32)
        >>> ImagePreprocessor(spec).tensor(frame, out)
        >>> print(f"{out[0, 0, 0, 0]:.3f}")
        0.200
    """

    def __init__(self, spec: ImageInput) -> None:
        self.spec = spec
        try:
            self._kernel = core.ImageKernel(
                spec.frame,
                spec.color,
                spec.reduce,
                _corners(crop_box(spec)),
                _corners(target_box(spec)),
                spec.size,
                spec.mean,
                spec.std,
            )
        except ValueError as error:
            raise ConfigError(str(error), where="image input", fix="correct the input's declaration") from error

    def tensor(self, frame: Frame, out: FloatArray) -> None:
        """Write the normalised tensor of a frame.

        Args:
            frame: Of any format and size.
            out: float32 [1, channels, height, width].

        Raises:
            ConfigError: If the frame contradicts itself or ``out`` does not fit the seat.
        """
        try:
            self._kernel.tensor(frame.data, frame.format, frame.width, frame.height, frame.full_range, out)
        except (ValueError, TypeError) as error:
            raise _refused(error, frame) from error

    def raw(self, frame: Frame, out: ByteArray) -> None:
        """Write the raw frame that enters a TensorRT variant.

        Args:
            frame: Of any format and size.
            out: uint8 [1, frame height, frame width, channels].

        Raises:
            ConfigError: If the frame contradicts itself or ``out`` does not fit the seat.
        """
        try:
            self._kernel.raw(frame.data, frame.format, frame.width, frame.height, frame.full_range, out)
        except (ValueError, TypeError) as error:
            raise _refused(error, frame) from error


def _refused(error: Exception, frame: Frame) -> ConfigError:
    # The binding's type errors list C++ overloads, which helps nobody.
    message = (
        str(error) if isinstance(error, ValueError) else "not an array of the CPU, a size below 0 or a read-only output"
    )
    return ConfigError(message, where=f"frame of '{frame.stream}'", fix=_FIX)
