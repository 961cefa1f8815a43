from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("lightning")

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.models.staged import StagedModel  # noqa: E402
from mmedge.export.recipe import Data, Recipe, RecipeTask, Train  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402
from mmedge.export.tasks import Truth, task_loss  # noqa: E402
from mmedge.export.training import load_weights, train_and_save  # noqa: E402
from mmedge.export.training.augment import augment, spec_augment, warp  # noqa: E402
from mmedge.export.training.evaluate import Predictions, accuracy, temperatures  # noqa: E402
from mmedge.export.training.masks import all_masks, modality_dropout  # noqa: E402
from mmedge.export.training.targets import classification_target, verification_target  # noqa: E402
from mmedge.export.training.weights import make_model, save_weights  # noqa: E402

CLASSES, NONE = 11, 10


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return shipped_recipe("av_digits")


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> StagedModel:
    torch.manual_seed(0)
    return make_model(recipe).eval()


def tensors(batch: int) -> dict[str, object]:
    text = torch.randint(1, 100, (batch, 24))
    text[:, 5:] = 0
    return {"image": torch.randn(batch, 1, 112, 112), "audio": torch.randn(batch, 95, 40), "text": text}


@pytest.mark.parametrize(
    ("labels", "present", "expected"),
    [
        ((3, 3), (1, 1), {3: 1.0}),
        ((3, 4), (1, 1), {3: 0.5, 4: 0.5}),
        ((3, 4), (0, 1), {4: 1.0}),
        ((NONE, 4), (1, 1), {4: 1.0}),
        ((3, NONE), (1, 0), {3: 1.0}),
        ((3, NONE), (0, 1), {NONE: 1.0}),
        ((NONE, NONE), (1, 1), {NONE: 1.0}),
        ((-1, 5), (1, 1), {5: 1.0}),
        ((-1, -1), (1, 1), {}),
    ],
)
def test_digit_target(labels, present, expected) -> None:
    target = classification_target(torch.tensor([labels]), torch.tensor([present]).float(), CLASSES, NONE)[0]
    assert {i: float(p) for i, p in enumerate(target) if p} == expected


@pytest.mark.parametrize(
    ("labels", "present", "same", "defined"),
    [
        ((3, 3), (1, 1), 1, True),
        ((3, 4), (1, 1), 0, True),
        ((3, NONE), (1, 1), 0, True),
        ((NONE, NONE), (1, 1), 0, True),
        ((3, 3), (1, 0), 1, False),
        ((3, -1), (1, 1), 0, False),
    ],
)
def test_agreement_target(labels, present, same, defined) -> None:
    target, known = verification_target(torch.tensor([labels]), torch.tensor([present]).float(), NONE)
    assert bool(known[0]) is defined
    if defined:
        assert int(target[0]) == same


def test_undefined_rows_cost_nothing() -> None:
    task = RecipeTask(kind="verification", output="fusion.agreement", labels=("no", "yes"))
    logits = torch.tensor([[5.0], [5.0]])
    labels = torch.tensor([[1, 1], [1, 2]])
    both = task_loss(task, logits, Truth(labels=labels, present=torch.tensor([[1.0, 1.0], [1.0, 0.0]]), none=NONE))
    assert float(both) == pytest.approx(float(torch.nn.functional.softplus(torch.tensor(-5.0))))
    assert (
        float(task_loss(task, logits, Truth(labels=labels, present=torch.tensor([[1.0, 0.0]] * 2), none=NONE))) == 0.0
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
def test_modality_dropout_keeps_one_input(inputs: int, probability: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present = (torch.rand(64, inputs, generator=generator) < 0.7).float()
    kept = modality_dropout(present, probability, generator)
    assert (kept <= present).all()
    assert ((kept.sum(1) > 0) == (present.sum(1) > 0)).all()


def test_modality_dropout_is_as_frequent_as_asked() -> None:
    kept = modality_dropout(torch.ones(4000, 2), 0.25, torch.Generator().manual_seed(0))
    assert (kept.sum(1) == 1).float().mean() == pytest.approx(0.25, abs=0.03)
    assert kept[:, 0].mean() == pytest.approx(0.875, abs=0.03)


def test_modality_dropout_leaves_sets_of_every_size() -> None:
    kept = modality_dropout(torch.ones(6000, 3), 0.4, torch.Generator().manual_seed(0))
    for left, share in ((3, 0.6), (2, 0.2), (1, 0.2)):
        assert (kept.sum(1) == left).float().mean() == pytest.approx(share, abs=0.03)
    torch.testing.assert_close(kept.mean(0), torch.full((3,), 0.8), atol=0.03, rtol=0)


def test_masks_are_every_set_of_inputs() -> None:
    masks = list(all_masks(("a", "b", "c")))
    assert masks[0] == ("a", "b", "c")
    assert len(set(masks)) == len(masks) == 7


def test_spec_augment_hides_bands_only() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 95, 40)
    y = spec_augment(x)
    changed = x != y
    assert changed.any()
    assert changed.float().mean() < 0.3
    rows = changed.all(2)
    columns = changed.all(1)
    assert (changed == (rows[:, :, None] | columns[:, None])).all()


def test_warp_moves_pictures_within_its_bounds(recipe: Recipe) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 1, 30, 40)
    torch.testing.assert_close(warp(x, turn=0.0, scale=0.0, shift=0.0), x, atol=1e-4, rtol=1e-4)
    spot = torch.zeros(64, 1, 41, 41)
    spot[:, :, 19:22, 19:22] = 1
    moved = warp(spot, turn=0.1, scale=0.1, shift=0.1)
    at = torch.arange(41.0)
    mass = moved.sum((1, 2, 3))
    for weight in (at[:, None], at[None, :]):
        centre = (moved[:, 0] * weight).sum((1, 2)) / mass
        assert ((centre - 20).abs() <= 0.1 * 41 * 1.25).all()
        assert centre.std() > 1
    features = torch.randn(4, 95, 40)
    assert augment(features, recipe.inputs["audio"]).shape == features.shape
    assert not torch.equal(augment(features, recipe.inputs["audio"]), features)


