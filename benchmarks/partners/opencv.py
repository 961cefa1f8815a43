"""Image preprocessing with OpenCV: the usual lines, and the fastest we know. One thread, everything reused."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mmedge.bundle.manifest import ImageInput
from mmedge.types import ByteArray, FloatArray

cv2.setNumThreads(1)


class TypicalColour:
    """BGR frame -> tensor as most tutorials write it."""

    def __init__(self, spec: ImageInput) -> None:
        self.size = spec.size[::-1]
        self.mean, self.std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)

    def __call__(self, bgr: ByteArray) -> FloatArray:
        rgb = cv2.cvtColor(cv2.resize(bgr, self.size), cv2.COLOR_BGR2RGB)
        scaled = (rgb.astype(np.float32) / 255.0 - self.mean) / self.std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


class BestColour:
    """BGR frame -> tensor: resize into a buffer, split into planes, one multiply and one add per plane."""

    def __init__(self, spec: ImageInput) -> None:
        self.size = spec.size[::-1]
        self.out: FloatArray = np.empty(spec.tensor_shape, np.float32)
        self._small = np.empty((*spec.size, 3), np.uint8)
        self._planes = [np.empty(spec.size, np.uint8) for _ in range(3)]
        self._scale = 1.0 / (255.0 * np.asarray(spec.std, np.float32))
        self._bias = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)

    def __call__(self, bgr: ByteArray) -> FloatArray:
        cv2.resize(bgr, self.size, dst=self._small)
        cv2.split(self._small, self._planes)
        for channel in range(3):
            plane = self.out[0, channel]
            np.multiply(self._planes[2 - channel], self._scale[channel], out=plane)
            np.add(plane, self._bias[channel], out=plane)
        return self.out


class BlobColour:
    """BGR frame -> tensor by the function that OpenCV has for it."""

    def __init__(self, spec: ImageInput) -> None:
        parameters = cv2.dnn.Image2BlobParams()
        parameters.scalefactor = tuple(1.0 / (255.0 * std) for std in spec.std)
        parameters.size = spec.size[::-1]
        parameters.mean = tuple(255.0 * mean for mean in spec.mean)
        parameters.swapRB = True
        self._parameters = parameters

    def __call__(self, bgr: ByteArray) -> FloatArray:
        made: FloatArray = cv2.dnn.blobFromImageWithParams(bgr, self._parameters)
        return made


class Yuv:
    """Frame of luma and chroma -> BGR -> tensor by another of these classes."""

    def __init__(self, spec: ImageInput, format: str, colour: Callable[[ByteArray], FloatArray]) -> None:
        self._code = {"nv12": cv2.COLOR_YUV2BGR_NV12, "yuv420p": cv2.COLOR_YUV2BGR_I420}[format]
        self._bgr = np.empty((*spec.frame, 3), np.uint8)
        self._colour = colour

    def __call__(self, yuv: ByteArray) -> FloatArray:
        return self._colour(cv2.cvtColor(yuv, self._code, dst=self._bgr))


class TypicalGray:
    """yuv420p frame -> gray tensor by way of BGR, as a VideoCapture user would."""

    def __init__(self, spec: ImageInput) -> None:
        self.size = spec.size[::-1]
        self.reduced = (spec.frame[1] // spec.reduce, spec.frame[0] // spec.reduce)
        self.mean, self.std = spec.mean[0], spec.std[0]

    def __call__(self, yuv: ByteArray) -> FloatArray:
        gray = cv2.cvtColor(cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420), cv2.COLOR_BGR2GRAY)
        small = cv2.resize(cv2.resize(gray, self.reduced, interpolation=cv2.INTER_AREA), self.size)
        scaled: FloatArray = ((small.astype(np.float32) / 255.0 - self.mean) / self.std)[None, None]
        return scaled


class BestGray:
    """yuv420p frame -> gray tensor from the luma plane alone; the range is undone in the multiply-add."""

    def __init__(self, spec: ImageInput, *, full_range: bool) -> None:
        self.size = spec.size[::-1]
        self.rows = spec.frame[0]
        self.reduced = (spec.frame[1] // spec.reduce, spec.frame[0] // spec.reduce)
        self.out: FloatArray = np.empty(spec.tensor_shape, np.float32)
        self._area = np.empty(self.reduced[::-1], np.uint8)
        self._small = np.empty(spec.size, np.uint8)
        black, span = (0.0, 255.0) if full_range else (16.0, 219.0)
        self._scale = np.float32(1.0 / (span * spec.std[0]))
        self._bias = np.float32(-(black / span + spec.mean[0]) / spec.std[0])

    def __call__(self, yuv: ByteArray) -> FloatArray:
        cv2.resize(yuv[: self.rows], self.reduced, dst=self._area, interpolation=cv2.INTER_AREA)
        cv2.resize(self._area, self.size, dst=self._small)
        plane = self.out[0, 0]
        np.multiply(self._small, self._scale, out=plane)
        np.add(plane, self._bias, out=plane)
        return self.out
