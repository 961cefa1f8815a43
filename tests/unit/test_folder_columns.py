"""A folder with several targets and several seats of a modality; what is wrong with it is told all at once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")

import torch  # noqa: E402

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.datasets.folder import Folder  # noqa: E402
from mmedge.export.datasets.problems import TOLD  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from mmedge.export.tasks import KINDS, Truth, valued_tasks  # noqa: E402
from tests.tiny_training import RECIPE, folder, write_project, write_wav  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_project(tmp_path / "p", (8, 4, 4))


def lines_of(recipe: Recipe) -> tuple[Path, list[list[str]]]:
    path = recipe.folder / "data" / "index.csv"
    with path.open(newline="") as file:
        return path, list(csv.reader(file))


def rewrite(path: Path, lines: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)


def test_each_task_has_its_column_and_each_seat_its_own(recipe: Recipe) -> None:
    data = folder(recipe)
    data.check()
    assert valued_tasks(recipe) == ("loud", "level", "same")
    samples = [data.split("train")[number] for number in range(8)]
    _, lines = lines_of(recipe)
    cells = [dict(zip(lines[0], line, strict=True)) for line in lines[1:9]]
    for sample, cell in zip(samples, cells, strict=True):
        assert set(sample.inputs) == {"front", "sound", "imu"} | ({"rear"} if cell["rear"] else set())
        assert sample.labels["front"] == ("left", "right").index(cell["label"])
        assert sample.inputs["front"].shape == (16, 16, 1)
        assert sample.inputs["sound"].shape == (64,)
        assert sample.inputs["imu"].shape == (4,)
        assert sample.inputs["imu"].dtype == np.float32
        assert sample.age_ms["sound"] == 5
        assert ("level" in sample.targets) == bool(cell["level"])
        assert sample.targets["same"] == ("no", "yes").index(cell["same"])
        if cell["loudness"]:
            assert sample.targets["loud"] == ("quiet", "middle", "loud").index(cell["loudness"])
            assert sample.targets["level"] == pytest.approx(float(cell["level"]))
    batch = data.collate(samples)
    assert set(batch["targets"]) == {"loud", "level", "same"}
    assert batch["targets"]["level"].isnan().tolist() == [not cell["level"] for cell in cells]


def test_a_class_of_its_own_column_is_that_of_the_sample(recipe: Recipe) -> None:
    present = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    truth = Truth(labels=torch.full((3, 4), 1), present=present, values=torch.tensor([2.0, 0.0, float("nan")]))
    task, kind = recipe.tasks["loud"], KINDS["classification"]
    outputs = torch.tensor([[0.0, 0, 5], [0, 5, 0], [5, 0, 0]])
    target, defined = kind.target(task, outputs, truth)
    assert target[:2].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert defined.tolist() == [True, True, False]
    assert kind.judge(task, outputs, truth).tolist() == [1, 0]
    assert kind.certain(task, outputs, truth).tolist() == [True, True, False]


def test_a_verification_with_a_column_needs_two_inputs_and_a_target(recipe: Recipe) -> None:
    present = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    truth = Truth(labels=torch.full((3, 4), -1), present=present, values=torch.tensor([1.0, 1.0, float("nan")]))
    same, defined = KINDS["verification"].target(recipe.tasks["same"], torch.zeros(3, 1), truth)
    assert defined.tolist() == [False, True, False]
    assert same[1] == 1


def test_a_seat_alone_of_its_modality_may_have_that_column(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    lines[0] = [{"sound": "audio", "sound_age_ms": "audio_age_ms"}.get(cell, cell) for cell in lines[0]]
    rewrite(path, lines)
    assert folder(recipe).rows[0].age_ms["sound"] == 5
    lines[0] = [{"front": "image"}.get(cell, cell) for cell in lines[0]]
    rewrite(path, lines)
    with pytest.raises(ConfigError, match="there is no front"):
        folder(recipe)


def test_arrays_are_pictures_and_sounds_as_well(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    picture = cv2.imread(str(path.parent / "train0.png"), cv2.IMREAD_GRAYSCALE)
    np.save(path.parent / "p.npy", picture)
    sound = np.linspace(-1, 1, 50).astype(np.float32)
    np.save(path.parent / "s.npy", sound)
    before = folder(recipe).split("train")[0].inputs
    lines[1][3], lines[1][5] = "p.npy", "s.npy"
    rewrite(path, lines)
    after = folder(recipe).split("train")[0].inputs
    np.testing.assert_array_equal(after["front"], before["front"])
    np.testing.assert_array_equal(after["sound"], np.pad(sound, (14, 0)))


def test_colours_of_an_array_are_those_of_the_picture(tmp_path: Path) -> None:
    colour = RECIPE.replace('color = "gray"\nmean = [0.4]\nstd = [0.3]', "mean = [0.4, 0.4, 0.4]\nstd = [1, 1, 1]", 1)
    recipe = write_project(tmp_path / "c", (2, 1, 1), colour)
    path, lines = lines_of(recipe)
    rgb = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    np.save(path.parent / "rgb.npy", rgb)
    cv2.imwrite(str(path.parent / "rgb.png"), rgb[:, :, ::-1])
    lines[1][3], lines[2][3] = "rgb.npy", "rgb.png"
    rewrite(path, lines)
    data = folder(recipe)
    one, two = (data.split("train")[number].inputs["front"] for number in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, rgb)


BAD: dict[str, tuple[int, Any, str]] = {
    "nan": (8, "nan", "the level 'nan' is not a number"),
    "class": (7, "deafening", "unknown loudness 'deafening', one of quiet, middle, loud"),
    "label": (2, "up", "unknown label 'up'"),
}


def test_every_line_that_cannot_be_used_is_named_at_once(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    for row, (column, value, _) in enumerate(BAD.values(), 2):
        lines[row][column] = value
    rewrite(path, lines)
    with pytest.raises(ConfigError, match="3 lines cannot be used") as caught:
        folder(recipe)
    for row, (_, _, message) in enumerate(BAD.values(), 2):
        assert f"line {row + 1}: {message}" in caught.value.message
    assert caught.value.where == f"{path}:3"


def test_every_file_that_cannot_be_used_is_named_before_training(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    home = path.parent
    (home / "torn.png").write_bytes((home / "train0.png").read_bytes()[:60])
    write_wav(home / "none.wav", np.zeros(0))
    np.save(home / "nan.npy", np.array([1, np.nan, 0, 0]))
    np.save(home / "wide.npy", np.zeros(5))
    np.save(home / "object.npy", np.array([{}], object), allow_pickle=True)
    bad = [(3, "torn.png"), (5, "none.wav"), (6, "nan.npy"), (6, "wide.npy"), (6, "object.npy")]
    for row, (column, file) in enumerate(bad, 1):
        lines[row][column] = file
    rewrite(path, lines)
    data = folder(recipe)
    with pytest.raises(ConfigError, match="5 lines cannot be used") as caught:
        data.check()
    for row, (_, file) in enumerate(bad, 2):
        assert f"line {row}: " in caught.value.message
        assert f"'{file}'" in caught.value.message
    assert "has no samples" in caught.value.message


def test_the_list_of_what_is_wrong_is_bounded(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    rewrite(path, [*lines, *([["train", "g", "up", *lines[1][3:]]] * 100)])
    with pytest.raises(ConfigError, match="100 lines cannot be used") as caught:
        folder(recipe)
    assert f"and {100 - TOLD} more" in caught.value.message
    assert caught.value.message.count("\n") == TOLD + 1


def test_missing_files_are_named_together(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    lines[1][3] = lines[4][3] = "gone.png"
    rewrite(path, lines)
    with pytest.raises(ConfigError, match="2 lines cannot be used") as caught:
        folder(recipe)
    assert caught.value.message.count("there is no file 'gone.png'") == 2


def test_groups_in_two_splits_are_all_named(recipe: Recipe) -> None:
    path, lines = lines_of(recipe)
    for row, group in ((1, "ann"), (9, "ann"), (2, "bob"), (13, "bob")):
        lines[row][1] = group
    rewrite(path, lines)
    with pytest.raises(ConfigError, match="group 'ann' is in both train and validation; group 'bob'"):
        folder(recipe).check()


def test_classes_nobody_shows_and_files_in_two_splits_are_doubts(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    path, lines = lines_of(recipe)
    for line in lines[1:9]:
        line[2], line[7] = "left", line[7].replace("loud", "quiet")
    lines[9][2], lines[9][3] = "right", lines[1][3]
    rewrite(path, lines)
    data = folder(recipe)
    data.check()
    told = " | ".join(data.doubts())
    assert "no sample of split 'train' has the label 'right'" in told
    assert "split 'validation' has the label 'right', which training never sees" in told
    assert "no sample of split 'train' has the loudness 'loud'" in told
    assert "the same file is in several splits: 'front' of line 2 (train) and line 10 (validation)" in told
    assert "which training never sees" in caplog.text


def test_two_numbers_need_columns_of_their_own(tmp_path: Path) -> None:
    more = '[tasks.{0}]\nkind = "regression"\noutput = "net.level"\n'
    text = RECIPE.replace("[train]", more.format("one") + more.format("two") + "[train]")
    text = text.replace('[tasks.side]\nkind = "classification"\noutput = "net.side"\nlabels = ["left", "right"]\n', "")
    recipe = write_project(tmp_path / "two", (2, 1, 1), text)
    with pytest.raises(ConfigError, match="one and two") as caught:
        Folder(recipe, recipe.folder / "data")
    assert 'column = "NAME"' in str(caught.value.fix)
