"""Camera frames for an image seat, by the native kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.errors import ConfigError
from mmedge.preprocess.fit import Fit, Seen, frame_fit, tensor_fit
from mmedge.preprocess.geometry import reduced_size
from mmedge.types import ByteArray, FloatArray, Frame

log = logging.getLogger("mmedge.preprocess")
_FIX = "push uint8 frames whose shape, format, width and height agree"


class _Planner:
    """Makes the kernel's plan for each geometry of a camera."""

    def __init__(self, spec: ImageInput, fit: Callable[[ImageInput, Seen], Fit]) -> None:
        self._spec, self._fit, self._told = spec, fit, False

    def __call__(self, frame: Frame) -> core.ImagePlan:
        if frame.height < 0 or frame.width < 0:
            raise TypeError("a size below 0")
        if not (frame.height and frame.width):
            raise ValueError("the frame is empty")
        seen = Seen.of(frame)
        fit = self._fit(self._spec, seen)
        if not fit.free and not self._told:
            self._told = True
            log.warning(
                "'%s': a picture of %dx%d has no room in the letterbox of a %dx%d frame; it is shown smaller than it "
                "could be. Export the bundle with a 'frame' of the camera's aspect",
                frame.stream,
                *seen.shown[::-1],
                *self._spec.frame[::-1],
            )
        return core.ImagePlan(fit.rows, fit.columns, seen.swapped, *seen.flips)


class ImagePreprocessor:
    """Turns frames of any format and size into what a variant takes, straight into the engine's array.

    Nothing is allocated per call, except when the camera's geometry changes.

    Args:
        spec: The image seat.
        instructions: One of ``core.image_instructions()``, for tests and measurements: all give the same bits. By
            default the best that this process can use.

    Raises:
        ConfigError: If the seat cannot work, or this machine has no such instructions.

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

    def __init__(self, spec: ImageInput, *, instructions: str = "") -> None:
        self.spec = spec
        reduced_size(spec)
        try:
            self._kernel = core.ImageKernel(spec.frame, spec.color, spec.size, spec.mean, spec.std, instructions)
        except ValueError as error:
            raise ConfigError(str(error), where="image input", fix="correct the input's declaration") from error
        self._tensor = core.PictureSeat(self._kernel, plan=_Planner(spec, tensor_fit), refuse=_refuse, raw=False)
        self._raw = core.PictureSeat(self._kernel, plan=_Planner(spec, frame_fit), refuse=_refuse, raw=True)

    def tensor(self, frame: Frame, out: FloatArray) -> None:
        """Write the normalised tensor of a frame.

        Args:
            frame: Of any format and size, turned as its description says.
            out: float32 [1, channels, height, width].

        Raises:
            ConfigError: If the frame contradicts itself or ``out`` does not fit the seat.
        """
        self._tensor(frame, out)

    def gpu_table(self, frame: Frame) -> tuple[bytes, bytes, bytes]:
        """Return what a GPU needs to write what ``tensor`` writes, of pictures like this one: see ``CudaNet``.

        Args:
            frame: Of any format and size, turned as its description says; its pixels are not read.

        Raises:
            ConfigError: If the frame contradicts itself.
        """
        try:
            said, plan = frame.description, self._tensor.plan_of(frame)
            return self._kernel.gpu_table(
                frame.data, frame.format, frame.width, frame.height, said.matrix, said.full_range, plan
            )
        except (ValueError, TypeError) as error:
            raise refused(error, frame) from error

    def raw(self, frame: Frame, out: ByteArray) -> None:
        """Write the raw frame that enters a TensorRT variant: the graph in it gives what ``tensor`` writes.

        Args:
            frame: Of any format and size.
            out: uint8 [1, frame height, frame width, channels].

        Raises:
            ConfigError: If the frame contradicts itself or ``out`` does not fit the seat.
        """
        self._raw(frame, out)

    def fill(self, name: str, *, raw: bool) -> core.PictureFill:
        """Return what writes the frame of input ``name`` of a snapshot, as ``tensor`` or ``raw`` does."""
        return core.PictureFill(name, self._raw if raw else self._tensor)


def refused(error: Exception, frame: Frame) -> ConfigError:
    """Return the error of a frame that the native kernel refuses."""
    # The binding's type errors list C++ overloads, which helps no user.
    return _error(frame, str(error) if isinstance(error, ValueError) else None)


def _error(frame: Frame, why: str | None) -> ConfigError:
    message = why or "not an array of the CPU, a size below 0 or a read-only output"
    return ConfigError(message, where=f"frame of '{frame.stream}'", fix=_FIX)


def _refuse(frame: Frame, why: str | None) -> NoReturn:
    raise _error(frame, why)
