"""Log-mel with numpy's real FFT: one batched transform per window or per update, every buffer reused."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.partners.rows import Rows
from mmedge.bundle.manifest import AudioInput
from mmedge.preprocess.reference import hann_window, mel_filters
from mmedge.types import FloatArray


class NumpyLogMel:
    """float32 throughout; the mel filters are one matrix product."""

    def __init__(self, spec: AudioInput) -> None:
        features = spec.features
        assert features is not None, "the seat needs features"
        self.features = features
        self.out: FloatArray = np.empty(spec.tensor_shape, np.float32)
        frames, bins = spec.tensor_shape[1], features.n_fft // 2 + 1
        self._window = hann_window(features.window_samples).astype(np.float32)
        self._filters = mel_filters(features, spec.sample_rate_hz)
        self._padded = np.zeros((frames, features.n_fft), np.float32)
        self._power, self._other = np.empty((2, frames, bins), np.float32)

    def __call__(self, pcm: FloatArray) -> FloatArray:
        width, mel = self.features.window_samples, self.out[0]
        frames = sliding_window_view(pcm, width)[:: self.features.hop_samples]
        np.multiply(frames, self._window, out=self._padded[:, :width])
        spectrum = np.fft.rfft(self._padded)
        np.square(spectrum.real, out=self._power)
        np.square(spectrum.imag, out=self._other)
        np.add(self._power, self._other, out=self._power)
        np.matmul(self._power, self._filters, out=mel)
        np.maximum(mel, self.features.floor, out=mel)
        np.log(mel, out=mel)
        np.subtract(mel, self.features.mean, out=mel)
        np.divide(mel, self.features.std, out=mel)
        return self.out


class NumpyStreamingLogMel:
    """Frames that are new alone.

    Args:
        spec: The seat.
        step: New samples of each update, whole hops.
    """

    def __init__(self, spec: AudioInput, step: int) -> None:
        features = spec.features
        assert features is not None, "the seat needs features"
        assert step % features.hop_samples == 0, "a step is whole hops"
        self._before = features.window_samples - features.hop_samples
        samples = self._before + step
        self._new = NumpyLogMel(
            AudioInput(
                sample_rate_hz=spec.sample_rate_hz, window_ms=1000 * samples / spec.sample_rate_hz, features=features
            )
        )
        self._pcm = np.zeros(samples, np.float32)
        self._rows = Rows(spec.tensor_shape)
        self._frames = step // features.hop_samples

    def __call__(self, samples: FloatArray, out: FloatArray) -> None:
        """Hear float32 [step] and write the context [1, frames, n_mels]."""
        self._pcm[: self._before] = self._pcm[-self._before :]
        self._pcm[self._before :] = samples
        self._rows.room(self._frames)[:] = self._new(self._pcm)[0]
        self._rows.copy(out)
