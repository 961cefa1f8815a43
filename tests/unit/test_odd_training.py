"""Odd data and code behind a training run: named before the first epoch, or part of what a run is known by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("lightning")

import msgspec  # noqa: E402

from mmedge.errors import CheckError, ConfigError  # noqa: E402
from mmedge.export.datasets.boxes import check_boxes  # noqa: E402
from mmedge.export.datasets.files import read_file  # noqa: E402
from mmedge.export.datasets.problems import UnusableFileError  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from mmedge.export.run_report import RunReport  # noqa: E402
from mmedge.export.training import make_dataset, train_and_save  # noqa: E402
from mmedge.export.training.checkpoint import identity  # noqa: E402
from mmedge.export.training.lightning_module import Training  # noqa: E402
from mmedge.export.training.weights import make_model  # noqa: E402
from tests.tiny_training import MODEL, folder, write_project  # noqa: E402
from tests.unit.test_folder_columns import lines_of, rewrite  # noqa: E402
from tests.unit.test_picture_files import IMAGE, SOUND  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
SET = """
import numpy as np
from mmedge.export.datasets.base import Dataset
class Mine(Dataset):
    def __init__(self, recipe, file="x.npy"):
        super().__init__(recipe)
        self.file, self.chance = recipe.folder / file, np.random.default_rng()
        self.held = {"scale": np.ones(3)}
    def prepare(self): pass
    def split(self, name, *, epoch=0): return []
    def groups(self, name): return frozenset()
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_project(tmp_path / "p", (9, 4, 4))


def changed(recipe: Recipe, **train: Any) -> Recipe:
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, **train))


def test_a_run_is_known_by_what_its_model_imports(recipe: Recipe) -> None:
    (recipe.folder / "tiny_model.py").write_text(f"import gains\n{MODEL}")
    (recipe.folder / "gains.py").write_text("GAIN = 1\n")
    data = folder(recipe)
    data.prepare()
    before = identity(recipe, data, None)
    assert identity(recipe, data, None) == before
    (recipe.folder / "gains.py").write_text("GAIN = 2\n")
    after = identity(recipe, data, None)
    assert {key for key in before if before[key] != after[key]} == {"code"}


def test_a_data_set_is_known_by_the_files_it_names_and_by_what_it_holds(recipe: Recipe) -> None:
    (recipe.folder / "mine.py").write_text(SET)
    np.save(recipe.folder / "x.npy", np.zeros(3))
    data = msgspec.structs.replace(recipe.data, folder=None, dataset="mine:Mine")
    recipe = msgspec.structs.replace(recipe, data=data)
    before = make_dataset(recipe).digest("train")
    assert make_dataset(recipe).digest("train") == before, "chance is not data"
    np.save(recipe.folder / "x.npy", np.ones(3))
    after = make_dataset(recipe).digest("train")
    assert after != before
    held = make_dataset(recipe)
    held.held["scale"][1] = 2  # type: ignore[attr-defined]
    assert held.digest("train") != after


def test_a_last_batch_of_one_sample_joins_the_one_before(recipe: Recipe) -> None:
    recipe = changed(recipe, batch_size=4)
    training = Training(make_model(recipe), folder(recipe), recipe)
    sizes = [len(batch["present"]) for batch in training._loader("train", shuffle=True)]
    assert sizes == [4, 5]
    assert [len(batch["present"]) for batch in training._loader("validation", shuffle=False)] == [4]


def test_a_run_that_diverges_says_so_and_saves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="not finite after epoch 1"):
        train_and_save(changed(recipe, learning_rate=1e30), output=tmp_path / "w.safetensors", progress=False)
    assert not list(tmp_path.glob("w.*"))


@pytest.mark.parametrize(("column", "told"), [("label", "label"), ("level", "level"), ("loudness", "loudness")])
def test_a_task_without_any_target_is_refused_and_blanks_are_unknown(recipe: Recipe, column: str, told: str) -> None:
    path, lines = lines_of(recipe)
    place = lines[0].index(column)
    rewrite(path, [line if k in (0, 2) else [*line[:place], " ", *line[place + 1 :]] for k, line in enumerate(lines)])
    data = folder(recipe)
    data.check()
    known = [s for s in (data.split("train")[k] for k in range(9)) if set(s.labels.values()) != {-1}]
    assert len(known) == (1 if column == "label" else 9)
    assert any(f"split 'validation' has a {told}" in doubt for doubt in data.doubts())
    rewrite(path, [line if k == 0 else [*line[:place], "", *line[place + 1 :]] for k, line in enumerate(lines)])
    with pytest.raises(ConfigError, match=f"no sample of split 'train' has a {told}, so task"):
        folder(recipe).check()


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ((500, 5, 510, 9), "lies outside the picture of 64x48"),
        ((-20, -20, -1, -1), "lies outside"),
        ((0.2, 0.3, 0.5, 0.6), "smaller than a pixel"),
        ((-5, -5, 12, 12), None),
        ((60, 40, 80, 60), None),
    ],
)
def test_boxes_that_are_not_in_their_picture_are_refused(box: tuple[float, ...], told: str | None) -> None:
    boxes = np.array([[0, *box]], np.float32)
    if told is None:
        check_boxes(boxes, (48, 64))
        return
    with pytest.raises(UnusableFileError, match=told):
        check_boxes(boxes, (48, 64))


def test_pictures_of_more_than_eight_bits_keep_their_range_or_are_refused(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(32, dtype=np.uint16), (24, 1))
    cv2.imwrite(str(tmp_path / "full.png"), ramp * 2048)
    assert np.ptp(read_file(tmp_path / "full.png", IMAGE, "full.png")) > 200
    cv2.imwrite(str(tmp_path / "dark.png"), ramp % 3)
    assert not read_file(tmp_path / "dark.png", IMAGE, "dark.png").any()
    cv2.imwrite(str(tmp_path / "deep.png"), ramp * 100)
    with pytest.raises(UnusableFileError, match=r"uint16 \[24, 32, 3\] of 0\.\.3100: 8 bits leave 13 grey levels"):
        read_file(tmp_path / "deep.png", IMAGE, "deep.png")
    cv2.imwrite(str(tmp_path / "float.tiff"), np.dstack([ramp / 32] * 3).astype(np.float32))
    with pytest.raises(UnusableFileError, match="float32"):
        read_file(tmp_path / "float.tiff", IMAGE, "float.tiff")


def test_a_float_sound_that_was_not_scaled_is_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 800), 9000, np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnusableFileError, match=r"up to 9000: float sound is within -1\.\.1"):
        read_file(tmp_path / "x.wav", SOUND, "x.wav")


def test_a_report_names_no_folder_wherever_recordings_lie(tmp_path: Path) -> None:
    (tmp_path / "rec ordings").mkdir()
    report = RunReport(folder=tmp_path, places=(str(tmp_path / "rec ordings"),))
    node = "/features/0/Conv"
    report.warnings = [f"'{tmp_path}/rec ordings/a.mp4' ends early", f"{tmp_path}/b.mp4: {node} stays float"]
    assert report.to_dict()["warnings"] == ["'a.mp4' ends early", f"b.mp4: {node} stays float"]