def test_model_is_small(model: StagedModel) -> None:
    assert sum(p.numel() for p in model.parameters()) < 200_000


@pytest.mark.parametrize("mask", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)])
def test_reused_encoders_give_the_same_answer(model: StagedModel, mask) -> None:
    inputs = tensors(3)
    with torch.inference_mode():
        full = model(inputs, torch.ones(3, 3))
        present = torch.tensor([mask] * 3)
        fresh, reused = model(inputs, present), model(inputs, present, reuse=full)
        encoded = model.features(inputs)
    assert set(encoded) == {f"{name}_encoder.embedding" for name in ("image", "audio", "text")}
    for key, value in fresh.items():
        torch.testing.assert_close(value, reused[key])
        torch.testing.assert_close(value, encoded.get(key, value))


@pytest.mark.parametrize("absent", ["image", "audio", "text"])
def test_an_absent_input_has_no_influence(model: StagedModel, absent: str) -> None:
    inputs = tensors(2)
    present = torch.tensor([[float(name != absent) for name in inputs]] * 2)
    other = torch.full_like(inputs[absent], 7) if absent == "text" else torch.randn_like(inputs[absent]) * 50
    with torch.inference_mode():
        one = model(inputs, present)
        two = model({**inputs, absent: other}, present)
        everything = model(inputs, torch.ones(2, 3))
    torch.testing.assert_close(one["fusion.digit"], two["fusion.digit"])
    assert not torch.allclose(one["fusion.digit"], everything["fusion.digit"], atol=1e-3)


def test_padding_says_nothing(model: StagedModel) -> None:
    encoder = model.get_submodule("text_encoder")
    text = tensors(2)["text"]
    assert int((text == 0).sum()) > 0
    with torch.inference_mode():
        before = encoder(text)
        encoder.position[5:] += 9.0  # where there is padding only
        torch.testing.assert_close(encoder(text), before)
        encoder.position[5:] -= 9.0


def test_stage_graph_errors_name_the_key(recipe: Recipe) -> None:
    model = make_model(recipe)
    stages = {name: model.get_submodule(name) for name in recipe.stages}
    with pytest.raises(ConfigError, match="the recipe"):
        StagedModel(recipe, {"image_encoder": stages["image_encoder"]})
    wrong = dict(recipe.stages)
    wrong["fusion"] = msgspec.structs.replace(wrong["fusion"], inputs={"image": "image_encoder.nothing"})
    with pytest.raises(ConfigError) as caught:
        StagedModel(msgspec.structs.replace(recipe, stages=wrong), stages)
    assert caught.value.where == "stages.fusion.inputs.image"


