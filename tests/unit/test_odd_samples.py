"""Odd members of what calibrates: each is read as what it is, or named; none silently changes what INT8 rests on."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.export.int8.glitches import usable
from mmedge.export.peaks import FEW, lasting
from mmedge.export.picture_files import FileSamples, fitted
from mmedge.export.recordings import RawSample, choose, raw_samples
from mmedge.export.tokenizer import load_tokenizer, train_tokenizer
from mmedge.replay.sessions import session_paths, sessions
from tests.tiny_training import write_wav
from tests.unit.test_picture_files import IMAGE, SOUND, picture, recipe

VECTOR = TensorInput(shape=(1, 6))
LOUD = {"mic": AudioInput(sample_rate_hz=8000, window_ms=100), "eye": ImageInput(size=(8, 8), mean=(0.0,), std=(1.0,))}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["a.mic.wav", "a.mp4", "z"])
def test_a_file_that_names_its_input_feeds_it_wherever_it_stands_in_the_alphabet(data, name):
    for file in ("a.mic.wav", "a.mp4", "b.mp4", "._a.mp4"):
        (data / file).touch()
    order = sorted(session_paths(data), key=lambda path: (path.name == name, path.name))
    found = sessions(order, LOUD)
    assert found["a"] == {"mic": str(data / "a.mic.wav"), "eye": str(data / "a.mp4")}
    assert found.keys() == {"a", "b"}


@pytest.mark.parametrize("names", [("a.mp4", "a.wav"), ("a.mic.wav", "a.mic.flac")])
def test_two_files_for_one_input_of_one_recording_are_refused(data, names):
    for file in names:
        (data / file).touch()
    with pytest.raises(ConfigError, match="would feed the same inputs"):
        sessions(session_paths(data), LOUD)


def test_pictures_of_one_name_are_two_samples_or_refused(data):
    for k, file in enumerate(("cup.jpg", "cup.png", "mug.png")):
        cv2.imwrite(str(data / file), picture(k))
    assert len(FileSamples({"image": IMAGE}, data)) == 3
    for stem in ("cup", "mug"):
        write_wav(data / f"{stem}.wav", np.zeros(400), 8000)
    with pytest.raises(ConfigError, match=r"'cup\.jpg' and 'cup\.png' would both feed"):
        FileSamples({"image": IMAGE, "audio": SOUND}, data)


def test_a_picture_that_names_its_input_goes_there_and_arrays_lie_beside_it(data):
    cv2.imwrite(str(data / "a.png"), np.full((24, 32, 3), 10, np.uint8))
    cv2.imwrite(str(data / "a.left.png"), np.full((24, 32, 3), 200, np.uint8))
    np.save(data / "a.imu.npy", np.arange(6.0))
    (sample,) = FileSamples({"left": IMAGE, "right": IMAGE, "imu": VECTOR}, data)
    assert (sample["left"].mean(), sample["right"].mean()) == (200, 10)
    assert sample["imu"].tolist() == [[0, 1, 2, 3, 4, 5]]
    np.save(data / "a.imu.npy", np.zeros((4, 6)))
    with pytest.raises(ConfigError, match=r"different numbers of samples: .*'a\.imu\.npy' 4"):
        FileSamples({"left": IMAGE, "right": IMAGE, "imu": VECTOR}, data)


def test_arrays_of_several_inputs_are_one_sample_a_row(data):
    np.save(data / "walk.x.npy", np.arange(12.0).reshape(2, 6))
    np.save(data / "walk.y.npy", np.arange(4, dtype=">f4").reshape(2, 2))
    found = FileSamples({"x": VECTOR, "y": TensorInput(shape=(2,))}, data)
    assert [sample["y"].tolist() for sample in found] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("kind", ["float64", ">f4", ">f8", "int16", "uint8", "float16"])
def test_numbers_of_any_kind_and_order_are_those_of_the_seat(kind):
    values = np.asfortranarray(np.arange(6).reshape(1, 6).astype(kind))
    assert fitted(values, VECTOR, "it", "here").tolist() == [[0, 1, 2, 3, 4, 5]]
    assert fitted(values[0], VECTOR, "it", "here").dtype == np.float32
    pcm = np.array([0, 16384], ">i2")
    np.testing.assert_allclose(fitted(pcm, SOUND, "it", "here")[0, -2:], [0, 0.5])


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (np.array([[1e300] * 6]), VECTOR),
        (np.array([[2**40] * 6]), TensorInput(shape=(1, 6), dtype="int32")),
        (np.array([[0.5] * 6]), TensorInput(shape=(1, 6), dtype="int32")),
        (np.array(["a"] * 6), VECTOR),
    ],
)
def test_numbers_that_a_seat_does_not_hold_are_refused(array, spec):
    with pytest.raises(ConfigError):
        fitted(array, spec, "it", "here")


@pytest.mark.parametrize(("array", "said"), [(np.zeros((900, 2), np.float32), "mono"), (np.float32(1), "shape")])
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_whose_first_axis_is_no_sample_are_refused(data, array, said, ending):
    if ending == "npy":
        np.save(data / "x.npy", array)
    else:
        np.savez(data / "x.npz", audio=array)
    with pytest.raises(ConfigError, match=said):
        FileSamples({"audio": SOUND}, data)


def test_what_lies_beside_and_is_not_read_is_said(data, caplog):
    for k in range(4):
        cv2.imwrite(str(data / f"{k}.png"), picture(k))
    (data / "more").mkdir()
    cv2.imwrite(str(data / "more" / "5.png"), picture(5))
    for name in ("cat.heic", "README.md", ".DS_Store"):
        (data / name).touch()
    with caplog.at_level(logging.WARNING):
        raw_samples(recipe(data.parent, {"image": IMAGE}))
    assert "not read among the recordings, 2 in all: 'cat.heic', 'more'" in caplog.text
    (data / "clip.mp4").touch()
    with pytest.raises(ConfigError, match=r"'0\.png'\) beside recordings \('clip\.mp4'\)"):
        raw_samples(recipe(data.parent, {"image": IMAGE}))


def test_texts_beside_pictures_are_said_and_silence_is_a_warning(data, caplog):
    (data.parent / "words.json").write_bytes(train_tokenizer(["go left", "go right"], 128))
    inputs = {"image": IMAGE, "text": TextInput(max_tokens=4, pad=7, tokenizer="words.json")}
    for k in range(4):
        cv2.imwrite(str(data / f"{k}.png"), picture(k))
    with caplog.at_level(logging.WARNING):
        raw_samples(recipe(data.parent, inputs))
    assert "input 'text' says nothing in any sample" in caplog.text
    caplog.clear()
    (data / "0.text.txt").write_text("go\n")
    samples = raw_samples(recipe(data.parent, inputs))
    assert samples.calibration[0].arrays["text"].tolist() != [[7, 7, 7, 7]]
    assert samples.calibration[1].arrays["text"].tolist() == [[7, 7, 7, 7]]
    assert "says nothing" not in caplog.text


def test_each_row_of_an_array_has_the_line_of_its_number(data):
    words = ("go", "no", "up")
    (data.parent / "words.json").write_bytes(train_tokenizer(words, 128))
    for name, rows in (("a", 4), ("b", 3)):
        np.save(data / f"{name}.npy", np.full((rows, 6), ord(name), np.float32))
    (data / "b.text.txt").write_text("\n".join(words))
    made = recipe(data.parent, {"x": VECTOR, "text": TextInput(max_tokens=4, pad=0, tokenizer="words.json")}, "data")
    tokenizer, samples = load_tokenizer(made, "text"), raw_samples(made)
    of_b = sorted([*samples.calibration, *samples.held_out], key=lambda s: s.name)[4:]
    assert [s.name for s in of_b] == ["b.npy 0", "b.npy 1", "b.npy 2"]
    for sample, word in zip(of_b, words, strict=True):
        want = np.zeros((1, 4), np.int64)
        tokenizer.ids(word, want)
        np.testing.assert_array_equal(sample.arrays["text"], want)


@given(st.integers(1, 12), st.integers(0, 60), st.integers(1, 5))
def test_what_is_unusual_for_longer_than_a_glitch_lasts(length, start, held):
    values = [100.0 if start <= k < start + length else 1.0 + 0.01 * (k % 3) for k in range(100)]
    triggers = [(k, value) for k, value in enumerate(values) for _ in range(held)]  # of data slower than triggers
    found = lasting({"imu": triggers})["imu"]
    assert found.tolist() == [value == 100.0 and length > FEW for _, value in triggers]


def test_an_event_that_meets_one_sample_is_kept_and_a_glitch_is_not(tmp_path):
    made = recipe(tmp_path, {"x": VECTOR})
    values = [np.full((1, 6), 50.0 if k in (10, 30) else 1.0 + 0.01 * (k % 5), np.float32) for k in range(60)]
    lasts = {30: frozenset({"x"})}
    samples = [RawSample(name=f"{k}", arrays={"x": v}, lasting=lasts.get(k, frozenset())) for k, v in enumerate(values)]
    kept, dropped = usable(samples, made)
    assert (len(kept), dropped) == (59, ("10",))


@given(st.integers(1, 500), st.integers(1, 300))
def test_a_stage_with_a_memory_gets_stretches(tmp_path_factory, total, count):
    made = recipe(tmp_path_factory.getbasetemp(), {"x": VECTOR})
    stage = msgspec.structs.replace(made.stages["s"], inputs={"x": "x", "h": "@state:y"})
    made = msgspec.structs.replace(made, stages={"s": stage})
    found = choose(made, total, count)
    assert found == sorted(set(found))
    assert found[-1] < total
    assert min(total, count) - 8 < len(found) <= min(total, count)
    samples = [RawSample(name="", arrays={}, number=index) for index in found]
    begins = sum(not b.follows(a) for a, b in zip([None, *samples], samples, strict=False))
    assert begins <= max(1, -(-len(found) // min(8, count)))
