"""Samples from folders of pictures, sounds and arrays, and recordings of what is pushed, as calibration reads them."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.bundle.manifest import AudioInput, ImageInput, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.export.datasets.files import read_file
from mmedge.export.datasets.problems import UnusableFileError
from mmedge.export.parts import MIN_SAMPLES
from mmedge.export.picture_files import FileSamples, fitted, holds_plain_files
from mmedge.export.recipe import Calibration, Recipe
from mmedge.export.recording_files import recording_files
from mmedge.export.recordings import raw_samples
from mmedge.preprocess import reference
from mmedge.types import Frame
from tests.tiny_training import write_wav

IMAGE = ImageInput(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, frame=(12, 16))
SOUND = AudioInput(sample_rate_hz=8000, window_ms=100)


def picture(seed: int, size=(24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def recipe(folder: Path, inputs: dict, recordings: str = "data", frames: int = 128) -> Recipe:
    stage = {"inputs": {"x": next(iter(inputs))}, "callable": "rules:f", "outputs": {"y": [1, 1]}}
    document = {"name": "r", "licence": "MIT", "stages": {"s": stage}, "tasks": {}, "sync": {"trigger": "timer"}}
    document |= {"inputs": msgspec.to_builtins(inputs), "folder": folder, "sha256": ""}
    made = msgspec.convert(document, Recipe)
    return msgspec.structs.replace(made, calibration=Calibration(recordings=recordings, frames=frames), folder=folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_folder_of_pictures_is_what_a_camera_would_have_given(data, ending):
    smooth = cv2.resize(picture(1, (3, 4)), (32, 24), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(data / f"a.{ending}"), smooth)
    (sample,) = FileSamples({"image": IMAGE}, data)
    frame = Frame(stream="a", seq=0, capture_ns=0, arrive_ns=0, data=smooth, format="bgr24", width=32, height=24)
    want = reference.to_frame(frame, IMAGE)
    assert np.abs(sample["image"].astype(int) - want).mean() <= (0 if ending == "png" else 6)


def test_files_of_one_name_belong_together(data):
    inputs = {"left": IMAGE, "right": IMAGE, "audio": SOUND}
    for name in ("b", "a"):
        for side in ("left", "right"):
            cv2.imwrite(str(data / f"{name}.{side}.png"), picture(len(name + side)))
        write_wav(data / f"{name}.wav", np.linspace(-0.5, 0.5, 400), 8000)
    samples = FileSamples(inputs, data)
    assert [samples.name(k).split(".")[0] for k in range(2)] == ["a", "b"]
    pcm = samples[0]["audio"]
    assert pcm.shape == (1, 800)
    assert not pcm[0, :400].any(), "silence before it"
    np.testing.assert_allclose(pcm[0, 400:], np.linspace(-0.5, 0.5, 400), atol=1e-4)
    (data / "b.right.png").unlink()
    with pytest.raises(ConfigError, match=r"'b\.left\.png' has nothing beside it for input 'right'"):
        FileSamples(inputs, data)


def test_arrays_are_samples_a_row(data):
    inputs = {"imu": TensorInput(shape=(6,)), "image": IMAGE}
    imu = np.arange(30, dtype=np.float32).reshape(5, 6)
    np.savez(data / "walk.npz", imu=imu, image=np.stack([picture(k) for k in range(5)]))
    samples = FileSamples(inputs, data)
    assert len(samples) == 5
    assert samples.name(3) == "walk.npz 3"
    np.testing.assert_array_equal([sample["imu"] for sample in samples], imu)
    assert samples[0]["image"].shape == (1, 12, 16, 3)
    np.save(data.parent / "alone.npy", imu)
    alone = FileSamples({"imu": inputs["imu"]}, data.parent / "alone.npy")
    np.testing.assert_array_equal([sample["imu"] for sample in alone], imu)


@pytest.mark.parametrize("seat", ["gray", "rgb"])
@pytest.mark.parametrize("kind", ["gray", "rgb"])
def test_training_and_calibration_read_pictures_alike_be_they_files_or_arrays(data, seat, kind):
    spec = IMAGE if seat == "rgb" else ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(12, 16))
    shown = picture(5) if kind == "rgb" else picture(5)[..., 0]
    cv2.imwrite(str(data / "file.png"), shown[..., ::-1] if kind == "rgb" else shown)
    np.save(data / "array.npy", shown if kind == "rgb" else shown[..., None])
    seen = [sample["image"][0] for sample in FileSamples({"image": spec}, data)]
    for calibrated, name in zip(seen, ("array.npy", "file.png"), strict=True):
        np.testing.assert_array_equal(calibrated, read_file(data / name, spec, name))
    # OpenCV rounds another way where it makes gray of colours.
    assert np.abs(seen[0].astype(int) - seen[1]).max() <= (seat == "gray" and kind == "rgb")


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_sounds_that_are_arrays_are_those_of_files(data, kind):
    pcm = np.linspace(-0.5, 0.5, 400) * (32768 if kind is np.int16 else 1)
    np.save(data / "a.npy", pcm.astype(kind))
    (sample,) = FileSamples({"audio": SOUND}, data / "a.npy")
    np.testing.assert_allclose(sample["audio"][0, 400:], np.linspace(-0.5, 0.5, 400), atol=1e-4)
    np.testing.assert_array_equal(sample["audio"][0], read_file(data / "a.npy", SOUND, "a.npy"))
    np.save(data / "loud.npy", np.full(100, 20000.0))
    with pytest.raises(UnusableFileError, match="no raw sound"):
        read_file(data / "loud.npy", SOUND, "loud.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.wav"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x93NUMPY\x01\x00"], ids=["empty", "zip", "numpy"])
def test_a_damaged_file_is_named(data, name, content):
    (data / name).write_bytes(content)
    inputs = {"audio": SOUND} if name == "x.wav" else {"image": IMAGE}
    with pytest.raises(ConfigError) as caught:
        FileSamples(inputs, data)[0]
    assert caught.value.where == str(data / name)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("array", "spec", "said"),
    [
        (picture(0) / np.float32(255), IMAGE, r"float32 \[24, 32, 3\] of 0\S*\.\.1: no raw picture"),
        (np.zeros((3, 24, 32), np.uint8), IMAGE, "no raw picture"),
        (np.full(100, 20000.0, np.float32), SOUND, r"of 2e\+04\.\.2e\+04: no raw sound"),
        (np.zeros(100, np.int32), SOUND, "no raw sound"),
        (np.full(100, np.nan, np.float32), SOUND, "not finite"),
        (np.zeros(5, np.float32), TensorInput(shape=(6,)), r"give float32 \[6\]"),
        (np.zeros(6), TensorInput(shape=(6,), dtype="int64"), "float64"),
    ],
)
def test_what_is_not_raw_is_refused_with_its_range_and_shape(array, spec, said):
    with pytest.raises(ConfigError, match=said):
        fitted(array, spec, "it", "here")


@given(st.integers(3, 40), st.integers(2, 30))
def test_calibration_and_held_out_share_nothing_and_lie_all_over(tmp_path_factory, count, frames):
    folder = tmp_path_factory.mktemp("r")
    np.save(folder / "data.npy", np.arange(count, dtype=np.float32)[:, None])
    made = recipe(folder, {"x": TensorInput(shape=(1,))}, "data.npy", frames)
    samples = raw_samples(made)
    used, held = ({float(s.arrays["x"][0]) for s in part} for part in (samples.calibration, samples.held_out))
    assert not used & held
    total = min(frames * 3 // 2, count)
    assert len(used) + len(held) == total
    assert len(held) == total // 3
    assert max(used | held) >= count - 3 - count // total
    assert recording_files(made) == [folder / "data.npy"]


@given(st.integers(3, 400), st.integers(3, 300), st.integers(3, 300))
def test_no_file_that_calibrates_is_held_out_when_another_count_is_read(tmp_path_factory, files, few, many):
    folder = tmp_path_factory.mktemp("r")
    np.save(folder / "data.npy", np.arange(files, dtype=np.float32)[:, None])
    made = recipe(folder, {"x": TensorInput(shape=(1,))}, "data.npy")
    used = {float(s.arrays["x"][0]) for s in raw_samples(made, few).calibration}
    held = [float(s.arrays["x"][0]) for s in raw_samples(made, many, held_out_only=True).held_out]
    late = files // 3
    judging = late // 2 if late >= 2 * MIN_SAMPLES else late  # the others choose
    assert len(held) == min(min(files, many) // 3, judging)
    assert not used & set(held)
    assert all(place % 3 == 2 for place in held)


def test_texts_are_padding_and_few_samples_are_refused(data):
    inputs = {"image": IMAGE, "text": TextInput(max_tokens=4, pad=7)}
    for k in range(2):
        cv2.imwrite(str(data / f"{k}.png"), picture(k))
    made = recipe(data.parent, inputs)
    with pytest.raises(ConfigError, match="2 samples are not enough"):
        raw_samples(made)
    cv2.imwrite(str(data / "2.png"), picture(2))
    samples = raw_samples(made)
    assert samples.calibration[0].arrays["text"].tolist() == [[7, 7, 7, 7]]


@pytest.mark.parametrize("name", ["x.txt", "clip.mp4", "a.wav"])
def test_media_stay_recordings(data, name):
    (data / name).touch()
    assert not holds_plain_files(data)


def test_what_is_pushed_without_a_bundle_is_a_recording(tmp_path):
    imu = TensorInput(shape=(3,), rate_hz=100)
    values = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    start_ns = time.monotonic_ns() - 1_000_000_000
    with mmedge.Recorder(tmp_path / "walk", {"imu": imu, "said": TextInput(max_tokens=4)}) as recorder:
        recorder.text("said", "go")
        for k, value in enumerate(values):
            recorder.push("imu", value, start_ns + k * 10_000_000)
        with pytest.raises(ConfigError, match="does not fit"):
            recorder.push("imu", np.zeros(4, np.float32))
        with pytest.raises(ConfigError, match="no input 'gyro'"):
            recorder.push("gyro", values[0])
        with pytest.raises(ConfigError, match="takes no text"):
            recorder.text("imu", "go")
    with pytest.raises(ConfigError, match="closed"):
        recorder.push("imu", values[0])
    made = recipe(tmp_path, {"imu": imu}, "walk", 20)
    made = msgspec.structs.replace(made, sync=msgspec.structs.replace(made.sync, trigger="imu"))
    samples = raw_samples(made)
    seen = [s.arrays["imu"] for s in (*samples.calibration, *samples.held_out)]
    assert len(seen) >= 10
    assert all((value == values).all(axis=1).any() for value in seen)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_file_that_was_written_anew_is_read_anew(data, ending):
    for number in (1.0, 2.0):
        values = np.full((3, 1, 2), number, np.float32)
        np.save(data / "x.npy", values) if ending == "npy" else np.savez(data / "x.npz", x=values)
        assert FileSamples({"x": TensorInput(shape=(1, 2))}, data)[0]["x"].tolist() == [[number] * 2]
