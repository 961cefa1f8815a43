"""Windows of sound for an audio seat, by the native log-mel."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any, NoReturn

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput
from mmedge.errors import ConfigError
from mmedge.preprocess.reference import mel_filters
from mmedge.types import AnyArray, FloatArray


class AudioPreprocessor:
    """Turns one window of sound into what a variant takes, straight into the engine's array.

    Nothing is allocated per call. A seat without features passes its samples through.

    Args:
        spec: The audio seat.

    Raises:
        ConfigError: If the seat cannot work.

    Example:
        >>> spec = AudioInput(sample_rate_hz=8000, window_ms=10)
        >>> out = np.empty(spec.tensor_shape, np.float32)
        >>> AudioPreprocessor(spec).tensor(np.ones(80, np.float32), out)
        >>> out.shape, float(out.min())
        ((1, 80), 1.0)
    """

    def __init__(self, spec: AudioInput) -> None:
        self.spec = spec
        self._features: core.LogMel | None = None
        self._sliding: core.SlidingLogMel | None = None
        features = spec.features
        if features is None:
            return
        if spec.tensor_shape[1] < 1:
            raise ConfigError(
                "the window is shorter than one feature window", where="window_ms", fix="choose a longer window_ms"
            )
        filters = mel_filters(features, spec.sample_rate_hz)
        # The logarithm of a power of louder sound is larger by a constant, and so is that of its floor.
        power = spec.gain**2
        numbers = (features.n_fft, features.window_samples, features.hop_samples, filters, features.floor / power)
        scale = (features.mean - log(power), features.std)
        try:
            self._features = core.LogMel(*numbers, *scale)
            self._sliding = core.SlidingLogMel(*numbers, *scale, spec.samples)
        except ValueError as error:
            raise ConfigError(str(error), where="features", fix="correct the input's features") from error

    def tensor(self, pcm: FloatArray, out: FloatArray) -> None:
        """Write the features (or the samples) of one window.

        Args:
            pcm: float32 [samples].
            out: float32 [1, frames, n_mels], or [1, samples] without features.

        Raises:
            ConfigError: If an array does not fit the seat.
        """
        if self._features is None:
            self.raw(pcm, out)
            if self.spec.gain != 1.0:
                out *= np.float32(self.spec.gain)
            return
        _check("pcm", pcm, (self.spec.samples,))
        _check("out", out, self.spec.tensor_shape)
        try:
            self._features.compute(pcm, out)
        except ValueError as error:
            raise ConfigError(str(error), where="audio window", fix=_FIX) from error
        except TypeError as error:
            raise ConfigError("out is read-only", where="audio window", fix=_FIX) from error

    def wanted(self, end: int) -> int:
        """Return how many of its last samples ``slide`` needs of the window that ends before index ``end``."""
        return self.spec.samples if self._sliding is None else self._sliding.wanted(end)

    def slide(self, pcm: FloatArray, end: int, out: FloatArray) -> bool:
        """Write what ``tensor`` does, of one window after the other of the same sound: what they share is kept.

        Args:
            pcm: float32 [``wanted(end)``], the last samples of the window.
            end: Index after its last sample; a sample keeps its index, and what has an index never changes.
            out: float32 [1, frames, n_mels], or [1, samples] without features.

        Returns:
            False if this is other sound than before, and the whole window is wanted: call it again.

        Raises:
            ConfigError: If an array does not fit.
        """
        if self._sliding is None:
            self.tensor(pcm, out)
            return True
        try:
            return self._sliding.compute(pcm, end, out)
        except ValueError as error:
            raise ConfigError(str(error), where="audio window", fix=_FIX) from error

    def fill(
        self, name: str, ring: Callable[[Any], core.SampleRing | None], slow: Callable[..., None]
    ) -> Callable[..., None]:
        """Return what writes the window of input ``name`` of a snapshot.

        Args:
            name: Of the input.
            ring: Gives the ring that holds the sound of a reader, or None.
            slow: Does the same by other means: where there is no ring, or no features.
        """
        if self._sliding is None:
            return slow
        return core.SoundFill(name, self._sliding, ring=ring, slow=slow, refuse=_refuse)

    def raw(self, pcm: FloatArray, out: FloatArray) -> None:
        """Write the samples that enter a TensorRT variant.

        Args:
            pcm: float32 [samples].
            out: float32 [1, samples].

        Raises:
            ConfigError: If an array does not fit the seat.
        """
        _check("pcm", pcm, (self.spec.samples,))
        _check("out", out, self.spec.raw_shape)
        out[0] = pcm


_FIX = "pass contiguous float32 arrays of the seat's shape"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message, where="audio window", fix=_FIX)


def _check(name: str, array: AnyArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ConfigError(
            f"{name} must be float32 {shape}, got {array.dtype} {array.shape}", where="audio window", fix=_FIX
        )