def test_temperature_undoes_overconfidence(recipe: Recipe) -> None:
    torch.manual_seed(0)
    honest = torch.randn(4000, CLASSES) * 2
    labels = torch.multinomial(torch.softmax(honest, 1), 1)
    found = Predictions(
        logits={"digit": honest * 3, "agreement": torch.zeros(4000, 1)},
        labels=labels.expand(-1, 2).clone(),
        present=torch.tensor([[1.0, 0.0]]).expand(4000, 2),
    )
    assert temperatures(recipe, {("image",): found})["digit"] == pytest.approx(3.0, rel=0.1)
    assert temperatures(recipe, {("image",): found})["agreement"] == 1.0


def test_accuracy_leaves_conflicts_out(recipe: Recipe) -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([1, 2, 3]), CLASSES).float()
    found = Predictions(
        logits={"digit": logits, "agreement": torch.tensor([[1.0], [1.0], [-1.0]])},
        labels=torch.tensor([[1, 1], [2, 5], [4, NONE]]),
        present=torch.ones(3, 2),
    )
    assert accuracy(recipe.tasks["digit"], "digit", found, NONE) == pytest.approx(0.5)
    assert accuracy(recipe.tasks["agreement"], "agreement", found, NONE) == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A folder of pictures that a network learns in a few steps: a bright half says which class."""
    folder = tmp_path_factory.mktemp("bars")
    rng = np.random.default_rng(0)
    lines = ["split,group,label,image,audio,text"]
    for split, count in (("train", 64), ("validation", 32), ("test", 16)):
        for number in range(count):
            picture = rng.integers(0, 60, (120, 160)).astype(np.uint8)
            half = picture[:, :80] if number % 2 else picture[:, 80:]
            half += 150
            cv2.imwrite(str(folder / f"{split}{number}.png"), picture)
            lines.append(f"{split},{split}{number},{number % 2},{split}{number}.png,,")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    base = shipped_recipe("digits_image")
    image = msgspec.structs.replace(base.inputs["image"], frame=(120, 160), reduce=1)
    return msgspec.structs.replace(
        base,
        data=Data(folder=str(folder)),
        inputs={"image": image},
        train=Train(epochs=8, batch_size=16, learning_rate=3e-3, workers=0, weights=str(folder / "w.safetensors")),
    )


def test_training_learns_saves_and_loads(bars: Recipe) -> None:
    report = train_and_save(bars, progress=False)
    assert report.validation["digit"]["image"] >= 0.9
    assert report.test["test"]["digit"]["image"] >= 0.9
    assert json.loads(json.dumps(report.to_dict()))["schema"] == "mmedge.train/1"
    model, metadata = load_weights(bars)
    assert metadata["seed"] == 0
    count = report.counts["digit"]["image"]
    assert metadata["validated_masks"] == [
        {
            "present": ["image"],
            "metric": "top1",
            "value": report.validation["digit"]["image"],
            "samples": 32,
            "low": count.interval[0],
            "high": count.interval[1],
        }
    ]
    assert metadata["temperature"] == report.temperature
    assert not model.training


@pytest.mark.long
def test_limit_and_seed_decide_the_weights(bars: Recipe, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_and_save(bars, output=tmp_path / name, seed=seed, limit=2, progress=False)
        weights.append(load_weights(bars, tmp_path / name)[0].state_dict()["head.weight"])
    torch.testing.assert_close(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_weights_that_cannot_be_used(recipe: Recipe, bars: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights"):
        load_weights(recipe, tmp_path / "none.safetensors")
    (tmp_path / "bad").write_bytes(b"\0" * 4)
    with pytest.raises(ConfigError, match="cannot read the weights"):
        load_weights(recipe, tmp_path / "bad")
    save_weights(make_model(bars), {}, tmp_path / "other")
    with pytest.raises(ConfigError, match="another model"):
        load_weights(recipe, tmp_path / "other")


def test_a_recipe_without_usable_data_is_refused(recipe: Recipe) -> None:
    for data, message in (
        (Data(), "either a data set or a folder"),
        (Data(dataset="mmedge.nowhere:X"), "cannot import"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_and_save(msgspec.structs.replace(recipe, data=data), progress=False)


def test_shipped_weights_belong_to_the_shipped_recipe(recipe: Recipe) -> None:
    model, metadata = load_weights(recipe)
    masks = {tuple(mask["present"]): mask["value"] for mask in metadata["validated_masks"]}
    assert masks.keys() == set(all_masks(("image", "audio", "text")))
    assert masks["image", "audio"] > max(masks["image",], masks["audio",])
    assert masks["image", "audio", "text"] > max(masks["image", "audio"], masks["text",])
    assert set(metadata["temperature"]) == {"digit", "agreement"}
    assert sum(p.numel() for p in model.parameters()) < 200_000
