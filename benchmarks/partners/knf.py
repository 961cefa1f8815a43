"""kaldi-native-fbank's streaming log-mel: frames that are new alone, kept in numpy.

It is no dependency; ``pip install kaldi-native-fbank`` installs it beside ours.
"""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np

from benchmarks.partners.rows import Rows
from mmedge.bundle.manifest import AudioInput
from mmedge.types import FloatArray


class KnfLogMel:
    """``OnlineFbank`` without what the seat does not ask for: no dither, no pre-emphasis, no removal of DC.

    Its Hann window is the symmetric one, and its triangles are straight in mel, not in Hz: the numbers are close to
    ours, the work is the same.
    """

    def __init__(self, spec: AudioInput) -> None:
        features = spec.features
        assert features is not None, "the seat needs features"
        options = kaldi_native_fbank.FbankOptions()
        frame, mel = options.frame_opts, options.mel_opts
        frame.samp_freq = spec.sample_rate_hz
        frame.frame_length_ms = 1000 * features.window_samples / spec.sample_rate_hz
        frame.frame_shift_ms = 1000 * features.hop_samples / spec.sample_rate_hz
        frame.dither, frame.preemph_coeff, frame.remove_dc_offset = 0.0, 0.0, False
        frame.window_type, frame.snip_edges = "hanning", True
        mel.num_bins, mel.low_freq, mel.high_freq = features.n_mels, features.f_min_hz, features.f_max_hz
        self._fbank = kaldi_native_fbank.OnlineFbank(options)
        self._rate_hz, self._done = spec.sample_rate_hz, 0
        self._mean, self._scale = np.float32(features.mean), np.float32(1 / features.std)
        self._rows = Rows(spec.tensor_shape)

    def begin(self, samples: FloatArray) -> None:
        """Hear float32 [n], fewer than give a frame."""
        self._fbank.accept_waveform(self._rate_hz, samples.tolist())

    def __call__(self, samples: FloatArray, out: FloatArray) -> None:
        """Hear float32 [n] and write the context [1, frames, n_mels]."""
        fbank = self._fbank
        fbank.accept_waveform(self._rate_hz, samples.tolist())  # faster than the array itself
        ready = fbank.num_frames_ready
        rows = self._rows.room(ready - self._done)
        for row, frame in zip(rows, range(self._done, ready), strict=True):
            row[:] = fbank.get_frame(frame)
        fbank.pop(ready - self._done)
        self._done = ready
        rows -= self._mean
        rows *= self._scale
        self._rows.copy(out)
