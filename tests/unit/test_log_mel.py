"""The native log-mel and the torch module against the numpy oracle; hostile windows."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, LogMel
from mmedge.errors import ConfigError
from mmedge.preprocess import AudioPreprocessor, reference
from mmedge.types import FloatArray

DIGITS = AudioInput(
    sample_rate_hz=8000,
    window_ms=1500,
    features=LogMel(
        n_fft=256, window_samples=200, hop_samples=125, n_mels=40, f_min_hz=20, f_max_hz=3800, mean=-6.0, std=4.0
    ),
)


# What the fast transform takes: 2^a 3^b 5^c, even.
SMOOTH = sorted(
    {2 * 2**a * 3**b * 5**c for a in range(9) for b in range(6) for c in range(4) if 2**a * 3**b * 5**c <= 500}
)


@st.composite
def specs(draw: st.DrawFn) -> AudioInput:
    n_fft = draw(st.one_of(st.sampled_from([2, 64, 256, 512, 255, 400, 480, 22]), st.sampled_from(SMOOTH)))
    window = draw(st.integers(1, n_fft))
    rate = draw(st.sampled_from([8000, 16000, 44100]))
    samples = window + draw(st.integers(0, 1500))
    features = LogMel(
        n_fft=n_fft,
        window_samples=window,
        hop_samples=draw(st.integers(max(1, window // 4), 300)),
        n_mels=draw(st.integers(1, 48)),
        f_min_hz=draw(st.sampled_from([0, 20, 300])),
        f_max_hz=draw(st.sampled_from([3800, 4000])),
        floor=draw(st.sampled_from([1e-6, 1e-10])),
        mean=-6.0,
        std=4.0,
    )
    return AudioInput(sample_rate_hz=rate, window_ms=1000 * samples / rate, features=features)


def sound(samples: int, seed: int) -> FloatArray:
    """Tones of very different loudness, a DC offset and noise: what float32 spectra cannot hold."""
    random = np.random.default_rng(seed)
    time = np.arange(samples)
    pcm = random.choice([0.0, 0.5]) + 10 ** random.uniform(-6, -1) * random.standard_normal(samples)
    for _ in range(random.integers(0, 3)):
        pcm = pcm + 10 ** random.uniform(-4, 0) * np.sin(np.pi * random.uniform(0, 1) * time + random.uniform(0, 6))
    return pcm.astype(np.float32)


def assert_agree(got: FloatArray, pcm: FloatArray, spec: AudioInput) -> None:
    """1e-4 (in units of ln p) wherever p > 1e-6 of the frame's largest mel power."""
    assert spec.features is not None
    power = reference.mel_power(pcm, spec)
    loud = (power > 1e-6 * power.max(axis=1, keepdims=True)) | (power <= spec.features.floor * (1 - 1e-6))
    error = np.abs(got - reference.log_mel(pcm, spec)[0]) * spec.features.std
    assert error[loud].max(initial=0.0) < 1e-4


@pytest.mark.arithmetic
@given(specs(), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_native_equals_the_oracle(spec: AudioInput, seed: int) -> None:
    pcm = sound(spec.samples, seed)
    out = np.full(spec.tensor_shape, np.nan, np.float32)
    AudioPreprocessor(spec).tensor(pcm, out)
    assert_agree(out[0], pcm, spec)


@given(specs(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_torch_module_equals_the_oracle(spec: AudioInput, seed: int) -> None:
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("mmedge.export.preprocess.torch_module")
    pcm = np.stack([sound(spec.samples, seed), sound(spec.samples, seed + 1)])
    got = module.LogMelPreprocess(spec)(torch.from_numpy(pcm)).numpy()
    for one, window in zip(got, pcm, strict=True):
        assert_agree(one, window, spec)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    assert DIGITS.features is not None
    time = np.arange(DIGITS.samples) / DIGITS.sample_rate_hz
    filters = reference.mel_filters(DIGITS.features, DIGITS.sample_rate_hz)
    out = np.empty(DIGITS.tensor_shape, np.float32)
    preprocessor = AudioPreprocessor(DIGITS)
    for hertz in (437.5, 1000.0, 3000.0):
        preprocessor.tensor(np.sin(2 * np.pi * hertz * time).astype(np.float32), out)
        assert (out[0].argmax(axis=1) == filters[round(hertz * 256 / 8000)].argmax()).all()


def test_silence_is_the_floor_and_frames_start_at_the_hop() -> None:
    pcm = np.zeros(DIGITS.samples, np.float32)
    pcm[10 * 125 :] = np.random.default_rng(0).standard_normal(DIGITS.samples - 10 * 125)
    out = np.empty(DIGITS.tensor_shape, np.float32)
    AudioPreprocessor(DIGITS).tensor(pcm, out)
    floor = (np.log(1e-6) + 6.0) / 4.0
    # Frame k covers samples k * 125 up to k * 125 + 200, so frame 8 is the last silent one.
    np.testing.assert_allclose(out[0, :9], floor, rtol=1e-6)
    assert (out[0, 9:] > floor).all()


def test_nothing_is_allocated_per_call() -> None:
    preprocessor = AudioPreprocessor(DIGITS)
    pcm, out = np.zeros(DIGITS.samples, np.float32), np.empty(DIGITS.tensor_shape, np.float32)
    preprocessor.tensor(pcm, out)
    tracemalloc.start()
    try:
        for _ in range(20):
            preprocessor.tensor(pcm, out)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()


def test_without_features_samples_pass_through() -> None:
    spec = AudioInput(sample_rate_hz=8000, window_ms=10)
    pcm = np.arange(80, dtype=np.float32)
    for method in (AudioPreprocessor(spec).tensor, AudioPreprocessor(spec).raw):
        out = np.empty((1, 80), np.float32)
        method(pcm, out)
        np.testing.assert_array_equal(out[0], pcm)


def test_hostile_arrays() -> None:
    preprocessor = AudioPreprocessor(DIGITS)
    pcm, out = np.zeros(DIGITS.samples, np.float32), np.zeros(DIGITS.tensor_shape, np.float32)
    for bad in (pcm[1:], pcm.astype(np.float64), pcm[None], np.zeros(2 * DIGITS.samples, np.float32)[::2]):
        with pytest.raises(ConfigError) as caught:
            preprocessor.tensor(bad, out)  # type: ignore[arg-type]
        assert caught.value.fix
    for bad in (out[0], out[:, 1:], out.astype(np.float64)):
        with pytest.raises(ConfigError):
            preprocessor.tensor(pcm, bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        preprocessor.raw(pcm, out)
    out.flags.writeable = False
    with pytest.raises(ConfigError, match="read-only"):
        preprocessor.tensor(pcm, out)


@pytest.mark.parametrize(
    "changes",
    [
        {"f_max_hz": 4001.0},
        {"f_min_hz": 3800.0},
        {"window_samples": 257},
        {"n_fft": 16384, "window_samples": 12001},
        {"std": float("nan")},
    ],
)
def test_seats_that_cannot_work(changes: dict[str, float]) -> None:
    assert DIGITS.features is not None
    features = msgspec.structs.replace(DIGITS.features, **changes)
    with pytest.raises(ConfigError):
        AudioPreprocessor(msgspec.structs.replace(DIGITS, features=features))
