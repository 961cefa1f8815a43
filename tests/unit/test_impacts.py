from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from mmedge.bundle.manifest import ImageInput  # noqa: E402
from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.datasets.impacts import (  # noqa: E402
    OBJECTS,
    USABLE_S,
    Impacts,
    choose_hit,
    make_look,
    make_sound,
    make_world,
    oracle,
    render,
)
from mmedge.export.datasets.impacts_clip import BEGIN_S, PERIOD_S, make_scene  # noqa: E402
from mmedge.export.models.staged import StagedModel  # noqa: E402
from mmedge.export.preprocess.torch_module import preprocessors  # noqa: E402
from mmedge.export.recipe import Recipe  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402
from mmedge.export.training.augment import augment  # noqa: E402
from mmedge.export.training.weights import load_weights, make_model  # noqa: E402

WORLDS = 3000


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return shipped_recipe("impacts")


@pytest.fixture(scope="module")
def dataset(recipe: Recipe) -> Impacts:
    return Impacts(recipe)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(-2, 0), st.floats(0, 2))
def test_every_object_hits_in_every_window(seed: int, begin_s: float, length_s: float) -> None:
    world = make_world(np.random.default_rng(seed), begin_s, begin_s + USABLE_S + length_s)
    for hits in world.hits_s:
        assert (np.diff(hits) > 0).all()
        for start_s in np.linspace(begin_s, begin_s + length_s, 9):
            assert ((hits >= start_s) & (hits < start_s + USABLE_S)).any()
    t_s = np.linspace(begin_s, begin_s + USABLE_S + length_s, 400)
    heights = world.heights(t_s)
    assert (heights >= 0).all()
    assert (heights <= 1).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_the_click_is_one_hit_of_one_object(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = make_world(rng, -1.2, 0.1)
    who, when_s = choose_hit(world, rng, -USABLE_S, 0.0)
    assert [bool((hits == when_s).any()) for hits in world.hits_s] == [number == who for number in range(OBJECTS)]
    assert abs(world.heights(np.array([when_s]))[0, who]) < 1e-9
    assert world.nearest(when_s) == who


def test_sound_begins_at_the_click_and_the_object_is_on_the_ground() -> None:
    scene = make_scene(5, 1)
    ((who, when_s),) = scene.clicks
    sound = make_sound([when_s], 0.0, 24_000, 8000, np.random.default_rng(0), snr_db=60)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    assert loud[0] / 8000 == pytest.approx(when_s, abs=1e-3)
    look = make_look(np.random.default_rng(0), plain=True)
    frame = render(scene.world, look, np.array([when_s]), (480, 640), np.random.default_rng(0))[0]
    column = frame[:, round(look.centres[who] * 640)]
    assert np.flatnonzero(column > 160)[-1] == pytest.approx(look.levels[who] * 480, abs=4)


def test_seeds_reproduce(recipe: Recipe, dataset: Impacts) -> None:
    one, other = dataset.split("train", epoch=2)[7], Impacts(recipe).split("train", epoch=2)[7]
    assert one.labels == other.labels
    for name, array in one.inputs.items():
        np.testing.assert_array_equal(array, other.inputs[name])
    for elsewhere in (dataset.split("train", epoch=3)[7], dataset.split("validation")[7], dataset.split("train")[8]):
        assert not np.array_equal(elsewhere.inputs["audio"], one.inputs["audio"])
    assert one.inputs["image"].shape == (27, 48, 64, 1)
    assert one.inputs["image"].dtype == np.uint8
    assert one.inputs["audio"].dtype == np.float32


def test_the_oracle_needs_time() -> None:
    table = {skew_ms: oracle(skew_ms, 1500) for skew_ms in (0.0, 30.0, -30.0, 60.0, 92.0)}
    assert table[0.0] == 1.0
    assert table[30.0] == pytest.approx(0.79, abs=0.05)
    assert table[-30.0] == pytest.approx(0.79, abs=0.05)
    assert table[60.0] == pytest.approx(0.61, abs=0.05)
    assert table[92.0] == pytest.approx(0.44, abs=0.05)


def test_no_rule_on_the_picture_alone_beats_chance() -> None:
    """Whatever sets an object apart (hits more, hit last, hit first, is lowest, flies high), it is not the one."""
    right = dict.fromkeys(("most", "last", "first", "lowest", "highest", "nearest the middle"), 0)
    who_counts = np.zeros(OBJECTS)
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        world = make_world(rng, -1.2, 0.1)
        who, _ = choose_hit(world, rng, -USABLE_S, 0.0)
        who_counts[who] += 1
        inside = [hits[(hits >= -USABLE_S) & (hits < 0)] for hits in world.hits_s]
        guesses = {
            "most": np.argmax([len(hits) + 1e-3 * rng.random() for hits in inside]),
            "last": np.argmax([hits[-1] for hits in inside]),
            "first": np.argmin([hits[0] for hits in inside]),
            "lowest": world.heights(np.zeros(1))[0].argmin(),
            "highest": world.apex.argmax(),
            "nearest the middle": np.argmin([np.abs(hits + USABLE_S / 2).min() for hits in inside]),
        }
        for name, guess in guesses.items():
            right[name] += guess == who
    # Five standard deviations.
    spread = 5 * np.sqrt(0.25 * 0.75 / WORLDS)
    assert who_counts / WORLDS == pytest.approx(0.25, abs=spread)
    for name, count in right.items():
        assert count / WORLDS == pytest.approx(0.25, abs=spread), name


def test_the_sound_alone_says_nothing(dataset: Impacts) -> None:
    """Twins that differ in the object alone have the same sound: nothing of the object goes into it."""
    shares = []
    for seed in range(2):
        sequences = dataset.split("validation" if seed else "test")
        found = [sequences[index] for index in range(150)]
        who = np.array([sample.labels["audio"] for sample in found])
        spectra = np.stack(
            [np.log(np.abs(np.fft.rfft(s.inputs["audio"]))[:3600].reshape(60, 60).sum(1)) for s in found]
        )
        half = len(found) // 2
        centres = np.stack([spectra[:half][who[:half] == k].mean(0) for k in range(OBJECTS)])
        guess = np.linalg.norm(spectra[half:, None] - centres, axis=2).argmin(1)
        shares.append(float(np.mean(guess == who[half:])))
    assert np.mean(shares) == pytest.approx(0.25, abs=0.18)
    times = [make_sound([-0.3], -0.9, 7200, 8000, np.random.default_rng(4), snr_db=30) for _ in range(2)]
    np.testing.assert_array_equal(*times)


def test_windows_of_a_clip_hold_one_click_each() -> None:
    scene = make_scene(11, 40)
    for number, (who, when_s) in enumerate(scene.clicks):
        assert BEGIN_S + PERIOD_S * number <= when_s < BEGIN_S + PERIOD_S * number + USABLE_S
        assert (scene.world.hits_s[who] == when_s).any()
    gaps = np.diff([when_s for _, when_s in scene.clicks])
    # More than the model's window of sound.
    assert gaps.min() > 0.904
    assert len({who for who, _ in scene.clicks}) == OBJECTS


@pytest.mark.parametrize(
    ("change", "where"),
    [({"labels": ("1", "2", "none")}, "tasks"), ({"options": {"smaples": 3}}, "data.options")],
)
def test_wrong_recipes_are_refused(recipe: Recipe, change: dict, where: str) -> None:
    if "labels" in change:
        task = msgspec.structs.replace(recipe.tasks["object"], labels=change["labels"])
        recipe = msgspec.structs.replace(recipe, tasks={"object": task})
    with pytest.raises(ConfigError) as caught:
        Impacts(recipe, **change.get("options", {}))
    assert where in str(caught.value)


def test_a_state_is_unrolled_over_the_sequence(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = make_model(recipe).eval()
    inputs = {"image": torch.randn(3, 5, 1, 48, 64), "audio": torch.randn(3, 225, 12)}
    with torch.no_grad():
        outputs = model(inputs, torch.ones(3, 2))
        memory = torch.zeros(3, 27, 24)
        for step in range(5):
            memory = model.get_submodule("image_encoder")(inputs["image"][:, step], memory)
        torch.testing.assert_close(outputs["image_encoder.memory"], memory)
        assert memory[:, :22].abs().max() == 0
        assert memory[:, 22:].abs().min() > 0
        # One frame is a sequence of one.
        single = model({**inputs, "image": inputs["image"][:, 0]}, torch.ones(3, 2))
        again = model({**inputs, "image": inputs["image"][:, :1]}, torch.ones(3, 2))
    torch.testing.assert_close(single["fusion.object"], again["fusion.object"])


def test_a_stage_without_a_state_takes_the_last_step(recipe: Recipe) -> None:
    stages = {"audio_encoder": recipe.stages["audio_encoder"]}
    tasks = {"object": msgspec.structs.replace(recipe.tasks["object"], output="audio_encoder.click")}
    own = msgspec.structs.replace(recipe, stages=stages, tasks=tasks)
    model = StagedModel(own, {"audio_encoder": make_model(recipe).get_submodule("audio_encoder")}).eval()
    sequence = torch.randn(2, 4, 225, 12)
    with torch.no_grad():
        last = model({"audio": sequence[:, -1]}, torch.ones(2, 2))
        torch.testing.assert_close(model({"audio": sequence}, torch.ones(2, 2)), last)


def test_a_state_behind_another_stage_is_refused(recipe: Recipe) -> None:
    fusion = recipe.stages["fusion"]
    stateful = msgspec.structs.replace(fusion, inputs={**fusion.inputs, "last": "@state:object"})
    own = msgspec.structs.replace(recipe, stages={**recipe.stages, "fusion": stateful})
    networks = dict.fromkeys(own.stages, torch.nn.Identity())
    with pytest.raises(ConfigError, match="behind another stage"):
        StagedModel(own, networks)
    unknown = msgspec.structs.replace(recipe.stages["image_encoder"], inputs={"x": "image", "last": "@state:past"})
    own = msgspec.structs.replace(recipe, stages={**recipe.stages, "image_encoder": unknown})
    with pytest.raises(ConfigError, match="neither an input"):
        StagedModel(own, networks)


def test_sequences_are_preprocessed_step_by_step(dataset: Impacts) -> None:
    batch = dataset.collate([dataset.split("validation")[index] for index in range(2)])
    assert batch["inputs"]["image"].shape == (2, 27, 48, 64, 1)
    modules = preprocessors(dataset.inputs)
    whole = modules["image"](batch["inputs"]["image"])
    torch.testing.assert_close(whole[:, 4], modules["image"](batch["inputs"]["image"][:, 4]))
    sound = batch["inputs"]["audio"]
    twice = torch.stack([sound, sound.flip(1)], 1)
    torch.testing.assert_close(modules["audio"](twice)[:, 1], modules["audio"](sound.flip(1)))


def test_all_steps_of_a_sequence_are_augmented_alike() -> None:
    torch.manual_seed(0)
    spec = ImageInput(size=(24, 32), color="gray", mean=(0.5,), std=(0.25,))
    x = torch.randn(3, 1, 1, 24, 32).expand(3, 6, 1, 24, 32)
    y = augment(x, spec)
    assert y.shape == x.shape
    torch.testing.assert_close(y[:, 0], y[:, 5])
    assert not torch.allclose(y, x)


def test_int8_is_measured_with_the_state_of_the_moment_before(recipe: Recipe, dataset: Impacts) -> None:
    pytest.importorskip("onnxscript")
    from mmedge.export.int8.quantize import quantize
    from mmedge.export.onnx.to_onnx import to_onnx

    own = msgspec.structs.replace(recipe, inputs=dataset.inputs)
    sequence = dataset.split("validation")[0].inputs
    samples = [{"image": frame[None], "audio": sequence["audio"][None]} for frame in sequence["image"]]
    model, _ = load_weights(recipe)
    int8 = quantize(to_onnx(model, own, samples[:2]), samples=samples)
    assert int8.sqnr_db["image_encoder.memory"] > 15


def test_either_input_alone_gives_every_object_the_same_score(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = make_model(recipe).eval()
    inputs = {"image": torch.randn(4, 27, 1, 48, 64), "audio": torch.randn(4, 225, 12)}
    with torch.no_grad():
        both = model(inputs, torch.ones(4, 2))["fusion.object"]
        for present in ((1.0, 0.0), (0.0, 1.0)):
            alone = model(inputs, torch.tensor([present] * 4))["fusion.object"][:, :OBJECTS]
            assert (alone.max(1).values - alone.min(1).values).abs().max() < 1e-5
    assert (both[:, :OBJECTS].max(1).values - both[:, :OBJECTS].min(1).values).min() > 1e-4
