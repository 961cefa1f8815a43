"""Two precisions are compared by what the task is for: labels, places, boxes, numbers, directions, noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import CheckError, ConfigError
from mmedge.export import compare
from mmedge.export.int8.compare import Comparison, TaskComparison
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.tasks import mean_average_precision
from mmedge.types import Box
from tests.unit.test_export_kinds import NODE, net
from tests.unit.test_export_pack import recipe_in

PITCH = """
name = "t"
licence = "Apache-2.0"
[inputs.x]
modality = "tensor"
shape = [1, 40]
[model]
factory = "unused:make"
[stages.s]
inputs = {{ x = "x" }}
outputs = {{ y = [1, 40] }}
[tasks.pitch]
kind = "classification"
output = "s.y"
labels = {labels}
{metric}
[sync]
trigger = "x"
"""


def pitch(tmp_path, metric: str = "") -> OnnxModels:
    text = PITCH.format(labels=[str(k) for k in range(40)], metric=metric)
    same = net([NODE("Identity", ["x"], ["y"], name="same")], [1, 40], {})
    return OnnxModels(recipe=recipe_in(tmp_path, text), precision="fp32", models={"s": same})


def shifted(fp32: OnnxModels, places: int) -> OnnxModels:
    order = np.roll(np.arange(40), places)
    moved = net(
        [NODE("Gather", ["x", "order"], ["y"], axis=1, name="move")], [1, 40], {"order": order.astype(np.int64)}
    )
    return OnnxModels(recipe=fp32.recipe, precision="int8", models={"s": moved})


def hills(count: int = 90) -> list[dict[str, np.ndarray]]:
    centres = np.linspace(5, 34, count)[:, None]
    return [{"x": v[None]} for v in np.exp(-np.square((np.arange(40) - centres) / 3)).astype(np.float32)]


@pytest.mark.parametrize(
    ("metric", "places", "agreement"),
    [
        ("", 1, 0.0),
        ('metric = "within"', 1, 1.0),
        ('metric = "within"', 2, 0.0),
        ('metric = "within"\nwithin = 2', 2, 1.0),
        ('metric = "cosine"', 1, pytest.approx(0.946, abs=0.01)),
        ('metric = "sqnr"', 1, pytest.approx(0.892, abs=0.01)),
    ],
)
def test_a_recipe_says_by_what_a_task_is_judged(tmp_path, metric, places, agreement):
    fp32 = pitch(tmp_path, metric)
    found = compare(fp32, shifted(fp32, places), None, hills())
    assert found.agreement["pitch"] == agreement
    if agreement == 1.0:
        found.raise_for_status(0.1)
    elif agreement == 0.0:
        with pytest.raises(CheckError, match=r"another label|further from"):
            found.raise_for_status(50)


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="metric"):
        pitch(tmp_path, 'metric = "vibes"')


@pytest.mark.parametrize("metric", ["sqnr", "cosine"])
def test_outputs_without_a_task_are_judged_by_their_noise(tmp_path, metric):
    text = PITCH.format(labels=[], metric="").replace("[tasks.pitch]", "[dummy]")
    text = text[: text.index("[dummy]")] + f'[tasks]\n[calibration]\nmetric = "{metric}"\n[sync]\ntrigger = "x"\n'
    recipe = recipe_in(tmp_path, text)
    same = net([NODE("Identity", ["x"], ["y"], name="same")], [1, 40], {})
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models={"s": same})
    found = compare(fp32, shifted(fp32, 3), None, hills())
    assert [(row.task, row.metric) for row in found.rows] == [("s.y", metric)]
    with pytest.raises(CheckError, match=r"s\.y"):
        found.raise_for_status(2)
    compare(fp32, fp32, None, hills()).raise_for_status(0)


def box(x: float, score: float = 0.9, label: str = "a", size: float = 0.2) -> Box:
    return Box(label=label, score=score, x1=x, y1=0.1, x2=x + size, y2=0.1 + size)


def test_boxes_that_agree_make_one_and_others_less():
    right = [[box(0.1), box(0.5)], [box(0.3, label="b")], []]
    assert mean_average_precision([(r, r) for r in right]) == 1.0
    moved = [[box(b.x1 + 0.02, label=b.label) for b in boxes] for boxes in right]
    assert mean_average_precision(list(zip(right, moved, strict=True))) == 1.0
    far = [[box(b.x1 + 0.15, label=b.label) for b in boxes] for boxes in right]
    assert mean_average_precision(list(zip(right, far, strict=True))) == 0.0
    assert mean_average_precision([(right[0], right[0][:1]), (right[1], right[1])]) == pytest.approx(0.75)


def test_a_false_box_costs_by_its_rank():
    right = [box(0.1, 0.8), box(0.5, 0.7)]
    assert mean_average_precision([(right, [*right, box(0.75, 0.1)])]) == 1.0
    assert mean_average_precision([(right, [*right, box(0.75, 0.95)])]) == pytest.approx(2 / 3)


def test_boxes_where_there_should_be_none_are_no_agreement():
    assert mean_average_precision([((), ())]) == 1.0
    assert mean_average_precision([((), (box(0.1, 0.9),))], sure=0.5) == 0.0
    assert mean_average_precision([((), (box(0.1, 0.3),))], sure=0.5) == 1.0


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 0.8), st.floats(0.01, 1), st.sampled_from("ab")), max_size=4), max_size=4)
)
def test_average_precision_lies_between_nothing_and_all(pictures):
    boxes = [[box(x, score, label) for x, score, label in picture] for picture in pictures]
    assert 0.0 <= mean_average_precision(list(zip(boxes, boxes[::-1], strict=True))) <= 1.0


def test_a_failure_names_the_layers_that_cost_most_and_training_with_quantisation():
    row = TaskComparison(task="t", present=("x",), samples=400, agreement=0.9, score_difference=0.1, sqnr_db=9.0)
    found = Comparison(a="fp32", b="int8", rows=(row,), worst_layers=("s: block/Conv (-1.5 dB alone)",))
    with pytest.raises(CheckError, match=r"most is lost in s: block/Conv \(-1.5 dB alone\)") as caught:
        found.raise_for_status(0.5)
    assert "qat_epochs" in caught.value.fix
