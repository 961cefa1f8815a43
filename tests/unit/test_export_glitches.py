"""A glitch is isolated: what lasts, or is sound or a picture that can be, is what the network will meet."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.errors import ConfigError
from mmedge.export.int8.glitches import isolated, usable
from mmedge.export.recordings import RawSample
from tests.unit.test_export_pack import RECIPE, recipe_in

SENSOR = '[inputs.imu]\nmodality = "tensor"\nshape = [1, 6]\n'


def usual(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 0.3, count)


@given(
    count=st.integers(100, 2000),
    seed=st.integers(0, 1000),
    share=st.floats(0.002, 0.02),
    factor=st.floats(15, 1000),
)
@settings(deadline=None)
def test_one_in_a_hundred_frames_twenty_times_too_large_is_found(count, seed, share, factor):
    rng = np.random.default_rng(seed)
    maxima = usual(count, seed)
    bad = np.unique(rng.choice(count // 4, max(1, int(share * count)), replace=False) * 4 + 1)
    maxima[bad] *= factor
    assert np.flatnonzero(isolated(maxima)).tolist() == bad.tolist()


@given(
    count=st.integers(60, 600),
    start=st.integers(0, 500),
    length=st.integers(3, 200),
    level=st.floats(3, 1e4),
    seed=st.integers(0, 99),
)
def test_what_lasts_is_never_a_glitch(count, start, length, level, seed):
    maxima = 0.001 * usual(count, seed)
    maxima[start % count : start % count + length] *= level
    if count - start % count < 3:
        return
    assert not isolated(maxima).any()


def test_a_glitch_beside_a_burst_is_found_and_a_word_as_loud_as_it_is_not():
    maxima = 0.001 * usual(300)
    maxima[100:160] *= 300
    maxima[20] *= 280  # a word as loud as the speech
    maxima[250] = 40.0
    assert np.flatnonzero(isolated(maxima)).tolist() == [250]


def test_neighbours_are_neighbours_in_time():
    maxima = usual(90)
    maxima[[0, 29, 30, 59, 89]] = 60.0  # the ends of recordings
    maxima[70] = 60.0
    clips = ["a"] * 30 + ["b"] * 30 + ["c"] * 30
    assert np.flatnonzero(isolated(maxima, 0, clips)).tolist() == [70]
    maxima[[28, 31]] = 60.0  # two at the end of one, two at the start of the next: nothing tells how long they last
    assert np.flatnonzero(isolated(maxima, 0, clips)).tolist() == [70]


def test_samples_without_an_order_have_no_glitches(tmp_path):
    arrays = frames(200)
    arrays[70]["imu"] = arrays[70]["imu"] * 100
    samples = [RawSample(name=f"{k}.npy", arrays=a, recording=None) for k, a in enumerate(arrays)]
    kept, dropped = usable(samples, recipe(tmp_path))
    assert (len(kept), dropped) == (200, ())


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_frames_have_no_glitches(count):
    assert not isolated(np.arange(count) * 1000.0).any()


def test_what_is_not_silent_in_silence_stays():
    maxima = np.zeros(100)
    maxima[[10, 50]] = 0.3
    assert not isolated(maxima).any()


def frames(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "image": np.full((1, 48, 64, 1), 3, np.uint8),
            "audio": rng.normal(0, 0.001, (1, 1600)).astype(np.float32),
            "imu": rng.normal(size=(1, 6)).astype(np.float32),
        }
        for _ in range(count)
    ]


def recipe(tmp_path):
    return recipe_in(tmp_path, RECIPE.replace("[model]", SENSOR + "[model]"))


def named(arrays) -> list[RawSample]:
    return [RawSample(name=f"clip {k}", arrays=a) for k, a in enumerate(arrays)]


def test_rare_words_in_silence_and_lamps_at_night_stay(tmp_path):
    arrays = frames(200)
    for index in (40, 90):
        arrays[index]["audio"] = arrays[index]["audio"] * 150  # half of full scale
        arrays[index]["image"] = np.full((1, 48, 64, 1), 250, np.uint8)
    kept, dropped = usable(named(arrays), recipe(tmp_path))
    assert dropped == ()
    assert len(kept) == 200


def test_glitches_of_sound_and_of_a_sensor_are_named(tmp_path):
    arrays = frames(200)
    arrays[60]["audio"] = arrays[60]["audio"] * 20000  # twenty times full scale
    arrays[70]["imu"] = arrays[70]["imu"] * 100
    kept, dropped = usable(named(arrays), recipe(tmp_path))
    assert dropped == ("clip 60", "clip 70")
    assert [s.name for s in kept[58:62]] == ["clip 58", "clip 59", "clip 61", "clip 62"]


def test_too_many_are_said_and_kept(tmp_path, caplog):
    arrays = frames(100)
    for index in range(2, 100, 10):
        arrays[index]["imu"] = arrays[index]["imu"] * 100
    with caplog.at_level(logging.WARNING):
        kept, dropped = usable(named(arrays), recipe(tmp_path))
    assert (len(kept), dropped) == (100, ())
    assert "10 of 100 calibration samples are far outside the usual range of input 'imu'" in caplog.text


def test_sixteen_bit_numbers_are_no_pcm(tmp_path):
    arrays = [{**a, "audio": a["audio"] * 1e6} for a in frames(20)]
    with pytest.raises(ConfigError, match="'audio' has values up to") as caught:
        usable(named(arrays), recipe(tmp_path))
    assert "32768" in caught.value.fix
