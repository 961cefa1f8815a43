"""A run that was interrupted goes on as if it had not been: the same weights, bit for bit."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("lightning")

import msgspec  # noqa: E402

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from mmedge.export.training import load_weights, train_and_save  # noqa: E402
from mmedge.export.training import progress as progress_module  # noqa: E402
from tests.tiny_training import RECIPE, write_project  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    home = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        recipe = write_project(home / "p", (40, 16, 16))
        return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, qat_epochs=2))


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path, threads = tmp_path_factory.mktemp("whole") / "w", torch.get_num_threads()
    torch.set_num_threads(1)  # as every test here
    train_and_save(recipe, output=path, progress=False)
    torch.set_num_threads(threads)
    return weights(recipe, path)


def weights(recipe: Recipe, path: Path) -> dict[str, Any]:
    model, metadata = load_weights(recipe, path)
    return {**model.state_dict(), "measured": (metadata["validated_masks"], metadata["temperature"])}


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]) if name != "measured" else value == two[name], name


class Stop(progress_module.Epochs):
    """Interrupts a run within an epoch."""

    at = (0, 0)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_idx) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("stops", "workers"), [([(1, 1), (3, 0)], 0), ([(2, 2)], 2)])
def test_an_interrupted_run_equals_an_uninterrupted_one(
    recipe: Recipe,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stops: list[tuple[int, int]],
    workers: int,
) -> None:
    recipe = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, workers=workers))
    path, resume = tmp_path / "w", False
    with monkeypatch.context() as patch:
        patch.setattr(progress_module, "Epochs", Stop)
        for stop in stops:
            Stop.at = stop
            before = signal.getsignal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train_and_save(recipe, output=path, resume=resume, progress=False)
            assert signal.getsignal(signal.SIGINT) is before
            assert f"up to epoch {stop[0]} is kept; go on with: mmedge train {recipe.file} --resume" in caplog.text
            torch.rand(3)  # what else the process draws does not matter
            resume = True
    assert not path.exists()
    report = train_and_save(recipe, output=path, resume=True, progress=False)
    assert_same(weights(recipe, path), whole)
    assert report.seconds > 0
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["w"]


def interrupted(recipe: Recipe, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(progress_module, "Epochs", Stop)
        Stop.at = (1, 0)
        with pytest.raises(KeyboardInterrupt):
            train_and_save(recipe, output=path, progress=False)
    return path.with_name(path.name + ".checkpoint")


def test_a_checkpoint_of_another_run_is_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(recipe, tmp_path / "w", monkeypatch)
    longer = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=9))
    with pytest.raises(ConfigError, match="since then recipe changed"):
        train_and_save(longer, output=tmp_path / "w", resume=True, progress=False)
    with pytest.raises(ConfigError, match="recipe"):
        train_and_save(recipe, output=tmp_path / "w", seed=8, resume=True, progress=False)
    index = recipe.folder / "data" / "index.csv"
    text = index.read_text()
    try:
        index.write_text(text.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right"))
        with pytest.raises(ConfigError, match="since then data changed"):
            train_and_save(recipe, output=tmp_path / "w", resume=True, progress=False)
    finally:
        index.write_text(text)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch boom",)


@pytest.mark.parametrize("kind", ["garbage", "pickle", "cut", "other"])
def test_a_checkpoint_is_data_and_never_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = interrupted(recipe, tmp_path / "w", monkeypatch)
    monkeypatch.chdir(tmp_path)
    if kind == "garbage":
        path.write_bytes(b"\0" * 1000)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    else:
        torch.save({"state": Bomb()}, path)
    with pytest.raises(ConfigError, match="cannot read the checkpoint"):
        train_and_save(recipe, output=tmp_path / "w", resume=True, progress=False)
    assert not (tmp_path / "boom").exists()


def test_a_run_that_would_replace_an_interrupted_one_says_so_and_leaves_it_until_then(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = interrupted(recipe, tmp_path / "w", monkeypatch)
    before = path.read_bytes()
    caplog.clear()
    monkeypatch.setattr(progress_module, "Epochs", Stop)
    Stop.at = (0, 0)
    with pytest.raises(KeyboardInterrupt):
        train_and_save(recipe, output=tmp_path / "w", progress=False)
    assert "an interrupted run is replaced when the first epoch ends" in caplog.text
    assert "nothing new is kept" in caplog.text
    assert path.read_bytes() == before


def test_nothing_to_resume_is_said(recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=1, weights=None))
    train_and_save(short, output=tmp_path / "w", resume=True, progress=False)
    assert "no epoch was kept, so training starts with the first" in caplog.text
    with pytest.raises(ConfigError, match="leaves nothing to resume"):
        train_and_save(short, resume=True, progress=False)


@pytest.mark.timeout(300)
def test_ctrl_c_at_the_command_line_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "p", (40, 16, 16), RECIPE.replace("epochs = 4", "epochs = 4000"))
    command = [sys.executable, "-m", "mmedge", "train", str(recipe.file), "--json"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "epoch 3 of 4000: loss" in line:
                break
        else:
            pytest.fail("".join(told))
        assert "validation" in line
        assert "side" in line
        assert " left" in line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in err
    assert out == "" or '"error"' in out
    assert (tmp_path / "p" / "w.safetensors.checkpoint").is_file()
