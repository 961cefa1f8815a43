"""Features of a sliding window have the same bits as those of each window by itself, and cost what is new."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput
from mmedge.bundle.seats import LogMel
from mmedge.errors import ConfigError
from mmedge.fusion.feed import AudioFeed
from mmedge.preprocess import AudioPreprocessor
from mmedge.sync import RingReader
from mmedge.types import FloatArray, Snapshot

SPEC = AudioInput(
    sample_rate_hz=8000,
    window_ms=100,
    gain=2.0,
    features=LogMel(n_fft=64, window_samples=50, hop_samples=20, n_mels=6, f_min_hz=20, f_max_hz=3800, floor=1e-6),
)
pytestmark = pytest.mark.arithmetic
NOISE = np.random.default_rng(7).normal(0, 0.2, 4000).astype(np.float32)


class Sound:
    """A ring that answers as others than the synchroniser do, and counts what is read."""

    def __init__(self, samples: FloatArray) -> None:
        self.ring = core.SampleRing(len(samples))
        self.ring.write(samples)
        self.reader = RingReader({"ear": self.ring})  # as the synchroniser has one
        self.read = 0

    def read_audio(self, name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None) -> int:
        self.read += len(out)
        return self.ring.read(snapshot.audio_end[name] if end is None else end, out)


def at(end: int) -> Snapshot:
    return Snapshot(t_ns=0, seq=0, present={"ear": True}, audio_end={"ear": end})


def whole(sound: Sound, end: int) -> bytes:
    pcm, out = np.empty(SPEC.samples, np.float32), np.empty(SPEC.tensor_shape, np.float32)
    sound.ring.read(end, pcm)
    AudioPreprocessor(SPEC).tensor(pcm, out)
    return out.tobytes()


STEPS = st.one_of(st.sampled_from([20, 40, 0, 53, 54, 160, 1000]), st.integers(-300, 300))


@given(st.lists(STEPS, max_size=40), st.sets(st.integers(1, 40), max_size=2), st.integers(0, 900))
def test_every_window_has_the_bits_of_a_whole_one(steps: list[int], turns: set[int], end: int) -> None:
    feed, out = AudioFeed("ear", SPEC, raw=False), np.empty(SPEC.tensor_shape, np.float32)
    straight = AudioFeed("ear", SPEC, raw=False)
    sound = Sound(NOISE)
    for number, step in enumerate(steps):
        if number in turns:  # another run: its indices begin anew, and mean other sound
            sound, end = Sound(NOISE[::-1].copy()), 300
        end = min(max(end + step, 0), 4000)
        feed.fill(at(end), out, sound.read_audio)
        assert out.tobytes() == whole(sound, end)
        out[...] = np.nan
        feed.fill(at(0), out, sound.read_audio, end)  # as a stream asks
        assert out.tobytes() == whole(sound, end)
        for shot, stream_end in (at(end), None), (at(0), end):
            out[...] = np.nan
            straight.fill(shot, out, sound.reader, stream_end)
            assert out.tobytes() == whole(sound, end)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(-60, 0)), min_size=1, max_size=40))
def test_sound_that_is_overwritten_was_heard_or_is_silence(writes: list[tuple[int, int]]) -> None:
    """Where the ring is hardly longer than the window: whoever reads it, and as it was when a frame was new."""
    sound = Sound(NOISE[:840])
    straight, feed = AudioFeed("ear", SPEC, raw=False), AudioFeed("ear", SPEC, raw=False)
    got, out = np.empty((2, *SPEC.tensor_shape), np.float32)
    for number, (count, back) in enumerate(writes):
        sound.ring.write(NOISE[number * 50 : number * 50 + count].copy())
        end = sound.ring.end + back
        feed.fill(at(end), out, sound.read_audio)
        straight.fill(at(end), got, sound.reader)
        assert got.tobytes() == out.tobytes()
        if end - SPEC.samples >= sound.ring.begin:
            assert got.tobytes() == whole(sound, end)


class Silent(RingReader):
    """Whoever knows its rings has no need to ask it."""

    def __call__(self, *arguments: object) -> int:
        raise AssertionError("the window was copied")


def test_the_synchroniser_s_rings_are_read_where_they_lie() -> None:
    sound, out = Sound(NOISE), np.empty(SPEC.tensor_shape, np.float32)
    AudioFeed("ear", SPEC, raw=False).fill(at(900), out, Silent(sound.reader.rings))
    assert out.tobytes() == whole(sound, 900)


def test_a_frame_with_a_nan_is_nan_and_the_others_are_not() -> None:
    assert SPEC.features is not None
    samples = NOISE.copy()
    samples[500] = np.nan
    feed, out = AudioFeed("ear", SPEC, raw=False), np.empty(SPEC.tensor_shape, np.float32)
    for end in (900, 940, 980):
        feed.fill(at(end), out, Sound(samples).reader)
        begins = end - SPEC.samples + SPEC.features.hop_samples * np.arange(SPEC.tensor_shape[1])
        hit = (begins <= 500) & (begins + SPEC.features.window_samples > 500)
        assert hit.any()
        np.testing.assert_array_equal(np.isnan(out[0]).all(axis=1), hit)
        np.testing.assert_array_equal(np.isnan(out[0]).any(axis=1), hit)


def test_other_sound_at_the_same_place_is_noticed() -> None:
    """Even where whoever reads it is the same."""
    sliding, out = AudioPreprocessor(SPEC), np.empty(SPEC.tensor_shape, np.float32)
    feed, straight = AudioFeed("ear", SPEC, raw=False), np.empty(SPEC.tensor_shape, np.float32)
    for samples in (NOISE, NOISE[::-1].copy()):
        sound = Sound(samples)
        for end in (900, 940):
            pcm = np.empty(sliding.wanted(end), np.float32)
            sound.ring.read(end, pcm)
            while not sliding.slide(pcm, end, out):
                pcm = np.empty(sliding.wanted(end), np.float32)
                assert len(pcm) == SPEC.samples
                sound.ring.read(end, pcm)
            assert out.tobytes() == whole(sound, end)
            feed.fill(at(end), straight, sound.reader)
            assert straight.tobytes() == whole(sound, end)


@pytest.mark.parametrize("window_ms", [100, 1000])
def test_a_window_costs_what_is_new(window_ms: int) -> None:
    spec = AudioInput(sample_rate_hz=8000, window_ms=window_ms, features=SPEC.features)
    feed, sound = AudioFeed("ear", spec, raw=False), Sound(np.tile(NOISE, 10))
    out = np.empty(spec.tensor_shape, np.float32)
    ends = [10_000 + round(8000 * k / 30) for k in range(60)]  # 30 pictures a second: every third is whole hops on
    for end in ends[:30]:
        feed.fill(at(end), out, sound.read_audio)
    sound.read = 0
    for end in ends[30:]:
        feed.fill(at(end), out, sound.read_audio)
    assert sound.read <= 30 * (800 + 50 + 20)


def test_arrays_that_do_not_fit_are_refused() -> None:
    sliding, out = AudioPreprocessor(SPEC), np.empty(SPEC.tensor_shape, np.float32)
    with pytest.raises(ConfigError, match="tail must have shape"):
        sliding.slide(np.zeros(9, np.float32), 900, out)
    with pytest.raises(ConfigError, match="out must have shape"):
        sliding.slide(np.zeros(SPEC.samples, np.float32), 900, out[:, 1:].copy())
    ring = core.SampleRing(1000)
    feed = AudioFeed("ear", SPEC, raw=False)
    reader = RingReader({"ear": ring})
    for bad, message in (out[:, 1:].copy(), "must have shape"), (out.astype(np.float64), "must be float32"):
        with pytest.raises(ConfigError, match=message):
            feed.fill(at(900), bad, reader)
    with pytest.raises(ConfigError, match="beyond sample index"):
        feed.fill(at(2**62), out, reader)
    out.flags.writeable = False
    with pytest.raises((ConfigError, RuntimeError)):
        feed.fill(at(900), out, reader)
