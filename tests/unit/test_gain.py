"""A sound seat's gain is the same in every executor: native, numpy, torch and the ONNX prefix."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, LogMel
from mmedge.export.preprocess.onnx_prefix import Preprocessor
from mmedge.export.preprocess.torch_module import LogMelPreprocess
from mmedge.fusion.feed import AudioFeed
from mmedge.preprocess import AudioPreprocessor, reference

FEATURES = LogMel(
    n_fft=128, window_samples=100, hop_samples=60, n_mels=16, f_min_hz=20, f_max_hz=3800, mean=-2.0, std=3.0
)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 65536), st.sampled_from([None, FEATURES]), st.integers(0, 100))
def test_the_executors_agree(gain, features, seed):
    spec = AudioInput(sample_rate_hz=8000, window_ms=100, features=features, gain=gain)
    pcm = np.random.default_rng(seed).normal(0, 0.2, spec.samples).astype(np.float32)
    want = (pcm * np.float32(gain))[None] if features is None else reference.log_mel(pcm, spec)
    native = np.empty(spec.tensor_shape, np.float32)
    AudioPreprocessor(spec).tensor(pcm, native)
    fed = np.empty(spec.tensor_shape, np.float32)
    AudioFeed("audio", spec, raw=False).fill_raw(pcm[None], fed)
    prefix = Preprocessor({"audio": spec})({"audio": pcm[None]})["audio"]
    module = LogMelPreprocess(spec)(torch.from_numpy(pcm[None])).numpy()
    scale = 1.0 if features is None else 0.0
    for name, got in {"native": native, "feed": fed, "prefix": prefix, "torch": module}.items():
        np.testing.assert_allclose(got, want, rtol=1e-5 * scale, atol=0 if scale else 2e-4, err_msg=name)


def test_louder_sound_is_what_a_gain_makes():
    """The reference itself: a gain of 8 on quiet sound gives what loud sound gives without one."""
    loud = AudioInput(sample_rate_hz=8000, window_ms=100, features=FEATURES)
    quiet = msgspec.structs.replace(loud, gain=8.0)
    pcm = np.random.default_rng(0).normal(0, 0.1, loud.samples).astype(np.float32)
    np.testing.assert_allclose(reference.log_mel(pcm, quiet), reference.log_mel(8 * pcm, loud), atol=1e-5)


def test_a_variant_that_takes_raw_sound_is_fed_raw_sound():
    """Its prefix multiplies; twice would be wrong."""
    spec = AudioInput(sample_rate_hz=8000, window_ms=10, gain=100.0)
    out = np.empty(spec.raw_shape, np.float32)
    AudioFeed("audio", spec, raw=True).fill_raw(np.ones((1, 80), np.float32), out)
    assert (out == 1).all()
