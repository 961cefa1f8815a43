"""The oracle: every preprocessing step in plain numpy, clear and slow. Native kernels and graphs must equal it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, LogMel
from mmedge.errors import ConfigError
from mmedge.preprocess.fit import Axis, Fit, Seen, frame_fit, tensor_fit
from mmedge.types import PLAIN, AnyArray, ByteArray, FloatArray, Frame

_Double = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int32]


# Shares of red and blue in the luma.
_SHARES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}


def _factors(matrix: str, full_range: bool) -> tuple[int, ...]:
    """Luma, with 14 fractional bits; V to red, U to green, V to green, U to blue, with 13."""
    red, blue = _SHARES[matrix]
    green = 1.0 - red - blue
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    red_v, blue_u = 2 * (1 - red), 2 * (1 - blue)
    exact = (2 * luma, red_v * chroma, blue_u * blue / green * chroma, red_v * red / green * chroma, blue_u * chroma)
    return tuple(int(np.floor(value * 8192 + 0.5)) for value in exact)


def _expand_luma(luma: ByteArray) -> ByteArray:
    """16..235 -> 0..255, rounded half up."""
    above = np.maximum(luma.astype(np.int32) - 16, 0)
    expanded: ByteArray = np.minimum((above * 510 + 219) // 438, 255).astype(np.uint8)
    return expanded


def _narrowed(samples: AnyArray, frame: Frame, *, chroma: bool) -> ByteArray:
    """10 of 16 bits -> 8, rounded half up; of a full range 0..1023 -> 0..255, chroma about its middle."""
    values = ((samples >> (6 if frame.format == "p010le" else 0)) & 1023).astype(np.float64)
    if frame.full_range:
        middle = (512, 128) if chroma else (0, 0)
        values = (values - middle[0]) * (255 / 1023) + middle[1]
    else:
        values = values / 4
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


def _luma(frame: Frame) -> ByteArray:
    """Luma as it is stored, in 8 bits."""
    if frame.format == "yuyv422":
        return frame.data[..., 0]
    if frame.format in ("p010le", "yuv420p10le"):
        return _narrowed(frame.data[: frame.height].view("<u2"), frame, chroma=False)
    return frame.data[: frame.height]


def _chroma(frame: Frame) -> tuple[_Integers, _Integers]:
    """U and V minus 128, at the size of the luma plane (nearest neighbour)."""
    down = 2 if frame.format in ("yuv420p", "nv12", "p010le", "yuv420p10le") else 1
    across = 1 if frame.format == "yuv444p" else 2
    rows, columns = frame.height // down, frame.width // across
    packed = (frame.data[..., 1] if frame.format == "yuyv422" else frame.data[frame.height :]).reshape(-1)
    if frame.format in ("p010le", "yuv420p10le"):
        packed = _narrowed(packed.view("<u2"), frame, chroma=True)
    if frame.format in ("nv12", "p010le", "yuyv422"):
        planes = np.moveaxis(packed.reshape(rows, columns, 2), 2, 0)
    else:
        planes = packed.reshape(2, rows, columns)
    u, v = planes.repeat(down, axis=1).repeat(across, axis=2).astype(np.int32) - 128
    return u, v


def _yuv_to_rgb(frame: Frame) -> ByteArray:
    scale, red_v, green_u, green_v, blue_u = _factors(frame.description.matrix, frame.full_range)
    luma = _luma(frame).astype(np.int32)
    if not frame.full_range:
        luma = np.maximum(luma - 16, 0)
    u, v = _chroma(frame)
    terms = (_term(256 * v, red_v), _term(256 * u, -green_u) + _term(256 * v, -green_v), _term(256 * u, blue_u))
    gray = _term(128 * luma, scale) + 32
    return np.stack([np.clip((gray + term) >> 6, 0, 255) for term in terms], axis=2).astype(np.uint8)


def _term(value: _Integers, factor: int) -> _Integers:
    """What luma or chroma adds to a colour: 6 fractional bits, rounded half up."""
    return (value * factor + 16384) >> 15


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
        luma = _luma(frame)
        gray = luma.copy() if frame.full_range else _expand_luma(luma)
        return np.repeat(gray[..., None], 1 if color == "gray" else 3, axis=2)
    rgb = _yuv_to_rgb(frame)
    return rgb if color == "rgb" else rgb[..., ::-1].copy()


def upright(pixels: ByteArray, frame: Frame) -> ByteArray:
    """Turn and mirror the pixels of ``frame``, uint8 [height, width, channels], as its description says."""
    turned = np.rot90(pixels, -(frame.description.rotation // 90))
    shown: ByteArray = np.ascontiguousarray(turned[:, ::-1] if frame.description.mirrored else turned)
    return shown


_T = TypeVar("_T", np.float32, np.float64)


def _resampled(pixels: npt.NDArray[_T], rows: Axis, columns: Axis) -> npt.NDArray[_T]:
    """Rows first, then columns, in the arithmetic of ``pixels``: a + (b - a) * w; edges of the window repeated."""
    for axis, dimension in ((rows, 0), (columns, 1)):
        window = pixels.take(range(axis.first, axis.first + axis.window), dimension)
        place = np.arange(axis.length) + 0.5
        if axis.cell > 0:
            place = (np.floor((place - axis.cell_first) / axis.cell) + 0.5) * axis.cell + axis.cell_first
        centre = np.clip(place * axis.step + axis.shift - 0.5, 0.0, axis.window - 1.0)
        left = np.floor(centre).astype(np.intp)
        weight = np.expand_dims((centre - left).astype(pixels.dtype), (1, 2) if dimension == 0 else 1)
        a, b = window.take(left, dimension), window.take(np.minimum(left + 1, axis.window - 1), dimension)
        pixels = a + (b - a) * weight
    return pixels


def _reduced(pixels: ByteArray, rows: Axis, columns: Axis, kind: type[_T]) -> npt.NDArray[_T]:
    """Return the means of blocks; what is left over at the bottom and right is cut off."""
    height, width = rows.camera // rows.block, columns.camera // columns.block
    blocks = pixels[: height * rows.block, : width * columns.block].astype(kind)
    means: npt.NDArray[_T] = blocks.reshape(height, rows.block, width, columns.block, -1).mean(axis=(1, 3), dtype=kind)
    return means


def to_frame(frame: Frame, spec: ImageInput) -> ByteArray:
    """Convert and fit a camera's picture to the raw frame of a seat.

    float32 arithmetic in a fixed order, so that the native kernel can be equal bit for bit where nothing is turned
    or averaged.

    Args:
        frame: A well-formed frame of any format and size.
        spec: The image seat.

    Returns:
        uint8 [1, height, width, channels], a copy; margins have the mean colour.
    """
    rows, columns, _ = frame_fit(spec, Seen.of(frame))
    shown = upright(pixels(frame, spec.color), frame)
    resized = _resampled(_reduced(shown, rows, columns, np.float32), rows, columns)
    out = np.empty(spec.raw_shape, np.uint8)
    out[...] = np.floor(np.clip(spec.mean, 0, 1) * 255.0 + 0.5)
    part = out[0, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
    part[...] = np.floor(resized + np.float32(0.5))
    return out


def tensor(frame: Frame, spec: ImageInput) -> FloatArray:
    """Return the tensor of a camera's picture: colour, turning, area reduction, fit, bilinear resize, normalisation.

    Args:
        frame: A well-formed frame of any format and size.
        spec: The image seat.

    Returns:
        float32 [1, channels, height, width], a copy; margins are 0.
    """
    return _normalised(upright(pixels(frame, spec.color), frame), spec, tensor_fit(spec, Seen.of(frame)))


def image(raw: ByteArray, spec: ImageInput) -> FloatArray:
    """Return the tensor of one raw frame: what the graphs compute.

    Args:
        raw: uint8 [frame height, frame width, channels].
        spec: The image seat.

    Returns:
        float32 [1, channels, height, width], a copy.
    """
    return _normalised(raw, spec, tensor_fit(spec, Seen(*spec.frame, PLAIN)))


def _normalised(shown: ByteArray, spec: ImageInput, fit: Fit) -> FloatArray:
    rows, columns = fit.rows, fit.columns
    resized = _resampled(_reduced(shown, rows, columns, np.float64), rows, columns)
    out = np.zeros(spec.tensor_shape, np.float32)
    filled = out[0, :, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
    filled[...] = np.moveaxis((resized / 255.0 - spec.mean) / spec.std, 2, 0)
    return out


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
    window = spec.gain * hann_window(features.window_samples)
    frames = pcm[starts[:, None] + np.arange(features.window_samples)] * window
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
