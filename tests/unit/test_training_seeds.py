"""Several seeds by one option; and a fused task beside its best single input, without crying wolf."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("lightning")
pytest.importorskip("scipy")

import msgspec  # noqa: E402
from rich.console import Console  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.models.staged import StagedModel  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from mmedge.export.training import load_weights, loop, save_weights, train_and_save  # noqa: E402
from mmedge.export.training.compare import mcnemar, rivalries  # noqa: E402
from mmedge.export.training.evaluate import Predictions  # noqa: E402
from mmedge.export.training.masks import all_masks, as_tensor  # noqa: E402
from mmedge.export.training.report import TrainReport  # noqa: E402
from mmedge.export.training.validated_masks import Judged  # noqa: E402
from tests.tiny_training import write_project  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")

SHORT = {"epochs": 2, "batch_size": 16, "workers": 0}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = write_project(tmp_path_factory.mktemp("seeds"), (40, 32, 32))
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, **SHORT))


def test_seeds_are_trained_told_and_the_best_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    report = train_and_save(recipe, output=tmp_path / "w", seeds=3, progress=False)
    assert report.seeds is not None
    assert report.seeds.trained == (3, 4, 5)
    full = "front+rear+sound+imu"
    values = report.seeds.validation["side"][full].values
    assert values[report.seeds.trained.index(report.seeds.kept)] == max(values)
    assert report.seeds.validation["side"][full].mean == pytest.approx(np.mean(values), abs=1e-4)
    assert report.seeds.validation["side"][full].std == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    assert report.validation["side"][full] == max(values)
    assert report.seed == report.seeds.kept
    assert set(report.seeds.test) == {"test"}
    document = json.loads(json.dumps(report.to_dict()))
    assert "that is a choice" in document["seeds"]["note"]
    assert document["seeds"]["kept"] == report.seeds.kept
    _, metadata = load_weights(recipe, tmp_path / "w")
    assert metadata["seed"] == report.seeds.kept
    assert metadata["seeds"] == {"trained": [3, 4, 5], "kept": report.seeds.kept, "by": report.seeds.by}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["w"]
    train_and_save(recipe, output=tmp_path / "one", seed=report.seeds.kept, progress=False)
    one, kept = (load_weights(recipe, tmp_path / name)[0].state_dict() for name in ("one", "w"))
    assert all(torch.equal(one[name], kept[name]) for name in one)


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Press Ctrl-C where so many fits begin; return the seeds of those that have begun."""
    fit, seen = loop._fit, list[int]()

    def stopping(model: StagedModel, dataset: Any, own: Recipe, *args: Any) -> None:
        seen.append(own.seed)
        if len(seen) == number:
            raise KeyboardInterrupt
        fit(model, dataset, own, *args)

    monkeypatch.setattr(loop, "_fit", stopping)
    return seen


