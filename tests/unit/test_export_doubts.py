"""A verdict rests on samples that differ and on answers that are given; else it says that nothing was checked."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from mmedge.errors import CheckError, ConfigError
from mmedge.export import compare
from mmedge.export.recipe import check_recipe
from tests.unit.test_export_metrics import hills, pitch
from tests.unit.test_export_pack import RECIPE, recipe_in
from tests.unit.test_export_quantize import loss

KINDS = {
    "classification": ({"label", "within", "cosine", "sqnr"}, 'labels = ["a", "b", "c"]\noutput = "fusion.digit"'),
    "verification": ({"label", "sqnr"}, 'labels = ["no", "yes"]\noutput = "fusion.agreement"'),
    "regression": ({"value", "sqnr"}, 'output = "fusion.agreement"'),
}


@pytest.mark.parametrize("metric", ["label", "within", "map", "value", "cosine", "sqnr"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_judged_by_what_its_kind_can_be_judged_by(tmp_path, kind, metric):
    known, keys = KINDS[kind]
    text = f'{RECIPE.split("[tasks.digit]")[0]}[tasks.t]\nkind = "{kind}"\n{keys}\nmetric = "{metric}"\n'
    text += '[sync]\ntrigger = "image"\n'
    if metric in known:
        check_recipe(recipe_in(tmp_path, text))
        return
    with pytest.raises(ConfigError, match=f"a {kind} is not judged by '{metric}'") as caught:
        recipe_in(tmp_path, text)
    assert "tasks.t.metric" in str(caught.value.where)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("max_drop_points = nan", "calibration.max_drop_points"),
        ("max_drop_points = -1", "calibration.max_drop_points"),
        ('rule = "mse"\nquantile = 0.9', "calibration.quantile"),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(tmp_path, line, key):
    with pytest.raises(ConfigError) as caught:
        recipe_in(tmp_path, f"{RECIPE}[calibration]\n{line}\n")
    assert key in str(caught.value.where)


def test_samples_that_are_alike_count_once(tmp_path, caplog):
    fp32 = pitch(tmp_path, "threshold = 0.01")
    still = compare(fp32, fp32, None, [hills(1)[0]] * 300)
    assert not still.enough
    with caplog.at_level(logging.WARNING):
        still.raise_for_status()
    assert "not checked: 1 different ones of 100 samples held out" in caplog.text
    assert compare(fp32, fp32, None, hills(90)).enough


def test_a_task_that_answers_nothing_or_always_the_same_is_said(tmp_path, caplog):
    silent = pitch(tmp_path, "threshold = 0.99")
    found = compare(silent, silent, None, hills(90))
    assert not found.enough
    assert "finds nothing in any sample held out for task 'pitch'" in str(found.warning)
    sure = pitch(tmp_path, "threshold = 0.01")
    flat = [{"x": np.float32([[k / 1000] * 39 + [5.0]])} for k in range(90)]
    alike = compare(sure, sure, None, flat)
    assert alike.enough
    with caplog.at_level(logging.WARNING):
        alike.raise_for_status()
    assert "gives the same label on all samples" in caplog.text
    assert not compare(sure, sure, None, hills(90)).doubts


def test_one_number_is_not_judged_by_its_direction(tmp_path):
    text = RECIPE.split("[tasks.digit]")[0] + '[tasks]\n[calibration]\nmetric = "cosine"\n[sync]\ntrigger = "image"\n'
    recipe = recipe_in(tmp_path, text)
    from mmedge.export.int8.answers import _Row

    row = _Row(recipe, "fusion.agreement", ("image",), None)
    row.add(np.float32([[1.0]]), np.float32([[5.0]]))
    assert (row.result(1).metric, row.result(1).agreement) == ("sqnr", 0.0)
    row = _Row(recipe, "fusion.digit", ("image",), None)
    row.add(np.float32([[1.0, 2.0]]), np.float32([[2.0, 4.0]]))
    assert row.result(1).agreement == pytest.approx(1.0)


@pytest.mark.parametrize("targets", [(), ("cpu",), ("tensorrt", "tensorrt")])
def test_a_target_that_would_get_nothing_is_refused(tmp_path, targets):
    from mmedge.export.pack import check_forms

    text = f'{RECIPE}[export]\nprecisions = ["fp16"]\ntargets = {[*targets]}\n'.replace("'", '"')
    with pytest.raises(ConfigError):
        check_forms(recipe_in(tmp_path, text))
    both = msgspec.structs.replace(recipe_in(tmp_path).export, precisions=("fp16",), targets=("cpu", "tensorrt"))
    with pytest.raises(ConfigError, match="target 'cpu', so it gets nothing"):
        check_forms(msgspec.structs.replace(recipe_in(tmp_path), export=both))


@pytest.mark.parametrize(("lost", "is_refused"), [(1, False), (7, False), (8, True)])
def test_few_samples_are_no_gate_but_for_what_is_plainly_wrong(caplog, lost, is_refused):
    found = loss(image=(15, 1 - lost / 15))
    if is_refused:
        with pytest.raises(CheckError, match=r"another label than fp32 on 53\.33 %"):
            found.raise_for_status(0.3)
    else:
        found.raise_for_status(0.3)
    assert "not checked: 15 samples held out are too few" in caplog.text
    with pytest.raises(CheckError):  # masks with enough samples are a gate all the same
        loss(image=(15, 1 - lost / 15), audio=(100, 0.97)).raise_for_status(0.3)
