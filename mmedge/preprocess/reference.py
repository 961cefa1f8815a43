"""The oracle: every preprocessing step in plain numpy, clear and slow. Native kernels and graphs must equal it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, LogMel
from mmedge.errors import ConfigError
from mmedge.preprocess.geometry import crop_box, reduced_size, target_box
from mmedge.types import ByteArray, FloatArray, Frame

_Double = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int32]


# BT.601 with 13 fractional bits: luma, V to red, U to green, V to green, U to blue.
_LIMITED = (9539, 13075, 3209, 6660, 16525)
_FULL = (8192, 11485, 2819, 5850, 14516)


def _expand_luma(luma: ByteArray) -> ByteArray:
    """16..235 -> 0..255, rounded half up."""
    above = np.maximum(luma.astype(np.int32) - 16, 0)
    expanded: ByteArray = np.minimum((above * 510 + 219) // 438, 255).astype(np.uint8)
    return expanded


def _chroma(frame: Frame) -> tuple[_Integers, _Integers]:
    """U and V minus 128, at the size of the luma plane (nearest neighbour)."""
    rows, columns = frame.height // 2, frame.width // 2
    packed = frame.data[frame.height :].reshape(-1)
    if frame.format == "nv12":
        planes = np.moveaxis(packed.reshape(rows, columns, 2), 2, 0)
    else:
        planes = packed.reshape(2, rows, columns)
    u, v = planes.repeat(2, axis=1).repeat(2, axis=2).astype(np.int32) - 128
    return u, v


def _yuv_to_rgb(frame: Frame) -> ByteArray:
    scale, red_v, green_u, green_v, blue_u = _FULL if frame.full_range else _LIMITED
    luma = frame.data[: frame.height].astype(np.int32)
    if not frame.full_range:
        luma = np.maximum(luma - 16, 0)
    u, v = _chroma(frame)
    channels = (luma * scale + red_v * v, luma * scale - green_u * u - green_v * v, luma * scale + blue_u * u)
    return np.stack([np.clip((channel + 4096) >> 13, 0, 255) for channel in channels], axis=2).astype(np.uint8)


def pixels(frame: Frame, color: str) -> ByteArray:
    """Convert a frame to full-range pixels at its own size.

    Args:
        frame: A well-formed frame.
        color: ``gray``, ``rgb`` or ``bgr``.

    Returns:
        uint8 [height, width, 1 or 3], a copy.
    """
    if frame.format in ("bgr24", "rgb24"):
        rgb = frame.data if frame.format == "rgb24" else frame.data[..., ::-1]
        if color == "gray":
            red, green, blue = np.moveaxis(rgb.astype(np.int32), 2, 0)
            mixed: ByteArray = ((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14).astype(np.uint8)
            return mixed[..., None]
        ordered: ByteArray = (rgb if color == "rgb" else rgb[..., ::-1]).copy()
        return ordered
    if color == "gray" or frame.format == "gray8":
        luma = frame.data[: frame.height]
        gray = luma.copy() if frame.full_range else _expand_luma(luma)
        return np.repeat(gray[..., None], 1 if color == "gray" else 3, axis=2)
    rgb = _yuv_to_rgb(frame)
    return rgb if color == "rgb" else rgb[..., ::-1].copy()


def _taps(size: int, source: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], _Double]:
    """Left neighbour, right neighbour and weight of the right one, with half-pixel centres."""
    centre = np.clip((np.arange(size) + 0.5) * (source / size) - 0.5, 0.0, source - 1.0)
    left = np.floor(centre).astype(np.intp)
    return left, np.minimum(left + 1, source - 1), centre - left


_T = TypeVar("_T", np.float32, np.float64)


def _bilinear(pixels: npt.NDArray[_T], height: int, width: int) -> npt.NDArray[_T]:
    """Rows first, then columns, in the arithmetic of ``pixels``: a + (b - a) * w."""
    top, bottom, weight = _taps(height, pixels.shape[0])
    rows = pixels[top] + (pixels[bottom] - pixels[top]) * weight.astype(pixels.dtype)[:, None, None]
    left, right, weight = _taps(width, pixels.shape[1])
    return rows[:, left] + (rows[:, right] - rows[:, left]) * weight.astype(pixels.dtype)[:, None]


def to_frame(frame: Frame, spec: ImageInput) -> ByteArray:
    """Convert and resize a camera's frame to the raw frame of a seat.

    float32 arithmetic in a fixed order, so that the native kernel can be equal bit for bit.

    Args:
        frame: A well-formed frame of any format and size.
        spec: The image seat.

    Returns:
        uint8 [1, height, width, channels], a copy.
    """
    converted = pixels(frame, spec.color)
    if converted.shape[:2] != tuple(spec.frame):
        resized = _bilinear(converted.astype(np.float32), *spec.frame)
        converted = np.floor(resized + np.float32(0.5)).astype(np.uint8)
    return converted[None]


def image(raw: ByteArray, spec: ImageInput) -> FloatArray:
    """Return the tensor of one raw frame: area reduction, fit, bilinear resize, normalisation.

    Args:
        raw: uint8 [frame height, frame width, channels].
        spec: The image seat.

    Returns:
        float32 [1, channels, height, width], a copy.
    """
    rows, columns = reduced_size(spec)
    blocks = raw[: rows * spec.reduce, : columns * spec.reduce].astype(np.float64)
    reduced = blocks.reshape(rows, spec.reduce, columns, spec.reduce, spec.channels).mean(axis=(1, 3))
    crop, target = crop_box(spec), target_box(spec)
    cropped = reduced[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized = (_bilinear(cropped, target.height, target.width) / 255.0 - spec.mean) / spec.std
    tensor = np.zeros(spec.tensor_shape, np.float32)
    filled = tensor[0, :, target.top : target.top + target.height, target.left : target.left + target.width]
    filled[...] = np.moveaxis(resized, 2, 0)
    return tensor


def mel_filters(spec: LogMel, sample_rate_hz: int) -> FloatArray:
    """Return the mel filters: triangles on the HTK mel scale, peak 1, no area normalisation.

    Args:
        spec: The feature parameters.
        sample_rate_hz: Sample rate of the sound.

    Returns:
        float32 [n_fft // 2 + 1, n_mels], a copy.

    Raises:
        ConfigError: If the band is empty or reaches beyond half the sample rate.

    Example:
        >>> spec = LogMel(n_fft=256, window_samples=200, hop_samples=125, n_mels=40, f_min_hz=20, f_max_hz=3800)
        >>> mel_filters(spec, 8000).shape
        (129, 40)
    """
    if not spec.f_min_hz < spec.f_max_hz <= sample_rate_hz / 2:
        raise ConfigError(
            f"the mel band {spec.f_min_hz:g}..{spec.f_max_hz:g} Hz does not fit below {sample_rate_hz / 2:g} Hz",
            where="features.f_max_hz",
            fix="choose f_min_hz < f_max_hz <= sample_rate_hz / 2",
        )
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (spec.f_min_hz, spec.f_max_hz))
    corners_hz = 700.0 * (10.0 ** (np.linspace(low, high, spec.n_mels + 2) / 2595.0) - 1.0)
    bins_hz = np.arange(spec.n_fft // 2 + 1)[:, None] * (sample_rate_hz / spec.n_fft)
    left, peak, right = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising, falling = (bins_hz - left) / (peak - left), (right - bins_hz) / (right - peak)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def hann_window(samples: int) -> _Double:
    """Return the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(samples) / samples)


def mel_power(pcm: FloatArray, spec: AudioInput) -> _Double:
    """Return the mel power [frames, n_mels] before floor and logarithm; frame k starts at sample k * hop.

    ``pcm`` is float32 [samples], -1..1; the power is float64.
    """
    features = spec.features
    if features is None:
        raise ConfigError("the input has no features", where="features", fix="declare features of kind log_mel")
    starts = np.arange(spec.tensor_shape[1]) * features.hop_samples
    frames = pcm[starts[:, None] + np.arange(features.window_samples)] * hann_window(features.window_samples)
    power = np.abs(np.fft.rfft(frames, features.n_fft)) ** 2
    return power @ mel_filters(features, spec.sample_rate_hz).astype(np.float64)


def log_mel(pcm: FloatArray, spec: AudioInput) -> FloatArray:
    """Return the log-mel features of one window.

    Args:
        pcm: float32 [samples].
        spec: The audio seat, with features.

    Returns:
        float32 [1, frames, n_mels], a copy.

    Raises:
        ConfigError: If the input has no features.
    """
    power = mel_power(pcm, spec)
    assert spec.features is not None
    values = (np.log(np.maximum(power, spec.features.floor)) - spec.features.mean) / spec.features.std
    return values[None].astype(np.float32)