@pytest.mark.long
def test_of_all_seeds_only_the_best_model_stays_in_memory(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, models, alive = loop._fit, [], []

    def counting(model: StagedModel, *args: Any) -> None:
        fit(model, *args)
        models.append(weakref.ref(model))
        gc.collect()
        alive.append(sum(known() is not None for known in models))

    monkeypatch.setattr(loop, "_fit", counting)
    train_and_save(recipe, output=tmp_path / "w", seeds=4, limit=1, progress=False)
    assert max(alive) == 2


def test_a_finished_seed_of_another_version_is_named_as_such(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train_and_save(recipe, output=tmp_path / "w", seeds=2, limit=1, progress=False)
    path = tmp_path / "w.seed3.trained"
    model, metadata = load_weights(recipe, path)
    for changes in (
        {"identity": {**metadata["identity"], "mmedge": "0.0.1"}, "report": {"another": "form"}},
        {"identity": None, "report": None},
    ):
        save_weights(model, {**metadata, **changes}, path)
        with pytest.raises(ConfigError, match="of another run: since then") as caught:
            train_and_save(recipe, output=tmp_path / "w", seeds=2, limit=1, resume=True, progress=False)
        assert "mmedge" in caught.value.message
        assert caught.value.where == str(path)


def test_seeds_that_were_finished_are_not_trained_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = train_and_save(recipe, output=tmp_path / "want", seeds=3, progress=False)
    seen = interrupt(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train_and_save(recipe, output=tmp_path / "w", seeds=3, progress=False)
    got = train_and_save(recipe, output=tmp_path / "w", seeds=3, resume=True, progress=False)
    assert seen == [3, 4, 5, 5]
    assert got.seeds == want.seeds
    (one, told), (two, wanted) = (load_weights(recipe, tmp_path / name) for name in ("w", "want"))
    assert told == wanted
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_number_of_seeds_may_be_in_the_recipe_and_is_checked(recipe: Recipe, tmp_path: Path) -> None:
    text = (recipe.folder / "recipe.toml").read_text()
    path = recipe.folder / "seeds.toml"
    path.write_text(text.replace("[train]", "[train]\nseeds = 3"))
    assert Recipe.load(path).train.seeds == 3
    path.write_text(text.replace("[train]", "[train]\nseeds = 0"))
    with pytest.raises(ConfigError, match=r"\.train\.seeds|>= 1"):
        Recipe.load(path)
    with pytest.raises(ConfigError, match="seeds must be 1 or more"):
        train_and_save(recipe, seeds=0, progress=False)


def found_of(recipe: Recipe, fused: Any, single: Any, *, task: str = "loud") -> dict[tuple[str, ...], Predictions]:
    """Return predictions that are right (True) where told, with all inputs and with the first one alone."""
    names, count = tuple(recipe.inputs), len(fused)
    values = torch.zeros(count)
    found = {}
    for mask in all_masks(names):
        right = fused if mask == names else single if mask == names[:1] else np.zeros(count, bool)
        logits = torch.zeros(count, 3)
        logits[torch.arange(count), torch.from_numpy(np.where(right, 0, 1))] = 5.0
        plain = {name: torch.zeros(count, 2 if name == "side" else 1) for name in recipe.tasks}
        found[mask] = Predictions(
            logits={**plain, task: logits},
            labels=torch.full((count, len(names)), -1),
            present=as_tensor(mask, names).expand(count, -1),
            values={"loud": values, "level": values * float("nan"), "same": values * float("nan")},
            index=torch.arange(count),
        )
    return found


def test_a_fused_task_that_is_worse_says_so_and_what_to_try(recipe: Recipe) -> None:
    fused, single = np.arange(400) % 10 < 5, np.arange(400) % 10 < 8
    (rival,) = rivalries(recipe, found_of(recipe, fused, single), None)
    assert (rival.task, rival.best, rival.samples) == ("loud", "front", 400)
    assert (rival.fused, rival.single) == (0.5, 0.8)
    assert rival.worse
    assert rival.high < 0
    told = str(rival)
    assert "'front' alone 80.0 %" in told
    for advice in ("modality_dropout", "loss_weight", "more data", "mmedge.fusion.rules:weighted_log_probs"):
        assert advice in told
    report = TrainReport(seed=0, rivalries=[rival])
    assert report.to_dict()["warnings"] == [told]
    console = Console(record=True, width=400)
    report.print(console)
    assert "warning: task 'loud'" in console.export_text()


def test_little_data_is_a_note_and_no_warning(recipe: Recipe) -> None:
    """61.7 against 66.3 % of 60 samples may be chance, and is told as such."""
    rng = np.random.default_rng(0)
    fused, single = rng.permutation(60) < 37, rng.permutation(60) < 40
    (rival,) = rivalries(recipe, found_of(recipe, fused, single), None)
    assert rival.lags
    assert not rival.worse
    assert "may be chance" in str(rival)
    report = TrainReport(seed=0, rivalries=[rival])
    assert report.to_dict()["warnings"] == []
    assert report.to_dict()["fusion"][0]["verdict"] == "not distinguishable"
    console = Console(record=True, width=400)
    report.print(console)
    assert "note: task 'loud'" in console.export_text()


def test_a_fused_task_that_is_better_is_not_mentioned(recipe: Recipe) -> None:
    (rival,) = rivalries(recipe, found_of(recipe, np.arange(90) % 10 < 9, np.arange(90) % 10 < 6), None)
    assert not rival.lags
    assert rival.to_dict()["advice"] is None


def test_it_does_not_cry_wolf(recipe: Recipe) -> None:
    """Where both are equally good, at most a twentieth of the runs is warned of."""
    rng, cries = np.random.default_rng(0), 0
    for _ in range(200):
        (rival,) = rivalries(recipe, found_of(recipe, rng.random(150) < 0.7, rng.random(150) < 0.7), None)
        cries += rival.worse
    assert cries <= 10


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    if first + second:
        assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-9)


def test_mcnemar_of_many_samples_takes_no_time() -> None:
    assert mcnemar(1_000_000, 1_000_000) == 1.0
    assert mcnemar(400_000, 401_000) == pytest.approx(binomtest(400_000, 801_000, 0.5).pvalue, rel=1e-5)


def test_only_samples_that_have_all_inputs_are_compared(recipe: Recipe) -> None:
    fused, single = np.arange(100) % 2 == 0, np.arange(100) % 2 == 0
    found = found_of(recipe, fused, single)
    names = tuple(recipe.inputs)
    kept = torch.arange(0, 100, 2)
    found[names] = found[names].where(kept)
    (rival,) = rivalries(recipe, found, None)
    assert rival.samples == 50
    assert rival.fused == rival.single == 1.0


def test_training_warns_in_its_log(recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fused, single = np.arange(400) % 10 < 5, np.arange(400) % 10 < 8
    (rival,) = rivalries(recipe, found_of(recipe, fused, single), None)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO, "mmedge.export"):
        patch.setattr(loop, "rivalries", lambda *args: [rival])
        report = train_and_save(recipe, output=tmp_path / "w", limit=1, progress=False)
    assert report.rivalries == [rival]
    assert any(r.levelname == "WARNING" and "is worse than 'front' alone" in r.message for r in caplog.records)


@pytest.mark.parametrize("masks", [3, 15])
def test_a_table_of_many_tasks_and_masks_fits_a_terminal(masks: int) -> None:
    report = TrainReport(seed=0, metrics={"a": "top1", "b": "mae"})
    counted, erring = Judged(total=37.0, samples=99), Judged(total=12.5, samples=88, spread=0.5)
    report.counts = {
        task: {f"mask{number}": judged for number in range(masks)} for task, judged in (("a", counted), ("b", erring))
    }
    report.test = {"test": report.validation}
    console = Console(record=True, width=120)
    report.print(console)
    text = console.export_text()
    for part in ("37.4", "0.142", "99", "88", "mean absolute error", "n of validation", f"mask{masks - 1}"):
        assert part in text
