"""Samples become a batch, whatever is absent; what does not fit is refused by name."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mmedge.bundle.manifest import TensorInput  # noqa: E402
from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.datasets.base import Dataset, Sample  # noqa: E402
from mmedge.export.models.staged import StagedModel, rank  # noqa: E402
from mmedge.export.preprocess.torch_module import preprocessors  # noqa: E402
from mmedge.export.recipe import RecipeStage  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402
from mmedge.export.training.weights import make_model  # noqa: E402

IMU = TensorInput(shape=(1, 2))


class Made(Dataset):
    def prepare(self) -> None: ...

    def split(self, name, *, epoch=0):
        return []

    def groups(self, name):
        return frozenset((name,))


@pytest.fixture(scope="module")
def impacts() -> Made:
    return Made(shipped_recipe("impacts"))


@pytest.fixture(scope="module")
def digits() -> Made:
    recipe = shipped_recipe("av_digits")
    return Made(msgspec.structs.replace(recipe, inputs={**recipe.inputs, "imu": IMU}))


def frames(steps: int, value: int = 7) -> np.ndarray:
    return np.full((steps, 240, 320, 1), value, np.uint8)


def sound(value: float = 0.5) -> np.ndarray:
    return np.full(904 * 8, value, np.float32)


def test_an_absent_sequence_is_as_long_as_the_others(impacts: Made) -> None:
    batch = impacts.collate(
        [
            Sample(inputs={"image": frames(5), "audio": sound()}, labels={"image": 2, "audio": 2}),
            Sample(inputs={"audio": sound()}, labels={"audio": 3}),
        ]
    )
    assert batch["inputs"]["image"].shape == (2, 5, 240, 320, 1)
    assert batch["inputs"]["image"][0].min() == 7
    assert batch["inputs"]["image"][1].max() == 0
    assert batch["present"].tolist() == [[1, 1], [0, 1]]
    assert batch["labels"].tolist() == [[2, 2], [-1, 3]]


def test_a_batch_without_any_sequence_runs_through_the_model(impacts: Made) -> None:
    batch = impacts.collate([Sample(inputs={"audio": sound()}, labels={"audio": 3})] * 2)
    model: StagedModel = make_model(impacts.recipe).eval()
    modules = preprocessors(impacts.inputs)
    inputs = {name: modules[name](raw) for name, raw in batch["inputs"].items()}
    with torch.inference_mode():
        outputs = model(inputs, batch["present"])
    assert outputs["fusion.object"].shape == (2, 5)
    assert torch.isfinite(outputs["fusion.object"]).all()


def test_texts_and_tensors_that_are_absent(digits: Made) -> None:
    ids = np.arange(24)
    batch = digits.collate(
        [
            Sample(inputs={"text": ids}, labels={"text": 1}),
            Sample(inputs={"imu": np.ones(2, np.float32)}, labels={}),
            Sample(inputs={}, labels={}),
        ]
    )
    assert {name: (x.dtype, tuple(x.shape)) for name, x in batch["inputs"].items()} == {
        "image": (torch.uint8, (3, 480, 640, 1)),
        "audio": (torch.float32, (3, 12_000)),
        "text": (torch.int64, (3, 24)),
        "imu": (torch.float32, (3, 2)),
    }
    assert batch["inputs"]["imu"].ndim == rank(IMU)
    assert batch["inputs"]["text"].tolist() == [ids.tolist(), [0] * 24, [0] * 24]
    assert batch["inputs"]["imu"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert batch["present"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-1, -1, 1, -1], [-1] * 4, [-1] * 4]


def test_a_tensor_is_a_sequence_where_a_state_hangs_on_it(digits: Made) -> None:
    step = RecipeStage(inputs={"x": "imu", "last": "@state:y"}, outputs={"y": ("batch", 2)})
    moving = Made(msgspec.structs.replace(digits.recipe, stages={"imu_encoder": step}))
    batch = moving.collate(
        [Sample(inputs={"imu": np.ones((6, 2), np.float32)}, labels={}), Sample(inputs={}, labels={})]
    )
    assert batch["inputs"]["imu"].shape == (2, 6, 2)
    for steps, fix in ((6, "feeds a stage with a state"), (1, "leave the leading 1 out")):
        with pytest.raises(ConfigError, match=r"has float32 \[\d, 2\], expected float32 \[2\]\n") as caught:
            digits.collate([Sample(inputs={"imu": np.ones((steps, 2), np.float32)}, labels={})])
        assert fix in str(caught.value.fix)


@pytest.mark.parametrize("given", [[1.0, 2.0], 3, torch.zeros(2)], ids=["list", "number", "torch"])
def test_what_is_no_array_is_refused_by_name(digits: Made, given: object) -> None:
    with pytest.raises(ConfigError, match=rf"a sample has a {type(given).__name__}, expected float32 \[2\]") as caught:
        digits.collate([Sample(inputs={"imu": given}, labels={})])  # type: ignore[dict-item]
    assert caught.value.where == "input 'imu'"
    assert "numpy.asarray(x, numpy.float32)" in str(caught.value.fix)


def test_the_odd_one_of_a_batch_is_named(impacts: Made) -> None:
    samples = [Sample(inputs={"image": frames(steps)}, labels={}) for steps in (5, 4, 5)]
    with pytest.raises(ConfigError, match=r"a sample has uint8 \[4, 240.*\], another of its batch \[5, 240") as caught:
        impacts.collate(samples)
    assert caught.value.fix == "give sequences of one length, or no sequences"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (frames(5), frames(4)),
        (frames(5), frames(1)[0]),
        (frames(0), frames(0)),
        (frames(5)[None], None),
        (frames(5)[:, :120], None),
        (frames(5).astype(np.float32), None),
    ],
    ids=["lengths", "one-step", "empty", "rank", "size", "dtype"],
)
def test_what_does_not_fit_is_refused_by_name(impacts: Made, one: np.ndarray, other: np.ndarray | None) -> None:
    samples = [Sample(inputs={"image": x}, labels={}) for x in (one, other) if x is not None]
    with pytest.raises(ConfigError, match=r"a sample has .*, expected uint8 \[240, 320, 1\]") as caught:
        impacts.collate([*samples, Sample(inputs={"audio": sound()}, labels={})])
    assert caught.value.where == "input 'image'"


def test_a_name_that_is_no_input_is_refused(impacts: Made) -> None:
    with pytest.raises(ConfigError, match=r"an array for 'sound', the recipe's inputs are \['image', 'audio'\]"):
        impacts.collate([Sample(inputs={"sound": sound()}, labels={})])


def test_a_tensor_of_several_rows_is_refused(digits: Made) -> None:
    data = Made(msgspec.structs.replace(digits.recipe, inputs={"imu": TensorInput(shape=(4, 2))}))
    with pytest.raises(ConfigError, match="first dimension is that of the batch"):
        data.collate([Sample(inputs={"imu": np.ones((4, 2), np.float32)}, labels={})])
